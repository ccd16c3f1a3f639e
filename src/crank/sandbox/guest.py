"""The guest: runs inside the sandbox, proves its walls, then runs what it is sent and says how it went.

It trusts nothing it hands to the job and is trusted for nothing the job could forge: its word can only
describe a plain end, and what it sends is checked by the supervisor. Standard library only. It reads its
orders from descriptor 3, where the supervisor alone writes, and speaks on descriptor 4, in the frames of
`crank.sandbox.frames`. Orders are in the interpreter's own form, what it says is strict JSON.
"""

from __future__ import annotations

import _thread
import errno
import io
import json
import marshal
import os
import signal
import socket
import struct
import sys
from typing import Any

from crank.sandbox import guest_calls, guest_stand_in, guest_trace
from crank.sandbox.guest_script import FILE_NAME, Script, is_in
from crank.sandbox.guest_watch import Walls, Watcher

_REQUEST, _RESULT = 3, 4
_HEADER = struct.Struct("!BI")
_ORDER_BYTES_MAX = 64 << 20
_ERROR_CHARS_MAX = 2_000
# What `verdict.CLOSED_EARLY_EXIT` says on the other side.
_CHANNEL_CLOSED_EXIT = 97
_INTERRUPT = {signal.SIGINT}


class _Channel:
    """The way out. One frame at a time, whole, from any thread, and only from the process that was started."""

    def __init__(self, token: bytes, descriptor: int = _RESULT) -> None:
        self._token = token
        self._descriptor = descriptor
        self._lock = _thread.allocate_lock()
        self._owner = os.getpid()
        self._write = os.write
        self._getpid = os.getpid
        self._open = True

    def begin(self) -> None:
        """Say that the next line is the job's own, and let its frames pass until the one that tells of its end."""
        self.send("b", b"", opens=True)

    def is_ours(self) -> bool:
        """Tell whether this is the process that was started, not one that it forked."""
        return self._getpid() == self._owner

    def send(self, kind: str, payload: bytes, *, opens: bool = False) -> None:
        """Send one frame. Raises OSError when the job closed the channel."""
        if not self.is_ours():
            return
        frame = self._token + _HEADER.pack(ord(kind), len(payload)) + payload
        # An interrupt in the middle would leave half a frame, and with it a session that cannot speak.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)
        try:
            with self._lock:
                self._open = self._open or opens
                # A thread that goes on showing things after its run has nobody to show them to.
                while frame and (self._open or kind not in "gdc"):
                    frame = frame[self._write(self._descriptor, frame) :]
                self._open = self._open and kind != "e"
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Orders:
    """The way in: frames from the supervisor, some with a descriptor for standard input."""

    def __init__(self) -> None:
        self._socket = socket.socket(fileno=_REQUEST)
        # The beginning of an answer that a run had read and did not wait for.
        self.ahead = b""

    def take(self, kind: str) -> tuple[Any, int | None]:
        """Return the next order and the descriptor that came with it. Ends the process when there is none."""
        head, descriptors = self._read(_HEADER.size)
        number, length = _HEADER.unpack(head)
        while chr(number) == "a" and length <= _ORDER_BYTES_MAX:
            # The answer to a call of an earlier run: nobody waits for it.
            self._read(length)
            head, descriptors = self._read(_HEADER.size)
            number, length = _HEADER.unpack(head)
        if chr(number) != kind or length > _ORDER_BYTES_MAX:
            raise SystemExit("the guest was sent something else than agreed")
        body, _ = self._read(length)
        # Made by our own supervisor from strict JSON, and read where no line of a job runs.
        return marshal.loads(body), descriptors[0] if descriptors else None

    def _read(self, count: int) -> tuple[bytes, list[int]]:
        parts, descriptors = [self.ahead[:count]], []
        self.ahead, count = self.ahead[count:], count - len(parts[0])
        while count:
            chunk, passed, _, _ = socket.recv_fds(self._socket, min(count, 1 << 20), 1, socket.MSG_CMSG_CLOEXEC)
            if not chunk:
                os._exit(0)
            parts.append(chunk)
            descriptors += passed
            count -= len(chunk)
        return b"".join(parts), descriptors

    def pass_on(self, descriptor: int) -> None:
        """Give the supervisor a descriptor, and keep none."""
        socket.send_fds(self._socket, [b"n"], [descriptor])
        os.close(descriptor)

    def close(self) -> None:
        """Take no more orders."""
        self._socket.close()


class _Job:
    """One run: the code, its globals, and what is said about its end."""

    def __init__(
        self, channel: _Channel, results: Any, budget: int, watcher: Watcher, sources: dict[str, str] | None = None
    ) -> None:
        """Make a run. `sources` holds the texts of a session's earlier runs, by file name; this one is added."""
        self._channel = channel
        self._results = results
        self._budget = budget
        self._watcher = watcher
        self._sources = {} if sources is None else sources
        self._value: Any = None
        self._kept: bytes | None = None
        self.end: dict[str, Any] = {"how": "done", "code": 0, "error": None, "hint": None, "note": None}

    def run(self, module: Any, script: Script, args: Any, *, last: bool) -> None:
        """Run the code to its end and, when it is the last of this process, what it asked to run after it."""
        script.keep_in(self._sources)
        names = module.__dict__
        names.pop("result", None)
        names.update(
            args=args,
            display=self.display,
            progress=self.progress,
            __file__=f"/scratch/{script.name}",
            __loader__=script,
            __builtins__=__builtins__,
        )
        sys.modules["__main__"] = module
        sys.argv = [FILE_NAME]
        self._results.begin(self.display)
        guest_trace.begin(self._sources)
        self._execute(script, names)
        if last:
            self._wait_for_threads()
        try:
            self._flush_figures()
            if self.end["how"] == "done":
                self._keep(self._value, names)
            if last:
                self._run_exit_functions()
            _flush()
        except BaseException as fault:
            self._raised(fault)

    def _execute(self, script: Script, names: dict[str, Any]) -> None:
        self._value = None
        try:
            main, final = script.compiled()
            try:
                _hear_interrupts()
                exec(main, names)
                if final is not None:
                    self._value = eval(final, names)
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
        except SystemExit as fault:
            self._exited(fault)
        except BaseException as fault:
            self._raised(fault)

    def run_program(self, argv: list[str]) -> None:
        """Run one of the profile's programs to its end; its exit code is ours."""
        import subprocess

        try:
            _hear_interrupts()
            with subprocess.Popen(argv) as program:
                code = _wait(program)
        except OSError as fault:
            self._complain(f"{argv[0]}: {fault.strerror}")
            code = 127
        except KeyboardInterrupt:
            # Before there was a program to send it to.
            code = -signal.SIGINT
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.end.update(how="exit", code=code if code >= 0 else 128 - code)

    def _exited(self, fault: SystemExit) -> None:
        code = fault.code
        if code is None:
            code = 0
        elif not isinstance(code, int):
            self._complain(str(code))
            code = 1
        self.end.update(how="exit", code=int(code) & 0xFF)

    def _raised(self, fault: BaseException) -> None:
        try:
            text = str(fault)
        except Exception as second:
            text = f"<its text raised {type(second).__name__}>"
        error = f"{type(fault).__qualname__}: {text}" if text else type(fault).__qualname__
        error = error[:_ERROR_CHARS_MAX].encode("utf-8", "replace").decode("utf-8")
        self.end.update(how="raised", code=1, error=error, hint=_hint(fault, self._sources))
        if isinstance(fault, OSError) and fault.errno in (errno.EROFS, errno.EACCES) and fault.filename is not None:
            self._watcher.remember("mounts", f"open {fault.filename!s}")
        try:
            _print(guest_trace.format_traceback(fault, self._sources))
        except BaseException as second:
            self._complain(f"{error} (its traceback could not be printed: {type(second).__name__})")

    def _wait_for_threads(self) -> None:
        threading = sys.modules.get("threading")
        if threading is not None:
            try:
                threading._shutdown()
            except BaseException as fault:
                self._raised(fault)

    def _run_exit_functions(self) -> None:
        import atexit

        atexit._run_exitfuncs()

    def _flush_figures(self) -> None:
        for figure in self._results.open_figures():
            self._show(figure)

    def _keep(self, value: Any, names: dict[str, Any]) -> None:
        given = "result" in names
        value = names["result"] if given else value
        if value is None and not given:
            return
        kept, plain, note = self._results.settle(value, self._budget, named=given, show=self._show)
        self.end["note"] = note
        if kept:
            self._kept = self._results.dumps(plain)
        if note:
            self._complain(note)

    def _show(self, value: Any) -> None:
        try:
            self.display(value)
        except Exception as fault:
            self._complain(f"The result could not be displayed: {type(fault).__name__}")

    def _complain(self, sentence: str) -> None:
        # A job may have closed its stderr; its end must still be told.
        try:
            os.write(2, f"{sentence}\n".encode("utf-8", "replace"))
        except OSError:
            return

    def display(self, *values: Any, raw: bool = False) -> None:
        """Show values as rich results. With `raw`, each is already a dictionary {media type: content}."""
        for value in values:
            try:
                if raw:
                    shown = self._results.checked(value, self._budget)
                else:
                    shown = self._results.bundle(value, self._budget, self._complain)
            except self._results.NotJson as fault:
                self._complain(f"A display was dropped: {fault}.")
                continue
            self._channel.send("d", self._results.dumps(shown))

    def progress(self, fraction: float | None = None, message: str = "") -> None:
        """Tell how far the job is: a fraction from 0 to 1 (None when unknown) and a short sentence."""
        if fraction is not None:
            fraction = float(fraction)
            fraction = min(1.0, max(0.0, fraction)) if fraction == fraction else None
        text = str(message)[:500].encode("utf-8", "replace").decode("utf-8")
        self._channel.send("g", self._results.dumps({"fraction": fraction, "message": text}))

    def tell(self) -> int:
        """Say how it ended; return the exit code that a process shall have that ends here."""
        end = {"told": self._watcher.told, **self.end}
        try:
            if self._kept is not None:
                self._channel.send("v", self._kept)
            self._channel.send("e", self._results.dumps(end))
        except OSError:
            self._complain("The result channel was closed by the job.")
            return _CHANNEL_CLOSED_EXIT
        return int(self.end["code"])


def _hear_interrupts() -> None:
    """Let an interrupt through from here on, also one that came since the order was taken (`_hold_interrupts`)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPT)


def _hold_interrupts() -> None:
    """Keep an interrupt waiting: a signal that is blocked waits even where it would be ignored (signal(7))."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)


def _wait(program: Any) -> int:
    """Wait for a program's end; an interrupt is meant for it."""
    while True:
        try:
            return int(program.wait())
        except KeyboardInterrupt:
            program.send_signal(signal.SIGINT)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: S112 - the job may have replaced or closed it
            continue


_HINTS = {
    errno.ENOSPC: "disk",
    errno.EDQUOT: "disk",
    errno.EMFILE: "open_files",
    errno.EFBIG: "file_size",
}


def _hint(fault: BaseException, sources: dict[str, str]) -> str | None:
    if isinstance(fault, MemoryError):
        # The parser says MemoryError when code is nested too deeply; that is no limit of the sandbox.
        return "memory" if is_in(fault.__traceback__, sources) else None
    if isinstance(fault, OSError) and fault.errno in _HINTS:
        return _HINTS[fault.errno]
    if isinstance(fault, BlockingIOError) and fault.errno == errno.EAGAIN and fault.filename is None:
        return "processes"
    if isinstance(fault, RuntimeError) and "can't start new thread" in str(fault):
        return "processes"
    return None


def _print(shown: str) -> None:
    text = shown.encode("utf-8", "backslashreplace")
    while text:
        text = text[os.write(2, text) :]


def _fail(channel: _Channel, dumps: Any, missing: dict[str, str]) -> None:
    channel.send("p", dumps({"missing": missing, "seen": {}}))
    os._exit(1)


def _prove(
    proof: Any,
    dumps: Any,
    walls: Walls,
    environment: list[str],
    orders: _Orders,
    channel: _Channel,
    ceilings: Any,
) -> None:
    """Close the last wall and try all of them. Ends the process if one is missing."""
    try:
        listener = proof.install(walls.program, number=walls.number, notify=walls.notify)
        if listener is not None:
            orders.pass_on(listener)
    except OSError as fault:
        _fail(channel, dumps, {"seccomp": str(fault)})
    try:
        ceilings.settle()
    except OSError as fault:
        _fail(channel, dumps, {"limits": str(fault)})
    guest_stand_in.stand_in()
    missing, standing = proof.examine(landlock=walls.landlock, environment=environment)
    if missing:
        _fail(channel, dumps, missing)
    channel.send("p", dumps({"missing": {}, "seen": {"layers": standing}}))


def rehearse(results: Any) -> None:
    """Go once through everything that an ordinary run does, so that its memory is touched and its caches warm.

    Nothing of it can be seen afterwards.
    """
    streams = sys.stdout, sys.stderr
    main = sys.modules["__main__"]
    nowhere = os.open("/dev/null", os.O_WRONLY)
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
    try:
        watcher = Watcher(Walls(b"", 0, False, False, False, False))
        channel = _Channel(b"", nowhere)
        channel.begin()
        job = _Job(channel, results, 1 << 16, watcher)
        code = "import json\nprint(1 + 1, args)\nfor n in range(3):\n    n = str(n)\n{'a': [n, 1.5]}"
        job.run(type(sys)("__main__"), Script(code, 1), json.loads('{"a": 1}'), last=False)
        job.display("x")
        job.tell()
    finally:
        os.close(nowhere)
        sys.stdout, sys.stderr = streams
        sys.modules["__main__"] = main


def main(proof: Any, results: Any, walls: Walls, ceilings: Any) -> None:
    """Prove the walls, then serve: one job, or one after another when the setup says so. Never returns.

    ceilings  see `crank.sandbox.cell.Ceilings`
    """
    orders = _Orders()
    setup, _ = orders.take("s")
    channel = _Channel(bytes.fromhex(setup["token"]))
    watcher = Watcher(walls)
    _add_site_builtins()
    sys.path.append("/scratch")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _stdin(None)
    rehearse(results)
    # What is told is that everything is done but the job: nothing runs here from then on until it comes.
    _prove(proof, results.dumps, walls, setup["environment"], orders, channel, ceilings)
    sys.addaudithook(watcher)
    hand = guest_calls.offer(watcher.remember)
    os.register_at_fork(after_in_child=lambda: _leave(orders))
    contexts: dict[str, Any] = {}
    sources: dict[str, str] = {}
    runs = 0
    while True:
        order, stdin = orders.take("r")
        lasting = order["lasting"]
        _hand_over(order, hand, orders, channel)
        ceilings.keep(order["limits"], last=not lasting)
        _stdin(stdin)
        watcher.told = []
        _hold_interrupts()
        channel.begin()
        job = _Job(channel, results, int(order["result_bytes"]), watcher, sources)
        if order["program"]:
            job.run_program(order["program"])
        else:
            module = contexts.setdefault(order["context"], type(sys)("__main__"))
            runs += 1
            job.run(module, Script(order["code"], runs), json.loads(order["args"]), last=not lasting)
        # Where nothing could be compiled it is held still; nobody hears it now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPT)
        # Before its end is told: from then on the next order may come.
        orders.ahead = hand.drop()
        code = job.end["code"] if not channel.is_ours() else job.tell()
        if not lasting or not channel.is_ours():
            os._exit(code)


def _hand_over(order: Any, hand: Any, orders: _Orders, channel: _Channel) -> None:
    """Give a run its handles; without any, the way in is shut for good where no other run follows."""
    handles = order.get("handles")
    if handles:
        # Answers come where the order came from.
        hand.take(handles, channel, _REQUEST)
    elif not order["lasting"]:
        orders.close()


def _stdin(descriptor: int | None) -> None:
    if descriptor is None:
        descriptor = os.open("/dev/null", os.O_RDONLY)
    os.dup2(descriptor, 0)
    os.close(descriptor)


def _leave(orders: _Orders) -> None:
    """Take a forked child off both channels."""
    orders.close()
    try:
        os.close(_RESULT)
    except OSError:
        return


def _add_site_builtins() -> None:
    """Give the job `exit`, `quit` and `help`, which scripts use and which `-S` leaves out."""
    import site

    site.setquit()
    site.sethelper()

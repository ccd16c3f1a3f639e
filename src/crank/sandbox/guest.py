"""The guest: runs inside the sandbox, proves its walls, then runs one job and says how it went.

It trusts nothing it hands to the job and is trusted for nothing the job could forge: its word can only
describe a plain end, and what it sends is checked by the supervisor. Standard library only. It reads its
orders from descriptor 3, where the supervisor alone writes, and speaks on descriptor 4, in the frames of
`crank.sandbox.frames`. Orders are in the interpreter's own form, what it says is strict JSON.
"""

from __future__ import annotations

import _thread
import errno
import marshal
import os
import struct
import sys

# `typing` and `json` cost more to import than everything else a small job does.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_REQUEST, _RESULT = 3, 4
_HEADER = struct.Struct("!BI")
_ORDER_BYTES_MAX = 64 << 20
_FILE_NAME = "job.py"
_ERROR_CHARS_MAX = 2_000
_TOLD_MAX = 20
_ONLY_AST = 0x400
_FUTURES = 0x1FF0000
# What `verdict.CLOSED_EARLY_EXIT` says on the other side.
_CHANNEL_CLOSED_EXIT = 97

_NETWORK_CLOSED = (
    "The network is closed by design: jobs have no sockets. Pass what the job needs as args, files or mounts."
)
_NO_PROCESSES = "This profile starts no processes or programs; threads work. A profile that lists programs can."
_NETWORK_EVENTS = frozenset(
    {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.connect", "socket.sendto"}
)
_PROCESS_EVENTS = frozenset(
    {"subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "pty.spawn"}
)


class _Channel:
    """The way out. One frame at a time, whole, from any thread, and only from the process that was started."""

    def __init__(self, token: bytes) -> None:
        self._token = token
        self._lock = _thread.allocate_lock()
        self._owner = os.getpid()
        self._write = os.write
        self._getpid = os.getpid

    def is_ours(self) -> bool:
        """Tell whether this is the process that was started, not one that it forked."""
        return self._getpid() == self._owner

    def send(self, kind: str, payload: bytes) -> None:
        """Send one frame. Raises OSError when the job closed the channel."""
        if not self.is_ours():
            return
        frame = self._token + _HEADER.pack(ord(kind), len(payload)) + payload
        with self._lock:
            while frame:
                frame = frame[self._write(_RESULT, frame) :]


def _read_exactly(count: int) -> bytes:
    parts = []
    while count:
        chunk = os.read(_REQUEST, min(count, 1 << 20))
        if not chunk:
            os._exit(0)
        parts.append(chunk)
        count -= len(chunk)
    return b"".join(parts)


def _order(kind: str) -> bytes:
    number, length = _HEADER.unpack(_read_exactly(_HEADER.size))
    if chr(number) != kind or length > _ORDER_BYTES_MAX:
        raise SystemExit("the guest was sent something else than agreed")
    return _read_exactly(length)


def _values(order: bytes) -> Any:
    # Made by our own supervisor from strict JSON, and read before any line of the job.
    return marshal.loads(order)


class _Watcher:
    """An audit hook (PEP 578) that turns bare refusals into sentences and remembers what was asked.

    No wall: the walls are the filter and the empty namespace. Its notes are the job's own word.
    """

    def __init__(self, *, processes: bool) -> None:
        self._processes = processes
        self.told: list[str] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.__new__":
            if args[1] != 1:
                raise PermissionError(errno.EPERM, _NETWORK_CLOSED)
        elif event in _NETWORK_EVENTS:
            self._remember(event, args)
            raise PermissionError(errno.EPERM, _NETWORK_CLOSED)
        elif event in _PROCESS_EVENTS and not self._processes:
            raise PermissionError(errno.EPERM, _NO_PROCESSES)

    def _remember(self, event: str, args: tuple[Any, ...]) -> None:
        where = args[1] if event in ("socket.connect", "socket.sendto") else args[0]
        if isinstance(where, str | bytes | tuple) and len(self.told) < _TOLD_MAX:
            sentence = f"it asked the network for {str(where)[:200]!r}"
            if sentence not in self.told:
                self.told.append(sentence)


class _Source:
    """A loader for the job's own module, so that tracebacks and `inspect` show its lines."""

    def __init__(self, code: str) -> None:
        self._code = code

    def get_source(self, name: str) -> str:
        """Return the job's text (PEP 302)."""
        return self._code


class _Job:
    """One run: the code, its globals, and what is said about its end."""

    def __init__(self, channel: _Channel, results: Any, setup: dict[str, Any], watcher: _Watcher) -> None:
        self._channel = channel
        self._results = results
        self._budget = int(setup["result_bytes"])
        self._watcher = watcher
        self._module = type(sys)("__main__")
        self.end: dict[str, Any] = {"how": "done", "code": 0, "error": None, "hint": None, "note": None}

    def run(self, code: str, args: Any) -> None:
        """Run the code to its end, then everything that it asked to run after it."""
        code = code.removeprefix("\ufeff")
        names = self._module.__dict__
        names.update(
            args=args,
            display=self.display,
            progress=self.progress,
            __file__=f"/scratch/{_FILE_NAME}",
            __loader__=_Source(code),
            __builtins__=__builtins__,
        )
        sys.modules["__main__"] = self._module
        sys.argv = [_FILE_NAME]
        value = None
        try:
            main, last = _compile(code)
            exec(main, names)
            if last is not None:
                value = eval(last, names)
        except SystemExit as fault:
            self._exited(fault)
        except BaseException as fault:
            self._raised(fault)
        self._wait_for_threads()
        try:
            if self.end["how"] == "done":
                self._keep(value, names)
            self._run_exit_functions()
        except BaseException as fault:
            self._raised(fault)

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
        self.end.update(how="raised", code=1, error=error, hint=_hint(fault))
        try:
            _print_traceback(fault)
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
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:  # noqa: S112 - the job may have replaced or closed it
                continue

    def _keep(self, value: Any, names: dict[str, Any]) -> None:
        given = "result" in names
        value = names["result"] if given else value
        if value is None and not given:
            return
        if self._results.is_rich(value):
            self._show(value)
        try:
            plain = self._results.encode(value, self._budget)
        except self._results.NotJson as fault:
            self.end["note"] = f"The result was not kept: {fault}."
            self._complain(self.end["note"])
            if not given and not self._results.is_rich(value):
                self._show(value)
            return
        self.end.update(has_result=True, result=plain)

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
                make = self._results.checked if raw else self._results.bundle
                shown = make(value, self._budget)
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

    def finish(self) -> None:
        """Say how it ended and end the process at once. Never returns."""
        code = self.end["code"]
        if not self._channel.is_ours():
            os._exit(code)
        end = {"has_result": False, "result": None, "told": self._watcher.told, **self.end}
        try:
            self._channel.send("e", self._results.dumps(end))
        except OSError:
            self._complain("The result channel was closed by the job.")
            code = _CHANNEL_CLOSED_EXIT
        os._exit(code)


def _compile(code: str) -> tuple[Any, Any]:
    """Compile the job; where it ends in an expression, that is compiled apart, for its value."""
    import _ast

    tree: Any = compile(code, _FILE_NAME, "exec", _ONLY_AST, dont_inherit=True)
    last = None
    if tree.body and isinstance(tree.body[-1], _ast.Expr):
        last = _ast.Expression(body=tree.body.pop().value)
    main = compile(tree, _FILE_NAME, "exec", dont_inherit=True)
    if last is not None:
        last = compile(last, _FILE_NAME, "eval", main.co_flags & _FUTURES, dont_inherit=True)
    return main, last


def _hint(fault: BaseException) -> str | None:
    if isinstance(fault, MemoryError):
        # The parser says MemoryError when code is nested too deeply; that is no limit of the sandbox.
        return "memory" if fault.__traceback__ is not None and _job_frames(fault.__traceback__) else None
    if isinstance(fault, OSError) and fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk"
    if isinstance(fault, BlockingIOError) and fault.errno == errno.EAGAIN and "temporarily" in str(fault):
        return "processes"
    if isinstance(fault, RuntimeError) and "can't start new thread" in str(fault):
        return "processes"
    return None


def _job_frames(trace: Any) -> Any:
    """Return the part of a traceback that begins in the job's own code, or None."""
    while trace is not None and trace.tb_frame.f_code.co_filename != _FILE_NAME:
        trace = trace.tb_next
    return trace


def _print_traceback(fault: BaseException) -> None:
    import traceback

    lines = traceback.format_exception(type(fault), fault, _job_frames(fault.__traceback__))
    text = "".join(lines).encode("utf-8", "backslashreplace")
    while text:
        text = text[os.write(2, text) :]


def _fail(channel: _Channel, dumps: Any, missing: dict[str, str]) -> None:
    channel.send("p", dumps({"missing": missing, "seen": {}}))
    os._exit(1)


def _prepare(proof: Any, dumps: Any, setup: dict[str, Any], program: bytes, channel: _Channel) -> None:
    """Close the last wall, try all of them, import what the profile promises. Ends the process if one is missing."""
    try:
        proof.install(program)
    except OSError as fault:
        _fail(channel, dumps, {"seccomp": str(fault)})
    missing, standing = proof.examine(landlock=bool(setup["landlock"]), environment=setup["environment"])
    for name in setup["preimports"]:
        try:
            __import__(name)
        except Exception as fault:
            missing["preimports"] = f"import {name}: {type(fault).__name__}: {fault}"[:500]
    if missing:
        _fail(channel, dumps, missing)
    channel.send("p", dumps({"missing": {}, "seen": {"layers": standing}}))


def main(proof: Any, results: Any) -> None:
    """Serve one job. `proof` and `results` are the two other files of the guest."""
    for descriptor in (_REQUEST, _RESULT):
        os.set_inheritable(descriptor, False)
    program = _order("f")
    setup = _values(_order("s"))
    channel = _Channel(bytes.fromhex(setup["token"]))
    sys.path.append(setup["site"])
    _prepare(proof, results.dumps, setup, program, channel)
    order = _values(_order("r"))
    os.close(_REQUEST)
    os.register_at_fork(after_in_child=_close_result)
    watcher = _Watcher(processes=bool(setup["processes"]))
    sys.addaudithook(watcher)
    _add_site_builtins()
    sys.path.append("/scratch")
    job = _Job(channel, results, setup, watcher)
    job.run(order["code"], order["args"])
    job.finish()


def _close_result() -> None:
    try:
        os.close(_RESULT)
    except OSError:
        return


def _add_site_builtins() -> None:
    """Give the job `exit`, `quit` and `help`, which scripts use and which `-S` leaves out."""
    import site

    site.setquit()
    site.sethelper()

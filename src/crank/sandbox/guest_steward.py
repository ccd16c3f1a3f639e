"""Inside the sandbox: the steward of an E2B sandbox, one loop that keeps its contexts, commands and files.

It reads requests and writes answers and events, one JSON object a line, on a socket whose other end a job carries
to the controller while there is something to say (`guest_relay`). It lives as long as the session. Everything that
it does, the client's own code could do as well: it holds no right and no secret that the code does not have.
"""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import socket
import time
from collections import deque
from typing import Any

from crank.sandbox import guest_cells, guest_processes, guest_shelf
from crank.sandbox.guest_cells import Cell
from crank.sandbox.guest_processes import Process
from crank.sandbox.guest_shelf import Refused, Shelf
from crank.sandbox.guest_watches import FileCalls

HOME = "/home/user"
# The folder of the session's files by which large ones come and go, seen from the home: a rename needs one mount.
STAGING = ".crank-e2b"
# When so much waits to be carried, what the programs print waits in their pipes.
_HELD_BYTES_MAX = 8 * 1024 * 1024
_REQUEST_BYTES_MAX = 4 * 1024 * 1024
_PIECE_CHARS = 512 * 1024
_CONTEXTS_MAX = 16
_PIP = (
    '() {  printf "%s\\n" "There is no pip here: this sandbox has no network, and its packages are fixed." '
    '"python3 -m importlib.metadata and pip list in Python name them." >&2; return 1; }'
)
_WHICH = '() {  type -P -- "$@"; }'
_ENVIRONMENT = {
    "HOME": HOME,
    "LANG": "C.UTF-8",
    "LOGNAME": "user",
    "MPLBACKEND": "Agg",
    "MPLCONFIGDIR": "/tmp/matplotlib",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "PWD": HOME,
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHOME": "/opt/python",
    "PYTHONPATH": "/opt/site",
    "PYTHONUNBUFFERED": "1",
    "SHELL": "/bin/bash",
    "TMPDIR": "/tmp",
    "TZ": "UTC",
    "USER": "user",
    "E2B_SANDBOX": "true",
    "BASH_FUNC_pip%%": _PIP,
    "BASH_FUNC_pip3%%": _PIP,
    "BASH_FUNC_which%%": _WHICH,
}


class Steward(FileCalls):
    """Keeps everything of one sandbox."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        line.setblocking(False)
        self._out: deque[bytes] = deque()
        self._out_bytes = 0
        self._in = b""
        self._attached = self._leaving = self._halfway = False
        self._environment = dict(_ENVIRONMENT)
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            if name in os.environ:
                self._environment[name] = os.environ[name]
        self._home = HOME if os.path.isdir(HOME) else "/scratch"
        self._environment["HOME"] = self._environment["PWD"] = self._home
        super().__init__(Shelf(self._home, f"{self._home}/{STAGING}"))
        self._cells: dict[str, Cell] = {}
        self._processes: dict[int, Process] = {}
        self._woken, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self._waker = waker

    # --- the line ---

    def _say(self, request_id: int, **word: Any) -> None:
        text = guest_shelf.line_of({"id": request_id, **word})
        if len(text) <= _PIECE_CHARS:
            self._put(text)
            return
        # A job that carries lines keeps so much of its output, so none may be longer than what it has left.
        for at in range(0, len(text), _PIECE_CHARS):
            last = at + _PIECE_CHARS >= len(text)
            self._put(guest_shelf.line_of({"id": request_id, "part": text[at : at + _PIECE_CHARS], "last": last}))

    @property
    def _has_room(self) -> bool:
        return self._out_bytes < _HELD_BYTES_MAX

    def _put(self, text: str) -> None:
        line = text.encode() + b"\n"
        self._out.append(line)
        self._out_bytes += len(line)

    def _flush(self) -> None:
        # Whoever carries has asked to leave: a line that is begun is finished, the others wait for the next one.
        while self._attached and self._out and (self._halfway or not self._leaving):
            try:
                sent = self._line.send(self._out[0])
            except BlockingIOError:
                return
            self._out_bytes -= sent
            self._halfway = sent < len(self._out[0])
            if self._halfway:
                self._out[0] = self._out[0][sent:]
            else:
                self._out.popleft()
        if self._leaving:
            self._line.setblocking(True)
            self._line.sendall(b'{"detached":true}\n')
            self._line.setblocking(False)
            self._attached = self._leaving = False

    def _receive(self) -> None:
        try:
            chunk = self._line.recv(256 * 1024)
        except BlockingIOError:
            return
        if not chunk:
            os._exit(0)
        *lines, self._in = (self._in + chunk).split(b"\n")
        if len(self._in) > _REQUEST_BYTES_MAX:
            os._exit(1)
        for line in lines:
            self._obey(json.loads(line))

    def _obey(self, request: dict[str, Any]) -> None:
        verb = request.get("op")
        if verb == "attach":
            self._attached = True
        elif verb == "detach":
            self._leaving = True
        elif verb == "drop":
            self._drop(request["id"])
        else:
            self._answer(request, str(verb))

    def _answer(self, request: dict[str, Any], verb: str) -> None:
        request_id = request["id"]
        try:
            method = getattr(self, f"do_{verb}", None)
            if method is None:
                raise Refused("unimplemented", f"{verb[:40]} is not offered")
            answer = method(request)
        except Refused as fault:
            self._say(request_id, error={"code": fault.code, "message": str(fault)})
        except OSError as fault:
            refused = guest_shelf.refusal(fault, str(fault.filename or request.get("path", "")))
            self._say(request_id, error={"code": refused.code, "message": str(refused)})
        except (TypeError, ValueError, KeyError, AttributeError) as fault:
            self._say(request_id, error={"code": "invalid_argument", "message": f"the request is malformed: {fault}"})
        else:
            if answer is not None:
                self._say(request_id, done=answer)

    def _drop(self, request_id: int) -> None:
        for cell in self._cells.values():
            if cell.running is not None and cell.running["id"] == request_id:
                cell.interrupt()
            cell.waiting = deque(each for each in cell.waiting if each["id"] != request_id)
        for process in self._processes.values():
            process.listeners.discard(request_id)
        self._watches = {name: watch for name, watch in self._watches.items() if watch["listener"] != request_id}

    # --- the sandbox ---

    def do_hello(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take the variables of everything that will run, and begin the first context."""
        self._environment.update({str(name): str(value) for name, value in request["env"].items()})
        self._find_cell(None, "python")
        return {"home": self._home}

    def do_measure(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return what the disk holds, and the memory and time of every process here."""
        disk = os.statvfs("/scratch")
        pages, ticks = 0, 0
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/statm", encoding="ascii") as file:
                    pages += int(file.read().split()[1])
                with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as file:
                    ticks += sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
            except (OSError, ValueError, IndexError):
                continue
        return {
            "disk_total": disk.f_blocks * disk.f_frsize,
            "disk_used": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
            "memory_used": pages * os.sysconf("SC_PAGE_SIZE"),
            "cpu_sec": ticks / os.sysconf("SC_CLK_TCK"),
        }

    # --- contexts ---

    def _find_cell(self, context_id: str | None, language: str) -> Cell:
        wanted = f"default-{language}" if context_id is None else context_id
        cell = self._cells.get(wanted)
        if cell is not None:
            return cell
        if context_id is not None and not context_id.startswith("default-"):
            raise Refused("not_found", f"Context {context_id[:80]} not found")
        return self._make_cell(f"default-{language}", language, self._home)

    def _make_cell(self, context_id: str, language: str, cwd: str) -> Cell:
        if len(self._cells) >= _CONTEXTS_MAX:
            raise Refused("resource_exhausted", f"a sandbox has at most {_CONTEXTS_MAX} contexts; remove one")
        cell = Cell(context_id, language, cwd, dict(self._environment))
        cell.start(self._descriptors())
        self._cells[context_id] = cell
        return cell

    def _descriptors(self) -> list[int]:
        own = [self._line.fileno(), self._woken, self._waker]
        inside = [number for cell in self._cells.values() for number in [*cell.descriptors, cell.orders]]
        pipes = [number for process in self._processes.values() for number in process.outputs]
        return [number for number in (*own, *inside, *pipes) if number >= 0]

    def do_execute(self, request: dict[str, Any]) -> None:
        """Run code in a context; its events follow."""
        code = request["code"]
        context_id = request.get("context")
        language = guest_cells.check_language(request.get("language"))
        if not isinstance(code, str) or not isinstance(context_id, str | None):
            raise Refused("invalid_argument", "code is a text, and context_id the id of a context")
        cell = self._find_cell(context_id, language)
        if len(cell.waiting) >= guest_cells.QUEUED_MAX:
            raise Refused("resource_exhausted", "too much code waits for this context")
        given = {str(name): str(value) for name, value in (request.get("env") or {}).items()}
        cell.waiting.append({"id": request["id"], "code": code, "env": given})
        cell.begin()

    def do_context_make(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make a context."""
        language = guest_cells.check_language(request.get("language"))
        cwd = self._shelf.place(request.get("cwd") or self._home)
        if not os.path.isdir(cwd):
            raise Refused("invalid_argument", f"cwd {cwd!r} is not a directory")
        return self._make_cell(request["name"], language, cwd).document()

    def do_context_list(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return every context."""
        return {"contexts": [cell.document() for cell in self._cells.values()]}

    def do_context_remove(self, request: dict[str, Any]) -> dict[str, Any]:
        """End a context and what runs in it."""
        cell = self._known(request)
        cell.kill()
        self._lose(cell, "the context was removed")
        return {}

    def do_context_restart(self, request: dict[str, Any]) -> dict[str, Any]:
        """Give a context a fresh process."""
        cell = self._known(request)
        cell.kill()
        self._lose(cell, "the context was restarted")
        return self._make_cell(cell.id, cell.language, cell.cwd).document()

    def _known(self, request: dict[str, Any]) -> Cell:
        cell = self._cells.get(request["context"])
        if cell is None:
            raise Refused("not_found", f"Context {str(request['context'])[:80]} not found")
        return cell

    def _lose(self, cell: Cell, why: str) -> None:
        """A context's process is gone: say so to what ran and waited in it."""
        self._cells.pop(cell.id, None)
        if cell.running is not None:
            self._drain(cell)
        for request in [*([cell.running] if cell.running else []), *cell.waiting]:
            event = {"type": "error", "name": "ContextEnded", "value": why, "traceback": f"ContextEnded: {why}"}
            self._say(request["id"], event=event)
            self._say(request["id"], done={})
        cell.close()

    def _drain(self, cell: Cell) -> None:
        # One read of all that a pipe may hold: who goes on writing (a thread, a program left behind) holds nobody up.
        for number in list(cell.outputs):
            self._carry_output(cell, cell.read(number, guest_processes.PIPE_BYTES_MAX))

    def _carry_output(self, cell: Cell, event: dict[str, Any] | None) -> None:
        if event is not None and cell.running is not None:
            self._say(cell.running["id"], event=event)

    def _hear(self, cell: Cell) -> None:
        words = cell.words()
        if words is None:
            # Its own words are lost with it; what it can be is killed by a signal or out of memory.
            cell.kill()
            self._lose(cell, "the process of this context ended: it was interrupted, killed, or out of memory")
            return
        for word in words:
            if cell.running is None:
                continue
            if word.get("type") == "done":
                self._drain(cell)
                self._say(cell.running["id"], done={})
                cell.running = cell.kill_at = None
                cell.begin()
            else:
                self._say(cell.running["id"], event=word)

    # --- commands ---

    def do_start(self, request: dict[str, Any]) -> None:
        """Start a command; its events follow."""
        if len(self._processes) >= guest_processes.PROCESSES_MAX:
            raise Refused("resource_exhausted", f"at most {guest_processes.PROCESSES_MAX} commands run at once")
        given = request["process"]
        cwd = self._shelf.place(given.get("cwd") or self._home)
        if not os.path.isdir(cwd):
            raise Refused("invalid_argument", f"cwd {cwd!r} does not exist")
        environment = {str(name): str(value) for name, value in (given.get("envs") or {}).items()}
        config: dict[str, Any] = {"cmd": str(given["cmd"]), "args": [str(word) for word in given.get("args") or []]}
        config |= {"envs": environment, "cwd": cwd}
        whole = {**self._environment, "PWD": cwd, **environment}
        process = Process(config, request.get("tag"), whole, stdin=bool(request.get("stdin", True)))
        process.listeners.add(request["id"])
        self._processes[process.pid] = process
        self._say(request["id"], event={"start": {"pid": process.pid}})

    def do_connect(self, request: dict[str, Any]) -> None:
        """Listen to a command that runs."""
        process = self._selected(request)
        process.listeners.add(request["id"])
        self._say(request["id"], event={"start": {"pid": process.pid}})

    def _selected(self, request: dict[str, Any]) -> Process:
        selector = request["process"]
        pid, tag = selector.get("pid"), selector.get("tag")
        for process in self._processes.values():
            if process.status is None and (
                (pid is not None and process.pid == int(pid)) or (tag and process.tag == tag)
            ):
                return process
        wanted = f"pid {pid}" if pid is not None else f"tag {str(tag)[:80]}"
        raise Refused("not_found", f"process with {wanted} not found")

    def do_list(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return every command that runs."""
        return {"processes": [each.document() for each in self._processes.values() if each.status is None]}

    def do_signal(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a signal."""
        number = guest_processes.SIGNALS.get(request["signal"])
        if number is None:
            raise Refused("invalid_argument", "signal is SIGNAL_SIGTERM, SIGNAL_SIGINT or SIGNAL_SIGKILL")
        self._selected(request).send(number)
        return {}

    def do_input(self, request: dict[str, Any]) -> dict[str, Any]:
        """Write to a command's stdin."""
        self._selected(request).write(base64.b64decode(request["base64"]))
        return {}

    def do_close_input(self, request: dict[str, Any]) -> dict[str, Any]:
        """End a command's stdin."""
        self._selected(request).close_stdin()
        return {}

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid in self._processes:
                self._processes[pid].note_end(status)

    def _carry_process(self, process: Process, event: dict[str, Any] | None) -> None:
        if event is not None:
            for listener in process.listeners:
                self._say(listener, event=event)

    def _settle(self) -> None:
        """Tell of commands that are over, and use force where an interrupt was not heard."""
        for process in list(self._processes.values()):
            # Without room its last words stay in its pipes, and it is not over before they are taken.
            if process.is_over and (self._has_room or not process.outputs):
                for number in list(process.outputs):
                    self._carry_process(process, process.read(number, guest_processes.PIPE_BYTES_MAX))
                for listener in process.listeners:
                    self._say(listener, event=process.end())
                    self._say(listener, done={})
                process.close()
                del self._processes[process.pid]
        for cell in list(self._cells.values()):
            if cell.kill_at is not None and time.monotonic() > cell.kill_at:
                cell.kill_at = None
                cell.kill()

    # --- the loop ---

    def run(self) -> None:
        """Serve until the line closes."""
        while True:
            self._turn()

    def _turn(self) -> None:
        waiting = select.poll()
        writes = self._attached and (self._out or self._leaving)
        # First what has ended, then what is asked of it.
        waiting.register(self._woken, select.POLLIN)
        waiting.register(self._line, select.POLLIN | (select.POLLOUT if writes else 0))
        room = self._has_room
        cells = {number: cell for cell in self._cells.values() for number in cell.descriptors} if room else {}
        outputs = {number: each for each in self._processes.values() for number in each.outputs} if room else {}
        inputs = {each.stdin: each for each in self._processes.values() if each.stdin is not None}
        for number in (*cells, *outputs):
            waiting.register(number, select.POLLIN)
        for number in inputs:
            waiting.register(number, select.POLLOUT)
        for number, _ in waiting.poll(self._patience_ms()):
            if number == self._line.fileno():
                self._receive()
            elif number == self._woken:
                os.read(self._woken, 512)
                self._reap()
            elif number in cells and number in cells[number].descriptors:
                self._serve_cell(cells[number], number)
            elif number in outputs and number in outputs[number].outputs:
                self._carry_process(outputs[number], outputs[number].read(number))
            elif number in inputs:
                inputs[number].flush()
        self._settle()
        self._look()
        self._flush()

    def _serve_cell(self, cell: Cell, number: int) -> None:
        if number in cell.outputs:
            self._carry_output(cell, cell.read(number))
        else:
            self._hear(cell)

    def _patience_ms(self) -> float:
        busy = any(each.ended_at is not None for each in self._processes.values())
        busy = busy or any(cell.kill_at is not None for cell in self._cells.values())
        watched = any(watch["listener"] is not None for watch in self._watches.values())
        return 50 if busy else 300 if watched else 60_000


def serve(line: socket.socket) -> None:
    """Be the steward. Never returns."""
    # The job's own channels are not ours, and a signal to the job is not meant for us.
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nothing = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2, guest_cells.RESULT):
        os.dup2(nothing, number)
    if nothing != guest_cells.RESULT:
        os.close(nothing)
    Steward(line).run()

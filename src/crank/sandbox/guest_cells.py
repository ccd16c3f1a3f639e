"""Inside the sandbox: the contexts of an E2B sandbox as its steward sees them, each a process that runs code.

A Python context is a fork of the profile's prepared interpreter; a bash context is a shell. Code of one context
runs one after another; contexts run beside each other.
"""

from __future__ import annotations

import codecs
import json
import os
import signal
import socket
import subprocess
import time
from collections import deque
from typing import Any

from crank.sandbox import guest_kernel
from crank.sandbox.guest_processes import take_output
from crank.sandbox.guest_shelf import Refused

LANGUAGES = ("python", "bash")
QUEUED_MAX = 64
# Code that does not yield to an interrupt within this time loses its context.
INTERRUPT_SEC = 3.0
# The guest closes this number in every process that is forked from it, so nothing of ours may lie there.
RESULT = 4
_CHUNK = 64 * 1024
_LINE_BYTES_MAX = 32 * 1024 * 1024
# Reads a piece of code to each NUL, runs it in this very shell, and says its status.
_BASH = "while IFS= read -r -d '' __code <&{orders}; do eval \"$__code\"; printf '%s\\0' \"$?\" >&{status}; done"


class Cell:
    """One context: its process, what runs in it and what waits."""

    def __init__(self, context_id: str, language: str, cwd: str, environment: dict[str, str]) -> None:
        self.id, self.language, self.cwd = context_id, language, cwd
        self.environment = environment
        self.waiting: deque[dict[str, Any]] = deque()
        self.running: dict[str, Any] | None = None
        self.kill_at: float | None = None
        self.count = 0
        self.pid = 0
        self.control: socket.socket | int = -1
        self.outputs: dict[int, str] = {}
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}
        self._orders = -1
        self._held = b""

    def document(self) -> dict[str, str]:
        """Return what a client is told of it."""
        return {"id": self.id, "language": self.language, "cwd": self.cwd}

    @property
    def orders(self) -> int:
        """Return where a shell's code is written, or -1."""
        return self._orders

    @property
    def descriptors(self) -> list[int]:
        """Return what the steward reads of it."""
        control = self.control if isinstance(self.control, int) else self.control.fileno()
        return [number for number in (control, *self.outputs) if number >= 0]

    def start(self, close: list[int]) -> None:
        """Start its process, which holds none of the steward's descriptors (`close`)."""
        (out, their_out), (error, their_error) = os.pipe(), os.pipe()
        self.outputs = {out: "stdout", error: "stderr"}
        # A character may lie across two reads.
        self._decoders = {number: codecs.getincrementaldecoder("utf-8")("replace") for number in self.outputs}
        if self.language == "bash":
            self._start_bash(their_out, their_error)
        else:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            self.pid = os.fork()
            if self.pid == 0:
                self._be_kernel(theirs, their_out, their_error, [*close, ours.fileno(), out, error])
            theirs.close()
            self.control = ours
            ours.setblocking(False)
        os.close(their_out)
        os.close(their_error)
        for number in self.outputs:
            os.set_blocking(number, False)

    def _be_kernel(self, control: socket.socket, out: int, error: int, close: list[int]) -> None:
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(out, 1)
            os.dup2(error, 2)
            for number in {*close, out, error} - {0, 1, 2}:
                os.close(number)
            nothing = os.open("/dev/null", os.O_RDWR)
            os.dup2(nothing, RESULT)
            if nothing != RESULT:
                os.close(nothing)
            os.environ.clear()
            os.environ.update(self.environment)
            guest_kernel.main(control, self.cwd)
        except BaseException as fault:
            os.write(2, f"{type(fault).__name__}: {fault}\n".encode())
        finally:
            os._exit(1)

    def _start_bash(self, out: int, error: int) -> None:
        (orders, self._orders), (status, their_status) = os.pipe(), os.pipe()

        script = _BASH.format(orders=orders, status=their_status)
        child = subprocess.Popen(
            ["/bin/bash", "--noprofile", "--norc", "-c", script],
            cwd=self.cwd, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=error,
            pass_fds=(orders, their_status), start_new_session=True,
        )  # fmt: skip
        self.pid = child.pid
        # Reaped with everything else that the steward started.
        child.returncode = 0
        os.close(orders)
        os.close(their_status)
        os.set_blocking(status, False)
        self.control = status

    def begin(self) -> None:
        """Run what waits, when nothing runs."""
        if self.running is not None or not self.waiting:
            return
        self.running = self.waiting.popleft()
        try:
            if self.language == "bash":
                self._order_bash(self.running)
            elif isinstance(self.control, socket.socket):
                self.control.setblocking(True)
                word = json.dumps({"code": self.running["code"], "env": self.running["env"]})
                self.control.sendall(word.encode() + b"\n")
                self.control.setblocking(False)
        except OSError:
            # It died; its socket says so next.
            return

    def _order_bash(self, request: dict[str, Any]) -> None:
        code = str(request["code"])
        if request["env"]:
            given = "; ".join(f"export {name}={_quoted(value)}" for name, value in request["env"].items())
            code = f"( {given}; eval {_quoted(code)} )"
        os.write(self._orders, code.replace("\0", "").encode() + b"\0")

    def read(self, number: int, bytes_max: int = _CHUNK) -> dict[str, Any] | None:
        """Return what lies in one of its outputs as an event; None when there is nothing. An ended one is closed."""
        chunk = take_output(number, bytes_max)
        if chunk is None:
            return None
        text, kind = self._decoders[number].decode(chunk, final=not chunk), self.outputs[number]
        if not chunk:
            os.close(number)
            del self.outputs[number], self._decoders[number]
        return {"type": kind, "text": text} if text else None

    def words(self) -> list[dict[str, Any]] | None:
        """Return what the process said since the last look; None when it has ended."""
        chunk = b""
        try:
            chunk = os.read(self.descriptors[0], _CHUNK)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not chunk:
            return None
        held = self._held + chunk
        if len(held) > _LINE_BYTES_MAX:
            return None
        if self.language == "bash":
            *whole, self._held = held.split(b"\0")
            return [word for status in whole for word in self._bash_words(status)]
        *lines, self._held = held.split(b"\n")
        try:
            words = [json.loads(line) for line in lines]
        except ValueError:
            return None
        # The process belongs to the client's code, which may write here what it likes.
        return words if all(isinstance(word, dict) for word in words) else None

    def _bash_words(self, status: bytes) -> list[dict[str, Any]]:
        self.count += 1
        said = [{"type": "count", "execution_count": self.count}]
        if status != b"0":
            code = status.decode("ascii", "replace")
            said.append({"type": "error", "name": "ExitCode", "value": code, "traceback": f"exit status {code}"})
        return [*said, {"type": "done"}]

    def interrupt(self) -> None:
        """Stop what runs: softly first, by force later."""
        if self.language == "bash":
            # A shell goes on with the next command after an interrupt, so it is replaced.
            self.kill()
            return
        self.kill_at = time.monotonic() + INTERRUPT_SEC
        _send(self.pid, signal.SIGINT, group=False)

    def kill(self) -> None:
        """End the process and what it started."""
        _send(self.pid, signal.SIGKILL, group=True)

    def close(self) -> None:
        """Forget its descriptors."""
        for number in self.outputs:
            os.close(number)
        if isinstance(self.control, socket.socket):
            self.control.close()
        elif self.control >= 0:
            os.close(self.control)
        if self._orders >= 0:
            os.close(self._orders)
        self.outputs, self.control, self._orders = {}, -1, -1


def _send(pid: int, number: int, *, group: bool) -> None:
    try:
        (os.killpg if group else os.kill)(pid, number)
    except OSError:
        return


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def check_language(language: Any) -> str:
    """Return the language that is meant. Raises Refused for one that is not here."""
    wanted = "python" if language in (None, "", "python3") else str(language).lower()
    if wanted not in LANGUAGES:
        raise Refused("invalid_argument", f"language {wanted[:40]!r} is not offered here; there are python and bash")
    return wanted

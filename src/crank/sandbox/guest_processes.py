"""Inside the sandbox: the commands of an E2B sandbox, each a program with its own group of processes."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import time
from typing import Any

from crank.sandbox.guest_shelf import Refused

PROCESSES_MAX = 64
_CHUNK = 48 * 1024
# No pipe holds more: one read of so much takes all that lies in it, and no more however fast somebody writes.
PIPE_BYTES_MAX = 1024 * 1024
_STDIN_HELD_MAX = 4 * 1024 * 1024
# How long after a program's end we wait for what it left behind to close its output.
_LINGER_SEC = 0.25
SIGNALS = {"SIGNAL_SIGTERM": signal.SIGTERM, "SIGNAL_SIGKILL": signal.SIGKILL, "SIGNAL_SIGINT": signal.SIGINT}


def take_output(number: int, bytes_max: int) -> bytes | None:
    """Return what lies in a pipe; None when nothing does, and nothing at all when it has ended."""
    try:
        return os.read(number, bytes_max)
    except BlockingIOError:
        return None
    except OSError:
        return b""


class Process:
    """One command: what was asked for, its pipes, who listens, and how it ended."""

    def __init__(self, config: dict[str, Any], tag: str | None, environment: dict[str, str], *, stdin: bool) -> None:
        """Start it. Raises Refused when there is no such program or folder."""
        self.config, self.tag = config, tag
        self.listeners: set[int] = set()
        self.status: int | None = None
        self.ended_at: float | None = None
        self._held = b""
        self._closing = False
        try:
            self._child = subprocess.Popen(
                [config["cmd"], *config["args"]], cwd=config["cwd"], env=environment,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, bufsize=0,
            )  # fmt: skip
        except FileNotFoundError as fault:
            raise Refused("invalid_argument", f"{fault.filename or config['cmd']!r} does not exist") from fault
        except (PermissionError, NotADirectoryError) as fault:
            raise Refused("permission_denied", f"{config['cmd']!r} may not be started: {fault.strerror}") from fault
        except (OSError, ValueError) as fault:
            raise Refused("resource_exhausted", f"{config['cmd']!r} could not be started: {fault}") from fault
        self.pid = self._child.pid
        # The steward reaps everything; this object must not.
        self._child.returncode = 0
        assert self._child.stdout is not None
        assert self._child.stderr is not None
        self.outputs = {self._child.stdout.fileno(): "stdout", self._child.stderr.fileno(): "stderr"}
        for number in self.outputs:
            os.set_blocking(number, False)
        if self._child.stdin is not None:
            os.set_blocking(self._child.stdin.fileno(), False)

    def document(self) -> dict[str, Any]:
        """Return what a client is told of it."""
        found: dict[str, Any] = {"config": self.config, "pid": self.pid}
        if self.tag is not None:
            found["tag"] = self.tag
        return found

    def read(self, number: int, bytes_max: int = _CHUNK) -> dict[str, Any] | None:
        """Return what lies in one of its outputs as an event; None when there is nothing. An ended one is closed."""
        chunk = take_output(number, bytes_max)
        if chunk is None:
            return None
        if not chunk:
            self.shut(number)
            return None
        return {"data": {self.outputs[number]: base64.b64encode(chunk).decode()}}

    def shut(self, number: int) -> None:
        """Close one of its outputs."""
        name = self.outputs.pop(number)
        stream = self._child.stdout if name == "stdout" else self._child.stderr
        if stream is not None:
            stream.close()

    @property
    def is_over(self) -> bool:
        """Tell whether it has ended and nothing more is to come."""
        if self.ended_at is None:
            return False
        return not self.outputs or time.monotonic() > self.ended_at + _LINGER_SEC

    def note_end(self, status: int) -> None:
        """Take its wait status."""
        self.status, self.ended_at = status, time.monotonic()

    def end(self) -> dict[str, Any]:
        """Return its last event."""
        code = os.waitstatus_to_exitcode(self.status or 0)
        if code >= 0:
            return {"end": {"exitCode": code, "exited": True, "status": f"exit status {code}"}}
        text = f"signal: {_signal_words(-code)}"
        return {"end": {"exitCode": -1, "exited": False, "status": text, "error": text}}

    def send(self, number: int) -> None:
        """Send a signal to it and to what it started."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError as fault:
            raise Refused("not_found", f"process with pid {self.pid} not found") from fault

    # --- standard input ---

    @property
    def stdin(self) -> int | None:
        """Return the descriptor to which held bytes are to be written, or None."""
        pipe = self._child.stdin
        return pipe.fileno() if pipe is not None and not pipe.closed and self._held else None

    def write(self, octets: bytes) -> None:
        """Take bytes for its stdin. Raises Refused when it has none, or reads none."""
        pipe = self._child.stdin
        if pipe is None or pipe.closed or self._closing:
            raise Refused("failed_precondition", "stdin not enabled or closed; start the command with stdin=True")
        if len(self._held) + len(octets) > _STDIN_HELD_MAX:
            raise Refused("resource_exhausted", "the command has not read what was sent to it before")
        self._held += octets
        self.flush()

    def flush(self) -> None:
        """Write what is held, as much as the pipe takes."""
        pipe = self._child.stdin
        if pipe is None or pipe.closed:
            return
        try:
            while self._held:
                self._held = self._held[os.write(pipe.fileno(), self._held) :]
        except BlockingIOError:
            return
        except OSError:
            self._held, self._closing = b"", True
        if self._closing:
            pipe.close()

    def close_stdin(self) -> None:
        """End its stdin when everything is written."""
        self._closing = True
        self.flush()

    def close(self) -> None:
        """Forget its descriptors."""
        for number in list(self.outputs):
            self.shut(number)
        if self._child.stdin is not None:
            self._child.stdin.close()


def _signal_words(number: int) -> str:
    words = {signal.SIGKILL: "killed", signal.SIGTERM: "terminated", signal.SIGINT: "interrupt"}
    return words.get(signal.Signals(number), signal.Signals(number).name)

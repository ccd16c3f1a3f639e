"""Inside the sandbox: the line between a job and the steward of an E2B sandbox, which outlives the job.

The steward is a process of the session. A job attaches to it for a while, carries lines from its own stdin to the
steward and lines of the steward to its own stdout, and lets go: when its stdin ends, when it has carried a lot, or
when it is interrupted. Nothing is lost between two jobs, because the steward holds what nobody is there to take.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time
from typing import Any

# A job that has carried so much, or for so long, asks to be followed by another.
TURN_BYTES = 3 * 1024 * 1024
TURN_SEC = 240.0
_CHUNK = 256 * 1024


class Relay:
    """Our end of the steward's socket."""

    def __init__(self, serve: Any) -> None:
        """Start the steward as a process of its own, which runs `serve` with the other end."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        if os.fork() == 0:
            try:
                self._socket.close()
                serve(theirs)
            finally:
                os._exit(1)
        theirs.close()
        self._held = self._unsent = b""

    def pump(self) -> None:
        """Carry lines both ways until it is time to let go. Ends with status 1 when the steward is gone."""
        self._unsent = b""
        self._order("attach")
        began, carried, leaving, told = time.monotonic(), 0, False, False
        waiting = select.poll()
        waiting.register(0, select.POLLIN)
        waiting.register(self._socket, select.POLLIN)
        while True:
            try:
                ready = [descriptor for descriptor, _ in waiting.poll(1000)]
                if 0 in ready and not leaving:
                    leaving = self._carry_in()
                    if leaving:
                        waiting.unregister(0)
                        waiting.register(self._socket, select.POLLIN)
                if self._socket.fileno() in ready:
                    taken, last = self._carry_out()
                    carried += taken
                    if last:
                        return
                if not (told or leaving) and (carried > TURN_BYTES or time.monotonic() - began > TURN_SEC):
                    told = True
                    self._write(b'{"turn":true}\n')
                    # What comes now is for the next job: this one's output is nearly used up.
                    waiting.unregister(self._socket)
            except KeyboardInterrupt:
                # The job is cancelled; the steward and what it keeps live on.
                if not leaving:
                    leaving = True
                    waiting.unregister(0)
                    waiting.register(self._socket, select.POLLIN)
                    self._order("detach")

    def _order(self, word: str) -> None:
        self._socket.sendall(json.dumps({"op": word}).encode() + b"\n")

    def _carry_in(self) -> bool:
        """Carry what lies in stdin; tell whether it has ended, after saying so to the steward."""
        chunk = os.read(0, _CHUNK)
        if chunk:
            # Whole lines only: an interrupt must not leave the steward with half of one.
            whole, newline, self._unsent = (self._unsent + chunk).rpartition(b"\n")
            self._socket.sendall(whole + newline)
            return False
        self._order("detach")
        return True

    def _carry_out(self) -> tuple[int, bool]:
        """Carry whole lines of the steward; return how many bytes, and whether it let go."""
        chunk = self._socket.recv(_CHUNK)
        if not chunk:
            self._write(b'{"gone":true}\n')
            raise SystemExit(1)
        whole, newline, rest = (self._held + chunk).rpartition(b"\n")
        self._held = rest
        lines = whole + newline
        last = lines.endswith(b'{"detached":true}\n')
        if last:
            lines = lines.removesuffix(b'{"detached":true}\n')
        self._write(lines)
        return len(lines), last

    def _write(self, lines: bytes) -> None:
        while lines:
            lines = lines[os.write(1, lines) :]

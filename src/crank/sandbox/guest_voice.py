"""Inside the sandbox: how a context of an E2B sandbox is heard: its line to the steward, and what its code prints."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import threading
import time
from typing import Any

from crank.sandbox.guest_shelf import line_of

_PIECE_CHARS = 60 * 1024
_HELD_CHARS = 8 * 1024
_HELD_SEC = 0.1


class Line:
    """The control socket: one JSON object a line."""

    def __init__(self, control: socket.socket) -> None:
        self._socket = control
        self._lock = threading.Lock()
        self._reader = control.makefile("rb")
        self._owner = os.getpid()

    def take(self) -> dict[str, Any] | None:
        """Return the next request, or None when the line is closed."""
        line = self._reader.readline()
        return json.loads(line) if line else None

    def say(self, **word: Any) -> None:
        """Say one word. An interrupt waits until it is whole."""
        # A process that the code forked must not speak for it.
        if os.getpid() != self._owner:
            return
        line = line_of(word).encode() + b"\n"
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with self._lock:
                self._socket.sendall(line)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Stream(io.TextIOBase):
    """What the code prints, sent as it comes."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, line: Line, name: str, number: int) -> None:
        super().__init__()
        self._line, self._name, self._number = line, name, number
        self._owner = os.getpid()
        self._held = ""
        self._lock = threading.RLock()
        self._keeper: threading.Thread | None = None
        self.buffer = _Bytes(self)

    def write(self, text: str) -> int:
        """Take text; whole lines are sent at once."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if os.getpid() != self._owner:
            os.write(self._number, text.encode("utf-8", "replace"))
            return len(text)
        with self._lock:
            self._held += text
            if self._held.endswith("\n") or len(self._held) > _HELD_CHARS:
                self.flush()
            elif self._keeper is None and self._held:
                # A line that is not finished is shown all the same, a little later.
                self._keeper = threading.Thread(target=self._keep_flushing, daemon=True)
                self._keeper.start()
        return len(text)

    def _keep_flushing(self) -> None:
        while True:
            time.sleep(_HELD_SEC)
            self.flush()

    def flush(self) -> None:
        """Send what is held."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            text, self._held = self._held, ""
        for start in range(0, len(text), _PIECE_CHARS):
            self._line.say(type=self._name, text=text[start : start + _PIECE_CHARS])

    def fileno(self) -> int:
        """Return the number of the pipe that child programs write to."""
        return self._number

    def isatty(self) -> bool:
        """Tell that this is no terminal."""
        return False

    def writable(self) -> bool:
        """Tell that it takes text."""
        return True


class _Bytes(io.RawIOBase):
    """`sys.stdout.buffer`."""

    def __init__(self, above: Stream) -> None:
        super().__init__()
        self._above = above

    def write(self, octets: Any) -> int:
        self._above.write(bytes(octets).decode("utf-8", "replace"))
        return len(octets)

    def writable(self) -> bool:
        return True

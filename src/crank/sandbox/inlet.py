"""What goes to the guest and its pipes have not taken yet: one order, answers to its calls, what its standard input brings."""

import contextlib
import os
import select
import socket
from collections.abc import Callable

_CHUNK = 64 * 1024
Entry = tuple[int, Callable[[int], None]]


class Inlet:
    """The supervisor's side of the guest's orders and standard input. Nothing here waits."""

    def __init__(self, request: socket.socket) -> None:
        request.setblocking(False)
        self._request = request
        self._order = bytearray()
        self._door: int | None = None
        self._stdin = bytearray()
        self._stdin_end = False
        self._stdin_to: int | None = None
        # Bytes of this run's standard input that its pipe has taken, or that nobody will read.
        self.passed_bytes = 0

    def send(self, order: bytes, *, stdin: bool) -> None:
        """Send an order; with `stdin`, the read end of a fresh pipe goes with it."""
        self._order += order
        self.passed_bytes = 0
        if stdin:
            self._door, self._stdin_to = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._stdin_to, False)
        self._on_request(self._request.fileno())

    def answer(self, frame: bytes) -> None:
        """Send the answer to a call of the guest's."""
        self._order += frame
        self._on_request(self._request.fileno())

    @property
    def backlog_bytes(self) -> int:
        """Return how much of what goes to the guest it has not taken."""
        return len(self._order)

    def feed(self, chunk: bytes) -> None:
        """Add to the standard input; nothing at all ends it."""
        if self._stdin_to is None:
            self.passed_bytes += len(chunk)
            return
        self._stdin += chunk
        self._stdin_end = self._stdin_end or not chunk
        self._close_when_done()

    def end(self) -> None:
        """Forget what was not taken: the run is over."""
        self._stdin.clear()
        self._stdin_end = True
        self._close_when_done()
        self._stdin_end = False
        if self._door is not None:
            os.close(self._door)
            self._door = None

    def handlers(self) -> dict[int, Entry]:
        """Return what to wait for, by descriptor."""
        waiting: dict[int, Entry] = {}
        if self._order:
            waiting[self._request.fileno()] = (select.POLLOUT, self._on_request)
        if self._stdin_to is not None and self._stdin:
            waiting[self._stdin_to] = (select.POLLOUT, self._on_stdin)
        return waiting

    def _on_request(self, _: int) -> None:
        try:
            if self._door is not None:
                sent = socket.send_fds(self._request, [self._order[:_CHUNK]], [self._door])
                os.close(self._door)
                self._door = None
            else:
                sent = self._request.send(self._order[:_CHUNK])
        except BlockingIOError:
            return
        except OSError:
            # The guest closed its end or is gone; how it ended is told elsewhere.
            self._order.clear()
            return
        del self._order[:sent]

    def _on_stdin(self, descriptor: int) -> None:
        try:
            sent = os.write(descriptor, self._stdin[:_CHUNK])
        except BlockingIOError:
            return
        except OSError:
            # Nobody reads it any more.
            self.passed_bytes += len(self._stdin)
            self._stdin.clear()
            self._stdin_end = True
        else:
            self.passed_bytes += sent
            del self._stdin[:sent]
        self._close_when_done()

    def _close_when_done(self) -> None:
        if self._stdin_to is not None and self._stdin_end and not self._stdin:
            with contextlib.suppress(OSError):
                os.close(self._stdin_to)
            self._stdin_to = None

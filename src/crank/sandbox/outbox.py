"""Frames for the runner that its socket has not taken yet, some with a descriptor."""

import os
import socket
from collections import deque

from crank.sandbox.frames import encode

_CHUNK = 64 * 1024


class Outbox:
    """A queue of bytes in order; a descriptor travels with the first byte of its frame."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._queue: deque[tuple[bytearray, int | None]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return self._bytes

    def put(self, kind: str, payload: bytes, descriptor: int | None = None) -> None:
        """Add a frame; the descriptor is closed once it was sent."""
        frame = bytearray(encode(kind, payload))
        self._bytes += len(frame)
        if descriptor is None and self._queue and self._queue[-1][1] is None:
            self._queue[-1][0].extend(frame)
        else:
            self._queue.append((frame, descriptor))

    def flush(self) -> None:
        """Send what the socket takes now. Raises OSError when the runner is gone."""
        while self._queue:
            frame, descriptor = self._queue[0]
            try:
                if descriptor is None:
                    sent = self._channel.send(frame[:_CHUNK])
                else:
                    sent = socket.send_fds(self._channel, [frame[:_CHUNK]], [descriptor])
                    os.close(descriptor)
            except BlockingIOError:
                return
            del frame[:sent]
            self._bytes -= sent
            if frame:
                self._queue[0] = (frame, None)
            else:
                self._queue.popleft()

"""The worker's end of one session's socket: receives in the event loop, hands each frame on."""

import asyncio
import os
import socket
from collections.abc import Callable

from crank.domain.profile import Limits
from crank.domain.quantity import KIB, MIB
from crank.sandbox.frames import Frame, FrameReader, encode

_CHUNK = 256 * KIB
_DOORS_MAX = 4


def _kinds(limits: Limits) -> dict[str, int]:
    """Return the frames that a supervisor may send, and their longest payloads."""
    rich = limits.result_bytes + 64 * KIB
    output = 64 * KIB + 64
    small = 256 * KIB
    return dict.fromkeys("OEoe", output) | dict.fromkeys("RFGZC", small) | {"D": rich, "V": 2 * rich, "Y": 8 * MIB}


class Channel:
    """Frames to and from one supervisor, and the descriptors that came with them, in order."""

    def __init__(self, limits: Limits, *, take: Callable[[Frame], None], lost: Callable[[], None]) -> None:
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        self._socket = ours
        self._reader = FrameReader(_kinds(limits))
        self._take = take
        self._lost = lost
        self._sending = asyncio.Lock()
        self.doors: list[int] = []
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(ours.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        try:
            chunk, doors, _, _ = socket.recv_fds(self._socket, _CHUNK, _DOORS_MAX, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            chunk, doors = b"", []
        self.doors += doors
        if not chunk:
            self._loop.remove_reader(self._socket.fileno())
            self._lost()
            return
        for frame in self._reader.feed(chunk):
            self._take(frame)

    async def send(self, kind: str, payload: bytes) -> None:
        """Send one frame, whole. Does nothing when the other side is gone; that is told by `lost`."""
        async with self._sending:
            try:
                await self._loop.sock_sendall(self._socket, encode(kind, payload))
            except OSError:
                return

    @property
    def is_open(self) -> bool:
        """Tell whether it was not closed yet."""
        return self._socket.fileno() >= 0

    @property
    def is_connected(self) -> bool:
        """Tell whether the other side still holds its end, without waiting for the event loop to notice."""
        if not self.is_open:
            return False
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Close everything; the supervisor reads it as the end of the session. Safe to call twice."""
        if self.is_open:
            self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self.theirs.close()
        while self.doors:
            os.close(self.doors.pop())

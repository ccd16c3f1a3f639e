"""The worker's end of one session's socket: receives in the event loop, hands each frame on."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

import structlog

from crank.domain.profile import Limits
from crank.domain.quantity import KIB, MIB
from crank.errors import ProtocolError
from crank.sandbox.calls import FORWARD_BYTES_MAX
from crank.sandbox.frames import Frame, FrameReader, encode

_log = structlog.get_logger(__name__)

_CHUNK = 256 * KIB
_DOORS_MAX = 4


def _told_nobody(*_: Frame) -> None:
    """Stand where somebody listened until the channel was closed."""


def _kinds(limits: Limits) -> dict[str, int]:
    """Return the frames that a supervisor may send, and their longest payloads."""
    rich = limits.result_bytes + 64 * KIB
    output = 64 * KIB + 64
    small = 256 * KIB
    sizes = dict.fromkeys("OEoe", output) | dict.fromkeys("RFGZC", small) | dict.fromkeys("AI", KIB)
    return sizes | {"D": rich, "V": 2 * rich, "Y": 8 * MIB, "Q": FORWARD_BYTES_MAX}


class Channel:
    """Frames to and from one supervisor, and the descriptors that came with them, in order."""

    def __init__(self, limits: Limits, *, take: Callable[[Frame], None], lost: Callable[[], None]) -> None:
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        self._socket = ours
        self._reader = FrameReader(_kinds(limits))
        self._take = take
        self._lost = lost
        self._waiting = bytearray()
        self._sent = asyncio.Event()
        self._sent.set()
        self.doors: list[int] = []
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(ours.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        try:
            chunk, doors, flags, _ = socket.recv_fds(self._socket, _CHUNK, _DOORS_MAX, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            chunk, doors, flags = b"", [], 0
        self.doors += doors
        for frame in self._frames(chunk, flags):
            self._take(frame)

    def _frames(self, chunk: bytes, flags: int) -> list[Frame]:
        try:
            if chunk and not flags & socket.MSG_CTRUNC:
                return self._reader.feed(chunk)
        except ProtocolError as fault:
            _log.error("sandbox.supervisor_unreadable", code=fault.error_code, cause=fault.message)
        # It is gone, or what it said cannot be told apart any more, or we had no room for a descriptor of its.
        self._loop.remove_reader(self._socket.fileno())
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._lost()
        return []

    async def send(self, kind: str, payload: bytes) -> None:
        """Send one frame, whole, whatever becomes of the caller: half a frame would make a riddle of all that follows.

        Does nothing when the other side is gone; that is told by `lost`.
        """
        self._waiting += encode(kind, payload)
        self._flush()
        await self._sent.wait()

    def _flush(self) -> None:
        try:
            while self._waiting:
                del self._waiting[: self._socket.send(self._waiting[:_CHUNK])]
        except BlockingIOError:
            self._sent.clear()
            self._loop.add_writer(self._socket.fileno(), self._flush)
            return
        except OSError:
            self._waiting.clear()
        if not self._sent.is_set():
            self._loop.remove_writer(self._socket.fileno())
            self._sent.set()

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
            self._loop.remove_writer(self._socket.fileno())
        # Whoever was told of frames holds us: without this, what a job said would lie here until the collector comes.
        self._take, self._lost = _told_nobody, _told_nobody
        self._waiting.clear()
        self._sent.set()
        self._socket.close()
        self.theirs.close()
        while self.doors:
            os.close(self.doors.pop())

"""Frames: how the parts of the sandbox talk. A kind, a length, a payload, and nothing else.

Standard library only. The reader never allocates for a length that it has not checked, because the
other side of some of these pipes runs a stranger's code.
"""

import struct
from dataclasses import dataclass

from crank.errors import ProtocolError

_HEADER = struct.Struct("!BI")
HEADER_BYTES = _HEADER.size


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: `kind` is one letter."""

    kind: str
    payload: bytes


def encode(kind: str, payload: bytes) -> bytes:
    """Return the bytes of one frame."""
    return _HEADER.pack(ord(kind), len(payload)) + payload


class FrameReader:
    """Cuts a stream of bytes into frames, holding at most one unfinished frame.

    kinds      the closed list of kinds, each with the longest payload it may have, in bytes
    prefix     bytes that must stand before every frame: a proof that the writer was told the secret
    """

    def __init__(self, kinds: dict[str, int], *, prefix: bytes = b"") -> None:
        self._kinds = kinds
        self._prefix = prefix
        self._buffer = bytearray()

    @property
    def pending(self) -> bool:
        """Tell whether a part of a frame has arrived and its rest has not."""
        return bool(self._buffer)

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take bytes, return the frames that are complete. Raises ProtocolError at the first wrong byte."""
        self._buffer += chunk
        frames: list[Frame] = []
        while True:
            frame = self._cut()
            if frame is None:
                return frames
            frames.append(frame)

    def _cut(self) -> Frame | None:
        start = len(self._prefix)
        if self._buffer[:start] != self._prefix[: len(self._buffer)]:
            raise ProtocolError("A frame does not begin as agreed.", code="frame_prefix")
        if len(self._buffer) < start + HEADER_BYTES:
            return None
        number, length = _HEADER.unpack_from(self._buffer, start)
        kind = chr(number)
        if kind not in self._kinds:
            raise ProtocolError(f"A frame has the unknown kind {number}.", code="frame_kind")
        if length > self._kinds[kind]:
            raise ProtocolError(f"A frame of kind {kind} claims {length} bytes.", code="frame_length")
        end = start + HEADER_BYTES + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[start + HEADER_BYTES : end])
        del self._buffer[:end]
        return Frame(kind, payload)

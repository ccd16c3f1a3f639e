"""What is kept of an output stream: its head, a marker, its tail, and an exact count of all of it.

The cut is made here, next to the pipe, so that a flood costs its reader no memory further on.
"""

import codecs
from dataclasses import dataclass, field

from crank.domain.outcome import Stream
from crank.domain.quantity import KIB

_TAIL_BYTES_MAX = 64 * KIB


def tail_bytes(keep_bytes: int) -> int:
    """Return how much of what is kept is kept of the end: a quarter, at most 64 KiB."""
    return min(keep_bytes // 4, _TAIL_BYTES_MAX)


@dataclass(slots=True)
class StreamLedger:
    """Counts one stream. Passes on its first `keep_bytes` and remembers its last few."""

    keep_bytes: int
    seen_bytes: int = 0
    _tail: bytearray = field(default_factory=bytearray)

    def take(self, chunk: bytes) -> bytes:
        """Count a chunk and return the part of it that is passed on."""
        room = max(0, self.keep_bytes - self.seen_bytes)
        self.seen_bytes += len(chunk)
        keep = tail_bytes(self.keep_bytes)
        if keep:
            self._tail += chunk[-keep:]
            del self._tail[:-keep]
        return chunk[:room]

    @property
    def tail(self) -> bytes:
        """Return the last bytes, if any were not passed on."""
        return bytes(self._tail) if self.seen_bytes > self.keep_bytes else b""


@dataclass(slots=True)
class StreamText:
    """The receiving side: makes text of what was passed on, live and at the end."""

    keep_bytes: int
    _kept: bytearray = field(default_factory=bytearray)
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace")
    )
    _undecoded_from: int = 0

    def feed(self, chunk: bytes) -> tuple[str, int]:
        """Take the next bytes; return the text that is complete and where its first byte stood."""
        chunk = chunk[: max(0, self.keep_bytes - len(self._kept))]
        start = self._undecoded_from
        self._kept += chunk
        text = self._decoder.decode(chunk)
        waiting = len(self._decoder.getstate()[0])
        self._undecoded_from = len(self._kept) - waiting
        return text, start

    def rest(self) -> tuple[str, int]:
        """Return what an unfinished character left, as its replacement."""
        start, self._undecoded_from = self._undecoded_from, len(self._kept)
        return self._decoder.decode(b"", final=True), start

    def finish(self, seen_bytes: int, tail: bytes) -> Stream:
        """Return what was kept. `tail` is empty when nothing was cut."""
        seen_bytes = max(seen_bytes, len(self._kept))
        if seen_bytes <= len(self._kept):
            return Stream(self._kept.decode("utf-8", "replace"), seen_bytes, len(self._kept))
        tail = tail[-tail_bytes(self.keep_bytes) :] if tail_bytes(self.keep_bytes) else b""
        head = bytes(self._kept[: max(0, min(self.keep_bytes, seen_bytes) - len(tail))])
        cut = seen_bytes - len(head) - len(tail)
        text = head.decode("utf-8", "replace") + f"\n[... {cut} bytes cut ...]\n" + _from_character(tail)
        return Stream(text, seen_bytes, len(head) + len(tail))


def _from_character(tail: bytes) -> str:
    """Decode bytes that may begin inside a character."""
    start = next((place for place, byte in enumerate(tail[:4]) if byte & 0xC0 != 0x80), 0)
    return tail[start:].decode("utf-8", "replace")

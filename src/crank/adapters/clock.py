"""The machine's clocks and its source of chance, behind the ports so that tests can replace both."""

import secrets
import threading
import time
from collections.abc import Callable

# A clock before the year this was written is wrong, and every certificate would be invalid.
EARLIEST_US = 1_767_225_600_000_000
# RFC 9562, section 5.7: 48 bits of Unix milliseconds, then 74 bits that this source counts up.
_TAIL_BITS = 74
_TAIL_MASK = (1 << _TAIL_BITS) - 1
_RAND_B_BITS = 62
_RAND_B_MASK = (1 << _RAND_B_BITS) - 1
_STEP_BITS = 32
_JITTER_BITS = 53


class SystemClock:
    """The operating system's clocks."""

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch, UTC. May jump."""
        return time.time_ns() // 1_000

    def monotonic_sec(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()


class SystemIdSource:
    """Identifiers and secrets from the operating system's random source; safe to share between threads."""

    def __init__(self, *, now_us: Callable[[], int] | None = None) -> None:
        self._now_us = now_us or SystemClock().now_us
        self._lock = threading.Lock()
        self._last_ms = -1
        self._tail = 0

    def uuid7(self) -> str:
        """Return a UUID version 7, greater than every one before, also when the clock stands or goes back.

        RFC 9562, section 6.2, method 2: within a millisecond the random tail is counted up by a
        random step, so that ids stay in order and still cannot be guessed.
        """
        with self._lock:
            now_ms = self._now_us() // 1_000
            if now_ms > self._last_ms:
                self._last_ms = now_ms
                # The top bit starts clear, which leaves room to count.
                self._tail = secrets.randbits(_TAIL_BITS - 1)
            else:
                self._tail += 1 + secrets.randbits(_STEP_BITS)
                if self._tail > _TAIL_MASK:
                    self._last_ms += 1
                    self._tail = secrets.randbits(_TAIL_BITS - 1)
            return _format(self._last_ms, self._tail)

    def secret(self) -> str:
        """Return 256 random bits as unpadded base64url."""
        return secrets.token_urlsafe(32)

    def jitter(self) -> float:
        """Return a random number from 0 (included) to 1 (excluded)."""
        return secrets.randbits(_JITTER_BITS) / (1 << _JITTER_BITS)


def _format(unix_ms: int, tail: int) -> str:
    number = (unix_ms & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76
    number |= (tail >> _RAND_B_BITS) << 64 | 0b10 << 62 | (tail & _RAND_B_MASK)
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

"""Time, identity and chance, passed in so that a test can hold them in its hand."""

from typing import Protocol


class Clock(Protocol):
    """Two clocks: one that people read and one that only moves forward."""

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch, UTC. May jump; never use it for a deadline."""
        ...

    def monotonic_sec(self) -> float:
        """Return seconds that never go back, for deadlines and durations."""
        ...


class IdSource(Protocol):
    """Makes identifiers and secrets."""

    def uuid7(self) -> str:
        """Return a new UUID version 7 (RFC 9562), greater than every one this source made before."""
        ...

    def secret(self) -> str:
        """Return 256 random bits as unpadded base64url."""
        ...

    def jitter(self) -> float:
        """Return a random number from 0 (included) to 1 (excluded)."""
        ...


class Failpoints(Protocol):
    """Named moments. Free in production; tests wait for one, or end the process at one."""

    def reach(self, name: str) -> None:
        """Say that the program stands at the named moment."""
        ...

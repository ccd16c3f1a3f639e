"""Time, ids and moments that a test holds in its hand."""

import asyncio
import threading
from collections.abc import Sequence

_SECOND_US = 1_000_000


class FakeClock:
    """Stands still until a test moves it. Safe between threads."""

    def __init__(self, *, now_us: int = 1_700_000_000 * _SECOND_US, monotonic_sec: float = 1_000.0) -> None:
        self._now_us = now_us
        self._monotonic_sec = monotonic_sec
        self._lock = threading.Lock()

    def now_us(self) -> int:
        """Return the time that people read, in microseconds."""
        with self._lock:
            return self._now_us

    def monotonic_sec(self) -> float:
        """Return the time for deadlines, in seconds."""
        with self._lock:
            return self._monotonic_sec

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks. Raises ValueError for a step back."""
        if seconds < 0:
            raise ValueError("Time for deadlines never goes back; use jump_wall.")
        with self._lock:
            self._now_us += round(seconds * _SECOND_US)
            self._monotonic_sec += seconds

    def jump_wall(self, seconds: float) -> None:
        """Set the clock that people read forward or back, as an operator or NTP does."""
        with self._lock:
            self._now_us += round(seconds * _SECOND_US)


class FakeIdSource:
    """The same identifiers in every run, still of the right form and in order."""

    def __init__(self, *, jitters: Sequence[float] = (0.5,)) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._jitters = tuple(jitters)
        self._jittered = 0

    def _next(self) -> int:
        with self._lock:
            self._count += 1
            return self._count

    def uuid7(self) -> str:
        """Return the next of 00000000-0000-7000-8000-000000000001, …2, …3."""
        return f"00000000-0000-7000-8000-{self._next():012x}"

    def secret(self) -> str:
        """Return a text of the length of a real secret."""
        return f"not-a-secret-{self._next():030d}"

    def jitter(self) -> float:
        """Return the given numbers in turn."""
        with self._lock:
            value = self._jitters[self._jittered % len(self._jitters)]
            self._jittered += 1
            return value


class FakeFailpoints:
    """Lets a test wait until a moment is reached, hold the program there, or raise a fault there."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._counts: dict[str, int] = {}
        self._held: set[str] = set()
        self._faults: dict[str, list[Exception]] = {}

    def reach(self, name: str) -> None:
        """Count the moment; wait when it is held, raise when a fault waits there."""
        with self._changed:
            self._counts[name] = self._counts.get(name, 0) + 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: name not in self._held)
            waiting = self._faults.get(name)
            fault = waiting.pop(0) if waiting else None
        if fault is not None:
            raise fault

    def count(self, name: str) -> int:
        """Return how often the moment was reached."""
        with self._changed:
            return self._counts.get(name, 0)

    def raise_at(self, name: str, *faults: Exception) -> None:
        """Raise these faults, one each time the moment is reached."""
        with self._changed:
            self._faults.setdefault(name, []).extend(faults)

    def hold(self, name: str) -> None:
        """Stop every thread that reaches the moment until `release`. Never for code in an event loop."""
        with self._changed:
            self._held.add(name)

    def release(self, name: str) -> None:
        """Let the threads that stand at the moment go on."""
        with self._changed:
            self._held.discard(name)
            self._changed.notify_all()

    def wait_for(self, name: str, *, times: int = 1, timeout_sec: float = 10.0) -> None:
        """Wait until the moment was reached that often. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._counts.get(name, 0) >= times, timeout_sec):
                raise TimeoutError(f"{name} was reached {self._counts.get(name, 0)} of {times} times")

    async def reached(self, name: str, *, times: int = 1, timeout_sec: float = 10.0) -> None:
        """Wait as `wait_for` does, without holding up the event loop."""
        await asyncio.to_thread(self.wait_for, name, times=times, timeout_sec=timeout_sec)

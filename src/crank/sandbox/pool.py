"""The pool: sandboxes that stand ready, each for one job, so that a job waits for none.

A refill is never on a job's way. How many are kept follows demand, between one and a bound on count and
memory; what was not asked for in a while is let go. A sandbox that died while it waited is counted, and
nobody gets it.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

import structlog

from crank.errors import CrankError

_log = structlog.get_logger(__name__)

_FIRST = 2
_AFTER_SEC = 0.01
_PAUSE_MAX_SEC = 30.0
_IDLE_SEC = 120.0


def pause_sec(failures: int) -> float:
    """Return how long to wait after so many failures in a row, in seconds: twice as long each time, up to a bound."""
    return float(min(_PAUSE_MAX_SEC, 0.2 * 2 ** min(failures, 10)))


class Parked(Protocol):
    """What the pool keeps."""

    @property
    def alive(self) -> bool:
        """Tell whether it can still be used."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Return what it takes while it waits."""
        ...

    async def close(self) -> None:
        """Let it go."""
        ...


P = TypeVar("P", bound=Parked)


@dataclass(slots=True)
class Counts:
    """What the pool did since it was made, and what it holds now."""

    hits: int = 0
    misses: int = 0
    burnt: int = 0
    parked: int = 0


@dataclass(slots=True)
class _Shelf(Generic[P]):
    """Sandboxes of one kind.

    wanted    how many to keep ready
    failures  how often in a row none could be made
    burnt     how many died while they waited, or left something behind
    """

    make: Callable[[], Awaitable[P]]
    wanted: int = _FIRST
    failures: int = 0
    burnt: int = 0
    used_at: float = 0.0
    ready: deque[P] = field(default_factory=deque)
    full: asyncio.Event = field(default_factory=asyncio.Event)
    refilling: asyncio.Task[None] | None = None


class Pool(Generic[P]):
    """Keeps shelves of ready sandboxes.

    most          most that are kept of one kind
    memory_bytes  what all together may take while they wait
    now_sec       a clock that only moves forward
    """

    def __init__(self, *, most: int, memory_bytes: int, now_sec: Callable[[], float]) -> None:
        self._most = max(1, most)
        self._memory_bytes = memory_bytes
        self._now_sec = now_sec
        self._shelves: dict[Hashable, _Shelf[P]] = {}
        self._counts = Counts()
        self._refills = asyncio.Semaphore(2)
        self._stopped = False

    def take(self, kind: Hashable, make: Callable[[], Awaitable[P]]) -> P | None:
        """Return a ready sandbox, or None: then the caller makes its own, and next time there are more."""
        shelf = self._shelf(kind, make)
        shelf.used_at = self._now_sec()
        found = None
        while shelf.ready and found is None:
            candidate = shelf.ready.popleft()
            if candidate.alive:
                found = candidate
            else:
                shelf.burnt += 1
                self._burn(candidate)
        if found is None:
            self._counts.misses += 1
            shelf.wanted = min(self._most, shelf.wanted * 2)
        else:
            self._counts.hits += 1
        self._refill(shelf)
        return found

    def warm(self, kind: Hashable, make: Callable[[], Awaitable[P]]) -> None:
        """Begin to keep sandboxes of a kind that nobody asked for yet."""
        self._refill(self._shelf(kind, make))

    async def settled(self, kind: Hashable) -> None:
        """Wait until as many as wanted stand ready."""
        await self._shelves[kind].full.wait()

    def count_burnt(self, kind: Hashable) -> None:
        """Count a sandbox of which something was left, or may be."""
        self._counts.burnt += 1
        if kind in self._shelves:
            self._shelves[kind].burnt += 1

    @property
    def counts(self) -> Counts:
        """Return the counters and what stands ready now."""
        return replace(self._counts, parked=sum(len(shelf.ready) for shelf in self._shelves.values()))

    def held(self, kind: Hashable) -> tuple[int, int]:
        """Return how many of a kind stand ready, and how many were burnt."""
        shelf = self._shelves.get(kind)
        return (0, 0) if shelf is None else (len(shelf.ready), shelf.burnt)

    async def stop(self) -> None:
        """Let everything go. Safe to call twice."""
        self._stopped = True
        for shelf in self._shelves.values():
            if shelf.refilling is not None:
                shelf.refilling.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await shelf.refilling
            while shelf.ready:
                await shelf.ready.popleft().close()

    def _shelf(self, kind: Hashable, make: Callable[[], Awaitable[P]]) -> _Shelf[P]:
        if kind not in self._shelves:
            self._shelves[kind] = _Shelf(make, used_at=self._now_sec())
        return self._shelves[kind]

    def _burn(self, parked: P) -> None:
        self._counts.burnt += 1
        _log.warning("sandbox.parked_died")
        closing = asyncio.ensure_future(parked.close())
        closing.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _refill(self, shelf: _Shelf[P]) -> None:
        if self._stopped or (shelf.refilling is not None and not shelf.refilling.done()):
            return
        if len(shelf.ready) < shelf.wanted:
            shelf.full.clear()
            shelf.refilling = asyncio.create_task(self._fill(shelf), name="refill")

    async def _fill(self, shelf: _Shelf[P]) -> None:
        if shelf.ready:
            # The one that was just taken has a job to answer; making another now would take its processor.
            await asyncio.sleep(_AFTER_SEC)
        while len(shelf.ready) < shelf.wanted and self._has_room(shelf):
            try:
                async with self._refills:
                    made = await shelf.make()
            except (CrankError, OSError) as fault:
                shelf.failures += 1
                _log.warning("sandbox.not_parked", code=getattr(fault, "error_code", None), cause=str(fault))
                await asyncio.sleep(pause_sec(shelf.failures))
                continue
            shelf.failures = 0
            shelf.ready.append(made)
        shelf.full.set()

    def _has_room(self, shelf: _Shelf[P]) -> bool:
        """Tell whether one more fits. One of each kind always does: without it every job would wait."""
        if not shelf.ready:
            return True
        parked = [each.memory_bytes for other in self._shelves.values() for each in other.ready]
        return sum(parked) + shelf.ready[-1].memory_bytes <= self._memory_bytes

    async def let_go(self) -> None:
        """Shrink what was not asked for in a while to one. Called now and then."""
        for shelf in self._shelves.values():
            if self._now_sec() - shelf.used_at < _IDLE_SEC:
                continue
            shelf.wanted = 1
            while len(shelf.ready) > shelf.wanted:
                await shelf.ready.pop().close()

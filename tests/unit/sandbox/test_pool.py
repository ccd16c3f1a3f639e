"""The pool: what stands ready is handed out once, the dead are burnt and counted, and demand sets the number."""

import asyncio

import pytest

from crank.errors import SandboxError
from crank.sandbox.pool import Pool, pause_sec


class Parked:
    """Something that waits, of a size."""

    def __init__(self, memory_bytes: int = 1) -> None:
        self.alive = True
        self.closed = False
        self.memory_bytes = memory_bytes

    async def close(self) -> None:
        """Note that it was let go."""
        self.closed = True


class Maker:
    """Makes them, as large as it is told, and fails where it is told to."""

    def __init__(self, memory_bytes: int = 1, *, failures: int = 0, fault: Exception | None = None) -> None:
        self.made: list[Parked] = []
        self._fault = fault or SandboxError("not now", code="slots_full")
        self._memory_bytes = memory_bytes
        self._failures = failures

    async def __call__(self) -> Parked:
        """Make one."""
        if self._failures:
            self._failures -= 1
            raise self._fault
        self.made.append(Parked(self._memory_bytes))
        return self.made[-1]


class Clock:
    """A clock that a test moves."""

    now_sec = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_sec


def pool(*, most: int = 4, memory_bytes: int = 1_000, clock: Clock | None = None) -> Pool[Parked]:
    """Return an empty pool."""
    return Pool(most=most, memory_bytes=memory_bytes, now_sec=clock or Clock())


async def test_each_is_handed_out_once() -> None:
    """The first asker waits for its own; then ready ones are given, no one of them twice."""
    kept, make = pool(), Maker()
    assert kept.take("core", make) is None
    await kept.settled("core")
    taken = [kept.take("core", make), kept.take("core", make)]
    assert None not in taken
    assert taken[0] is not taken[1]
    assert (kept.counts.hits, kept.counts.misses) == (2, 1)
    await kept.stop()
    assert not any(each.closed for each in taken if each)
    assert all(each.closed for each in make.made if each not in taken)


async def test_kinds_do_not_mix() -> None:
    """A sandbox of one kind is never given for another, and each kind is counted alone."""
    kept, core, docs = pool(), Maker(), Maker()
    kept.warm("core", core)
    kept.warm("docs", docs)
    await asyncio.gather(kept.settled("core"), kept.settled("docs"))
    assert kept.take("core", core) in core.made
    assert kept.take("docs", docs) in docs.made
    assert (kept.held("core"), kept.held("nothing")) == ((1, 0), (0, 0))
    await kept.stop()


async def test_the_dead_are_burnt_and_nobody_gets_them() -> None:
    """One that died while it waited is passed over, closed, and counted for its kind."""
    kept, make = pool(), Maker()
    kept.warm("core", make)
    await kept.settled("core")
    make.made[0].alive = False
    assert kept.take("core", make) is make.made[1]
    assert (kept.counts.burnt, kept.held("core")[1]) == (1, 1)
    await kept.stop()
    assert make.made[0].closed


async def test_a_miss_makes_more_be_kept_up_to_the_bound() -> None:
    """Demand doubles what is kept, never beyond the most."""
    kept, make = pool(most=5), Maker()
    for _ in range(6):
        while kept.take("core", make) is not None:
            pass
        await kept.settled("core")
    assert kept.held("core")[0] == 5
    await kept.stop()


async def test_memory_bounds_all_kinds_together_and_leaves_one_of_each() -> None:
    """What waits stays below the bound, except that each kind keeps one: without it every job would wait."""
    kept, small, large = pool(memory_bytes=100), Maker(60), Maker(90)
    kept.warm("small", small)
    kept.warm("large", large)
    await asyncio.gather(kept.settled("small"), kept.settled("large"))
    assert (kept.held("small")[0], kept.held("large")[0]) == (1, 1)
    await kept.stop()


async def test_what_nobody_asks_for_is_let_go() -> None:
    """After a while without demand one stays ready."""
    clock = Clock()
    kept, make = pool(clock=clock), Maker()
    kept.warm("core", make)
    await kept.settled("core")
    await kept.let_go()
    assert kept.held("core")[0] == 2
    clock.now_sec = 1_000.0
    await kept.let_go()
    assert kept.held("core")[0] == 1
    assert sum(each.closed for each in make.made) == 1
    await kept.stop()


@pytest.mark.parametrize("fault", [SandboxError("not now", code="slots_full"), OSError(24, "Too many open files")])
async def test_a_failure_is_tried_again(fault: Exception) -> None:
    """When one cannot be made, whoever refused it, the pool pauses and goes on."""
    kept, make = pool(), Maker(failures=1, fault=fault)
    kept.warm("core", make)
    await asyncio.wait_for(kept.settled("core"), 10)
    assert kept.held("core")[0] == 2
    await kept.stop()


def test_pauses_grow_and_are_bounded() -> None:
    """What fails again and again is tried ever more rarely, and for ever."""
    pauses = [pause_sec(failures) for failures in range(1, 9)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1.0
    assert pause_sec(8) == pause_sec(100_000) == 30.0


async def test_a_stop_while_one_is_made_leaves_nothing() -> None:
    """A refill that is under way is cancelled, and waited for, before the pool says that it has stopped."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def slow() -> Parked:
        begun.set()
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    kept = pool()
    kept.warm("core", slow)
    await begun.wait()
    await kept.stop()
    assert ended.is_set()
    assert kept.counts.parked == 0


async def test_demand_while_a_refill_runs_is_served_later() -> None:
    """Askers that come while one is made each miss, and the pool is full when it comes to rest."""
    kept, make = pool(most=4), Maker()
    assert [kept.take("core", make) for _ in range(3)] == [None] * 3
    assert kept.counts.misses == 3
    await kept.settled("core")
    assert kept.held("core")[0] == 4
    await kept.stop()


async def test_nothing_is_kept_after_the_stop() -> None:
    """A stopped pool makes nothing more; stopping twice is harmless."""
    kept, make = pool(), Maker()
    kept.warm("core", make)
    await kept.settled("core")
    await kept.stop()
    await kept.stop()
    assert kept.take("core", make) is None
    assert all(each.closed for each in make.made)
    assert kept.counts.parked == 0

"""Runs hostile cases against a runner and says what was wrong, judged by all six rules.

Used in the tests' own process, and as a program by an ordinary user: `python -m tests.attacks.arena ROOTFS`
prints one JSON line for each case. It needs the standard library, structlog and Crank alone.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from crank.domain.ids import Digest
from crank.domain.outcome import NEVER_BEGAN, Outcome, Reason
from crank.domain.profile import Limits
from crank.errors import SandboxError
from crank.ports import ProfileBuild, SandboxSession, SandboxSpec
from crank.sandbox.link import LauncherLink, launch
from crank.sandbox.runner import NamespaceRunner
from tests.attacks import judge
from tests.attacks.canary import Canary, canaries
from tests.attacks.case import Case, Pair
from tests.attacks.cases import ON_RUNNER
from tests.attacks.pairs import PAIRS
from tests.attacks.traces import Traces, memory_bytes, traces
from tests.support.rootfs import make_build, make_rootfs

_COLLECT_SEC = 10.0
_SETTLE_SEC = 5.0
_READY_SEC = 20.0
_WARM = 12
_LOOK_SEC, _QUIET_LOOKS = 0.05, 6
_SETTLED_SEC = 30.0


class Quiet:
    """Takes output and drops it, and says when some has come."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()

    def output(self, stream: str, text: str, offset_bytes: int, at_sec: float) -> None:
        """Drop it."""
        self.arrived.set()

    def progress(self, fraction: float | None, message: str) -> None:
        """Drop it."""


def _count(source: BinaryIO) -> Digest:
    while source.read(1 << 20):
        pass
    return Digest("0" * 64)


@dataclass(frozen=True, slots=True)
class Arena:
    """A runner with its launcher, a root to run in, a canary on the host, and what the host shows at rest."""

    runner: NamespaceRunner
    link: LauncherLink
    rootfs: Path
    canary: Canary
    full: list[Traces] = field(default_factory=list)
    following: Case = judge.NEXT

    def traces(self) -> Traces:
        """Look at the host."""
        return traces(os.getpid(), self.link.process.pid)

    async def before(self) -> Traces:
        """Return what the host shows when the pool is full and nothing runs: no case may leave more."""
        if not self.full:
            await self.warm()
        return self.full[0]

    async def warm(self, count: int = _WARM) -> None:
        """Run so many jobs at once that the pool holds as many as it ever will, and wait until it does."""
        for case in (self.following, replace(self.following, programs=True)):
            for _ in range(2):
                await asyncio.gather(*(self.run(case) for _ in range(count)))
        for case in (self.following, replace(self.following, programs=True)):
            # A refill that stands still for long is no rest; some runners here keep no pool.
            with contextlib.suppress(TimeoutError, KeyError):
                await asyncio.wait_for(self.runner.settled(self.build(case)), _SETTLED_SEC)
        before, quiet = self.traces(), 0
        while quiet < _QUIET_LOOKS:
            await asyncio.sleep(_LOOK_SEC)
            now = self.traces()
            before, quiet = now, quiet + 1 if now == before else 0
        self.full[:] = [before]

    def build(self, case: Case) -> ProfileBuild:
        """Return the profile that a case runs in."""
        return bare_build(self.rootfs, programs=case.programs)

    async def open(self, case: Case) -> SandboxSession:
        """Open a session with the limits of a case."""
        limits = replace(Limits(wall_sec=judge.WALL_SEC), **case.limits)  # type: ignore[arg-type]
        return await self.runner.open(SandboxSpec(self.build(case), limits))

    async def run(self, case: Case, sink: Quiet | None = None) -> tuple[Outcome, float]:
        """Run one case and collect its files; return the outcome and how long collecting took."""
        while True:
            session = await self.open(case)
            try:
                outcome = await session.run_python(case.code, {"host": self.canary.facts}, sink or Quiet())
                began = time.monotonic()
                outcome = await asyncio.to_thread(session.collect, _count, outcome)
                return outcome, time.monotonic() - began
            except SandboxError as fault:
                # It died before the first line: as a worker does, ask for another.
                if fault.error_code != NEVER_BEGAN:
                    raise
            finally:
                await session.close()

    async def _judged(self, case: Case) -> list[str]:
        outcome, collect_sec = await self.run(case)
        seen = judge.seen_outcome(outcome)
        wrong = judge.wrongs(case, seen) + self.canary.wrongs(seen.everything)
        if collect_sec > _COLLECT_SEC:
            wrong.append(f"collecting took {collect_sec:.1f} s")
        return wrong

    async def wrongs(self, case: Case) -> list[str]:
        """Run one case with a neighbour beside it and a job after it; return everything that was wrong."""
        before, memory = await self.before(), memory_bytes(os.getpid())
        wrong, neighbour = await asyncio.gather(self._judged(case), self._judged(judge.VICTIM))
        wrong += [f"the neighbour: {what}" for what in neighbour]
        wrong += [f"the next job: {what}" for what in await self._judged(self.following)]
        return wrong + await self._changed(before, memory)

    async def pair_wrongs(self, pair: Pair) -> list[str]:
        """Run two jobs, one after or beside the other; return everything that was wrong."""
        before, memory = await self.before(), memory_bytes(os.getpid())
        if pair.differ:
            (first, _), (second, _) = await self.run(pair.first), await self.run(pair.second)
            wrong = differences(pair, first.result, second.result)
        elif pair.together:
            wrong = await self._together(pair)
        else:
            wrong = [f"the first: {what}" for what in await self._judged(pair.first)]
            wrong += [f"the second: {what}" for what in await self._judged(pair.second)]
        return wrong + await self._changed(before, memory)

    async def _together(self, pair: Pair) -> list[str]:
        session, sink = await self.open(pair.first), Quiet()
        try:
            holding = asyncio.ensure_future(session.run_python(pair.first.code, {"host": self.canary.facts}, sink))
            await asyncio.wait_for(sink.arrived.wait(), _READY_SEC)
            wrong = [f"the second: {what}" for what in await self._judged(pair.second)]
            await session.stop(Reason.CANCELLED)
            ended = await holding
            if ended.end.reason is not Reason.CANCELLED:
                wrong.append(f"the first: it ended as {ended.end}, stderr {ended.stderr.text[-500:]!r}")
            return wrong
        finally:
            await session.close()

    async def _changed(self, before: Traces, memory: int) -> list[str]:
        """Return what is different on the host, after giving it time to settle."""
        wrong = []
        if memory_bytes(os.getpid()) > memory + judge.GROWTH_BYTES:
            wrong.append("the worker's own memory grew")
        deadline = time.monotonic() + _SETTLE_SEC
        while (after := self.traces()).has_more_than(before):
            if time.monotonic() > deadline:
                return [*wrong, f"left behind: {after} instead of {before}"]
            await asyncio.sleep(0.01)
        return wrong


def arena_root(place: Path) -> Path:
    """Make a bare root with one program that jobs may start where the profile lists it: Python itself."""
    make_rootfs(place)
    (place / "usr/bin/python").symlink_to("/opt/python/bin/python3.11")
    return place


def bare_build(rootfs: Path, *, programs: bool) -> ProfileBuild:
    """Describe a bare root as a profile: one that starts nothing at all, or one that may fork and start Python."""
    build = make_build(rootfs, programs=("python",) if programs else ())
    return replace(build, profile=replace(build.profile, processes=programs))


def differences(pair: Pair, first: Any, second: Any) -> list[str]:
    """Return what two results have in common that should differ. Both are lists of [name, value]."""
    if not first or not second:
        return [f"no result: {first!r} and {second!r}"]
    same = [name for (name, one), (_, other) in zip(first, second, strict=True) if one == other]
    return [f"the same in both: {same}"] if same else []


async def _main(rootfs: Path) -> None:
    link = launch()
    try:
        runner = NamespaceRunner(link)
        await runner.start()
        with canaries(1) as (canary,):
            arena = Arena(runner, link, rootfs, canary)
            await arena.warm()
            for case in ON_RUNNER:
                print(json.dumps({"name": case.name, "wrongs": await arena.wrongs(case)}), flush=True)
            for pair in PAIRS:
                print(json.dumps({"name": pair.name, "wrongs": await arena.pair_wrongs(pair)}), flush=True)
        await runner.stop()
    finally:
        link.close()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))

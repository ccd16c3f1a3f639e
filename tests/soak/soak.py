"""Thousands of mixed jobs, half of them hostile, several at once; then everything is counted again.

A program of its own, so that what it counts is its own: `python -m tests.soak.soak ROOTFS --jobs N --report FILE`.
It needs the standard library and Crank's sandbox alone, so an ordinary user can run it from a copy.
"""

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from pathlib import Path
from threading import Barrier
from typing import Any, BinaryIO

from crank.domain.ids import Digest
from crank.domain.outcome import Outcome, Reason
from crank.domain.profile import Limits
from crank.ports import ProfileBuild, SandboxSpec
from crank.sandbox.link import LauncherLink, launch
from crank.sandbox.runner import NamespaceRunner
from tests.attacks import judge
from tests.attacks.arena import bare_build
from tests.attacks.canary import Canary, canaries
from tests.attacks.case import ANY, Case
from tests.attacks.cases import ON_RUNNER
from tests.soak.honest import MARK, Honest, honest
from tests.soak.sleeper import Sleeper, sleeper
from tests.soak.stock import LATE_GROWTH_BYTES, Stock, take_stock

SEED = 20_261_123
IN_FLIGHT = 4
# A hostile job that holds on to its time is cut here: the soak is about what is left, not about patience.
HOSTILE_SEC = 3.0
# Where no control group holds jobs, processors are shared out by session, and a bomb may be sixty of them: what its
# supervisor does next to a deadline is done in turns that long. The documents say so.
UNCOUNTED_SEC = 0.75
_WARM_UP = 24
_SETTLE_SEC = 20.0
_FULL_SEC = 60.0
_PATIENCE_SEC = 120.0
_WRONGS_MAX = 50


class Quiet:
    """Takes output and drops it."""

    def output(self, stream: str, text: str, offset_bytes: int, at_sec: float) -> None:
        """Drop it."""

    def progress(self, fraction: float | None, message: str) -> None:
        """Drop it."""


@dataclass(slots=True)
class Told:
    """What the run came to so far."""

    jobs: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    wrongs: list[str] = field(default_factory=list)
    wrongs_count: int = 0

    def add(self, kind: str, outcome: Outcome, wrongs: list[str]) -> None:
        """Count one job."""
        self.jobs["honest" if kind.startswith("honest") else "hostile"] += 1
        self.ends[outcome.end.reason.value] += 1
        self.complain(f"{kind}: {'; '.join(wrongs)}" if wrongs else None)

    def complain(self, wrong: str | None) -> None:
        """Keep what was wrong, not without bound."""
        if wrong is not None:
            self.wrongs_count += 1
            if len(self.wrongs) < _WRONGS_MAX:
                self.wrongs.append(wrong[:1500])


def _swallow(source: BinaryIO) -> Digest:
    while source.read(1 << 20):
        pass
    return Digest("0" * 64)


def draw(number: int) -> Case | Honest:
    """Return the job of a number: every second one is hostile, each case comes once before one comes twice."""
    if number % 2:
        return honest(number)
    turn, place = divmod(number // 2, len(ON_RUNNER))
    order = list(ON_RUNNER)
    random.Random(SEED + turn).shuffle(order)
    return order[place]


def softened(case: Case) -> Case:
    """Return a case that is cut early, and may end so where it would have ended later."""
    wall_sec = min(dict(case.limits).get("wall_sec", judge.WALL_SEC), HOSTILE_SEC)
    is_future = case.code.lstrip().startswith(("from __future__", '"""'))
    return replace(
        case,
        code=case.code if is_future else MARK + case.code,
        limits={**case.limits, "wall_sec": wall_sec},
        reasons=(*case.reasons, "timeout"),
    )


@dataclass(frozen=True, slots=True)
class Ground:
    """What jobs run in."""

    runner: NamespaceRunner
    rootfs: Path
    canary: Canary
    told: Told
    sleeper: Sleeper

    @property
    def builds(self) -> tuple[ProfileBuild, ProfileBuild]:
        """Return the two profiles: one that forbids new processes and one that lists a program."""
        return bare_build(self.rootfs, programs=False), bare_build(self.rootfs, programs=True)

    async def _run(self, build: ProfileBuild, limits: Limits, code: str, args: Any, files: dict[str, bytes]) -> Outcome:
        async with asyncio.timeout(_FULL_SEC):
            session = await self.runner.open(SandboxSpec(build, limits))
        try:
            for path, content in files.items():
                await session.put_file(path, BytesIO(content))
            async with asyncio.timeout(_PATIENCE_SEC):
                outcome = await session.run_python(code, args, Quiet())
                return await asyncio.to_thread(session.collect, _swallow, outcome)
        finally:
            await session.close()

    async def run(self, job: Case | Honest) -> None:
        """Run one job and judge it."""
        name = job.kind if isinstance(job, Honest) else job.name
        try:
            if isinstance(job, Honest):
                outcome = await self._run(self.builds[0], Limits(), job.code, job.args, job.files)
                self.told.add(f"honest {name}", outcome, [wrong] if (wrong := job.wrong(outcome)) else [])
                return
            case, began = softened(job), time.monotonic()
            limits = replace(Limits(), **case.limits)  # type: ignore[arg-type]
            outcome = await self._run(self.builds[case.programs], limits, case.code, {"host": self.canary.facts}, {})
            if outcome.end.reason is Reason.TIMEOUT:
                case = replace(case, result=ANY, stdout="", codes=(), artifacts=None)
            late_sec = self.sleeper.late_sec(began, time.monotonic()) + (UNCOUNTED_SEC if os.geteuid() else 0.0)
            self.told.add(name, outcome, judge.wrongs(case, judge.seen_outcome(outcome), machine_late_sec=late_sec))
        except Exception as fault:
            self.told.complain(f"{name}: {type(fault).__name__}: {fault}")

    async def run_alone(self, build: ProfileBuild) -> None:
        """Run a first job in a profile. Raises SandboxError when it does not stand here."""
        outcome = await self._run(build, Limits(), "1", None, {})
        assert outcome.end.reason is Reason.EXITED, outcome

    async def stream(self, numbers: "asyncio.Queue[int]") -> None:
        """Run jobs until there are none."""
        while not numbers.empty():
            await self.run(draw(numbers.get_nowait()))


async def flow(ground: Ground, first: int, count: int) -> None:
    """Run so many jobs, several at once."""
    numbers: asyncio.Queue[int] = asyncio.Queue()
    for number in range(first, first + count):
        numbers.put_nowait(number)
    await asyncio.gather(*(ground.stream(numbers) for _ in range(IN_FLIGHT)))


async def settled_stock(ground: Ground, link: LauncherLink, folder: Path, before: Stock | None) -> Stock:
    """Count when the pool is full and, with a stock to compare to, when nothing is more or the deadline passed."""
    deadline = time.monotonic() + _SETTLE_SEC
    while True:
        for build in ground.builds:
            async with asyncio.timeout(_FULL_SEC):
                await ground.runner.settled(build)
        stock = take_stock(link.process.pid, folder)
        if before is None or not stock.grown(before) or time.monotonic() > deadline:
            return stock
        await asyncio.sleep(0.1)


def all_threads_at_once() -> None:
    """Let the loop's own threads be there from the start, so that they are not taken for something left."""
    pool, gate = ThreadPoolExecutor(IN_FLIGHT), Barrier(IN_FLIGHT)
    for _ in range(IN_FLIGHT):
        pool.submit(gate.wait)
    asyncio.get_running_loop().set_default_executor(pool)


def late_growth(memory: list[dict[str, int]]) -> list[str]:
    """Return whose memory still grew in the last third of a run, when every kind of job had come.

    What one job took comes and goes; what stays shows in the lowest values alone.
    """
    third = len(memory) // 3
    least = [{name: min(look[name] for look in part) for name in memory[-1]} for part in (memory[third:-third], memory[-third:])]
    return [
        f"memory of the {name} grew from {least[0][name] >> 20} to {size >> 20} MiB in the last third"
        for name, size in least[1].items()
        if size > least[0][name] + LATE_GROWTH_BYTES
    ]


async def soak(rootfs: Path, folder: Path, jobs: int) -> dict[str, Any]:
    """Run, count, and return the report."""
    all_threads_at_once()
    link = launch()
    runner = NamespaceRunner(link)
    began = time.monotonic()
    try:
        await runner.start()
        with canaries(1) as (canary,), sleeper(folder) as reference:
            ground = Ground(runner, rootfs, canary, Told(), reference)
            # Every kind of sandbox once, so that what is kept for good is there before it is counted.
            for build in ground.builds:
                await ground.run_alone(build)
            await flow(ground, -_WARM_UP, _WARM_UP)
            before = await settled_stock(ground, link, folder, None)
            memory = [dict(before.memory_bytes)]
            for done in range(0, jobs, max(1, jobs // 20)):
                await flow(ground, done, min(max(1, jobs // 20), jobs - done))
                memory.append(dict(take_stock(link.process.pid, folder).memory_bytes))
            after = await settled_stock(ground, link, folder, before)
            for wrong in canary.wrongs():
                ground.told.complain(wrong)
            machine_late_sec = reference.worst_sec
        counts = asdict(runner.pool_counts())
    finally:
        await runner.stop()
    return {
        "jobs": dict(ground.told.jobs),
        "seconds": round(time.monotonic() - began, 1),
        "root": os.geteuid() == 0,
        "tier": runner.tier,
        "ends": dict(ground.told.ends),
        "pool": counts,
        "wrongs_count": ground.told.wrongs_count,
        "wrongs": ground.told.wrongs,
        "leaks": after.grown(before) + (late_growth(memory) if jobs >= 4 * len(ON_RUNNER) else []),
        "before": before.to_json(),
        "after": after.to_json(),
        "memory_bytes": memory,
        "machine_late_sec": round(machine_late_sec, 3),
    }


def main() -> None:
    """Run the soak in a temporary folder of its own, and write the report."""
    parser = argparse.ArgumentParser(prog="soak")
    parser.add_argument("rootfs", type=Path)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--report", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crank-soak-") as folder:
        tempfile.tempdir = folder
        report = asyncio.run(soak(options.rootfs, Path(folder), options.jobs))
    options.report.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()

"""Runs hostile cases against a runner and says what was wrong: the end, the result, or what was left behind.

Used in the tests' own process, and as a program by an ordinary user: `python -m tests.attacks.arena ROOTFS`
prints one JSON line for each case. It needs the standard library and Crank alone.
"""

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from crank.domain.ids import Digest
from crank.domain.outcome import Outcome
from crank.domain.profile import Limits
from crank.ports import SandboxSpec
from crank.sandbox.link import LauncherLink
from crank.sandbox.runner import NamespaceRunner
from tests.attacks import cases
from tests.attacks.cases import Case
from tests.support.rootfs import make_build

_OVERTIME_SEC = 0.25
_COLLECT_SEC = 10.0
_GROWTH_BYTES = 32 << 20
_SETTLE_SEC = 5.0


class Quiet:
    """Takes output and drops it."""

    def output(self, stream: str, text: str, offset_bytes: int, at_sec: float) -> None:
        """Drop it."""

    def progress(self, fraction: float | None, message: str) -> None:
        """Drop it."""


@dataclass(frozen=True, slots=True)
class Traces:
    """What a sandbox could leave on the host: processes below the launcher, mounts, groups, descriptors."""

    processes: frozenset[int]
    mounts: int
    groups: frozenset[str]
    descriptors: int
    launcher_descriptors: int

    def has_more_than(self, other: "Traces") -> bool:
        """Tell whether something is here that was not there."""
        return bool(
            self.processes - other.processes
            or self.groups - other.groups
            or self.mounts > other.mounts
            or self.descriptors > other.descriptors
            or self.launcher_descriptors > other.launcher_descriptors
        )


def _descendants(pid: int) -> frozenset[int]:
    found: set[int] = set()
    frontier = [pid]
    while frontier:
        parent = frontier.pop()
        try:
            text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        except OSError:
            continue
        children = [int(word) for word in text.split()]
        found.update(children)
        frontier += children
    return frozenset(found)


def traces(link: LauncherLink) -> Traces:
    """Look at the host."""
    pid = link.process.pid
    # os.walk passes over what other sandboxes of this machine remove meanwhile; Path.glob does not.
    groups = frozenset(
        place for place, _, _ in os.walk("/sys/fs/cgroup") if "/" in place.partition(f"/crank-{pid}-")[2]
    )
    return Traces(
        processes=_descendants(pid),
        mounts=len(Path("/proc/self/mountinfo").read_text().splitlines()),
        groups=groups,
        descriptors=len(os.listdir("/proc/self/fd")),
        launcher_descriptors=len(os.listdir(f"/proc/{pid}/fd")),
    )


def own_memory_bytes() -> int:
    """Return this process's resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _count(source: BinaryIO) -> Digest:
    while source.read(1 << 20):
        pass
    return Digest("0" * 64)


async def run_case(runner: NamespaceRunner, rootfs: Path, case: Case) -> tuple[Outcome, float]:
    """Run one case and collect its files; return the outcome and how long collecting took."""
    limits = replace(Limits(wall_sec=20.0), **case.limits)  # type: ignore[arg-type]
    build = make_build(rootfs, programs=("python",) if case.programs else ())
    session = await runner.open(SandboxSpec(build, limits))
    try:
        outcome = await session.run_python(case.code, {}, Quiet())
        began = time.monotonic()
        outcome = await asyncio.to_thread(session.collect, _count, outcome)
        return outcome, time.monotonic() - began
    finally:
        await session.close()


async def wrongs(runner: NamespaceRunner, link: LauncherLink, rootfs: Path, case: Case) -> list[str]:
    """Run one case; return everything that was not as it must be."""
    before, memory = traces(link), own_memory_bytes()
    outcome, collect_sec = await run_case(runner, rootfs, case)
    wrong = []
    if outcome.end.reason.value not in case.reasons:
        wrong.append(f"ended as {outcome.end}, stderr {outcome.stderr.text[-800:]!r}")
    if case.result is not cases.ANY and outcome.result != case.result:
        wrong.append(f"result {outcome.result!r}, stderr {outcome.stderr.text[-800:]!r}")
    if case.stdout not in outcome.stdout.text:
        wrong.append(f"stdout {outcome.stdout.text[-300:]!r}")
    if "ESCAPED" in outcome.stdout.text:
        wrong.append("it got through")
    if outcome.usage.wall_sec > dict(case.limits).get("wall_sec", 20.0) + _OVERTIME_SEC:
        wrong.append(f"it ran {outcome.usage.wall_sec:.2f} s")
    if collect_sec > _COLLECT_SEC:
        wrong.append(f"collecting took {collect_sec:.1f} s")
    if own_memory_bytes() > memory + _GROWTH_BYTES:
        wrong.append("the worker's own memory grew")
    canary, _ = await run_case(
        runner, rootfs, Case("canary", "import os\nsum(range(10)), sorted(os.listdir('/scratch'))")
    )
    if canary.result != [45, []]:
        wrong.append(f"the next job gave {canary.result!r} and ended as {canary.end}")
    wrong += await _left_behind(link, before)
    return wrong


async def _left_behind(link: LauncherLink, before: Traces) -> list[str]:
    deadline = time.monotonic() + _SETTLE_SEC
    while (after := traces(link)).has_more_than(before):
        if time.monotonic() > deadline:
            return [f"left behind: {after} instead of {before}"]
        await asyncio.sleep(0.01)
    return []


async def _main(rootfs: Path) -> None:
    from crank.sandbox.link import launch

    link = launch()
    try:
        runner = NamespaceRunner(link)
        await runner.start()
        for case in cases.ALL:
            found = await wrongs(runner, link, rootfs, case)
            print(json.dumps({"name": case.name, "wrongs": found}), flush=True)
    finally:
        link.close()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))

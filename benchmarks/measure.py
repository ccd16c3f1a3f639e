"""Samples and what is said of them: percentiles, success, and one score."""

import asyncio
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

CEILING_SEC = 10.0
# The rule of a public benchmark of hosted sandboxes (computesdk): half counts what is usual, the rest what hurts.
WEIGHTS = ((50, 0.60), (95, 0.25), (99, 0.15))
_TICKS_A_SEC = os.sysconf("SC_CLK_TCK")


class Way(Protocol):
    """One way of running `print(1+1)`."""

    @property
    def name(self) -> str:
        """Return what the table calls it."""
        ...

    @property
    def note(self) -> str:
        """Return what one must know to read its number."""
        ...

    async def once(self) -> float:
        """Run it once, right answer insisted on; return the seconds it took. Raises anything when it failed."""
        ...

    async def settle(self) -> None:
        """Wait until nothing that this way began goes on, so that the next way is alone."""
        ...


@dataclass(slots=True)
class Series:
    """What one way took, in seconds, and how it failed."""

    name: str
    note: str
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def percentile(self, percent: int) -> float:
        """Return a percentile of the successful runs by nearest rank."""
        ordered = sorted(self.seconds)
        return ordered[max(1, -(-len(ordered) * percent // 100)) - 1]

    @property
    def success(self) -> float:
        """Return the share of runs that gave the right answer."""
        return len(self.seconds) / max(1, len(self.seconds) + len(self.failures))

    @property
    def score(self) -> float:
        """Return 0 to 100: 100 for no time at all, 0 for ten seconds, times the share that succeeded."""
        if not self.seconds:
            return 0.0
        lost = sum(weight * min(1.0, self.percentile(percent) / CEILING_SEC) for percent, weight in WEIGHTS)
        return 100 * (1 - lost) * self.success

    def to_json(self) -> dict[str, Any]:
        """Return it as the report shows it."""
        found: dict[str, Any] = {"note": self.note, "n": len(self.seconds) + len(self.failures)}
        if self.seconds:
            found |= {f"p{percent}_ms": round(self.percentile(percent) * 1000, 3) for percent in (50, 95, 99)}
        found |= {"success": round(self.success, 4), "score": round(self.score, 2)}
        if self.failures:
            found["first_failure"] = self.failures[0]
        return found


async def interleave(ways: Sequence[Way], *, rounds: int, warmups: int = 2) -> dict[str, Series]:
    """Run every way once a round, in an order that changes: what disturbs this machine disturbs all alike."""
    series = {way.name: Series(way.name, way.note) for way in ways}
    order = list(ways)
    chance = random.Random(1)  # noqa: S311 — an order, not a secret
    for number in range(rounds + warmups):
        chance.shuffle(order)
        for way in order:
            try:
                taken_sec = await way.once()
            except Exception as fault:  # noqa: BLE001 — a failed run is what success is measured by
                if number >= warmups:
                    series[way.name].failures.append(f"{type(fault).__name__}: {fault}")
            else:
                if number >= warmups:
                    series[way.name].seconds.append(taken_sec)
            await way.settle()
    return series


def tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    found, frontier = [], [pid]
    while frontier:
        parent = frontier.pop()
        found.append(parent)
        try:
            threads = os.listdir(f"/proc/{parent}/task")
            for thread in threads:
                frontier += map(int, Path(f"/proc/{parent}/task/{thread}/children").read_text().split())
        except OSError:
            continue
    return found


def cpu_sec(pids: Sequence[int]) -> float:
    """Return the CPU seconds of processes, with those of the children that they have waited for."""
    ticks = 0
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, stat[11:15]))
    return ticks / _TICKS_A_SEC


def machine_cpu_sec() -> float:
    """Return the CPU seconds that this machine has used for anything but waiting."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:7])) / _TICKS_A_SEC


async def quiet(pid: int, *, deadline_sec: float = 1.0) -> None:
    """Wait until a tree of processes uses no CPU, or until the deadline."""
    before, still = cpu_sec(tree(pid)), 0
    for _ in range(int(deadline_sec / 0.01)):
        await asyncio.sleep(0.01)
        now = cpu_sec(tree(pid))
        still = still + 1 if now == before else 0
        before = now
        if still >= 2:
            return

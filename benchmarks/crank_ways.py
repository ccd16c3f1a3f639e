"""Crank's own ways: a parked sandbox, one made on demand, and the whole path over HTTPS. Public faces only."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.measure import cpu_sec, machine_cpu_sec, quiet, tree
from benchmarks.neighbours import code_for, heavy

from crank import AsyncClient
from crank.ports import ProfileBuild, SandboxSpec
from crank.sandbox.link import LauncherLink
from crank.sandbox.runner import NamespaceRunner

CODE = "print(1+1)"


class Quiet:
    """Takes output and drops it."""

    def output(self, stream: str, text: str, offset_bytes: int, at_sec: float) -> None:
        """Drop text."""

    def progress(self, fraction: float | None, message: str) -> None:
        """Drop progress."""


async def run_in(runner: NamespaceRunner, build: ProfileBuild) -> tuple[float, bool]:
    """Run one job; return its seconds from open to outcome, and whether its sandbox stood ready. Closes off the clock."""
    began = time.perf_counter()
    session = await runner.open(SandboxSpec(build, build.profile.limits))
    try:
        outcome = await session.run_python(code_for(build), None, Quiet())
        taken = time.perf_counter() - began
    finally:
        await session.close()
    if outcome.stdout.text != "2\n":
        raise AssertionError(f"it ended as {outcome.end} and printed {outcome.stdout.text!r}")
    return taken, outcome.usage.pool_hit


@dataclass(slots=True)
class RunnerWay:
    """A job in a sandbox of a profile, without anything around it.

    hit  insist that the sandbox stood ready, or that it did not
    """

    runner: NamespaceRunner
    link: LauncherLink
    build: ProfileBuild
    hit: bool

    @property
    def name(self) -> str:
        """Return the row's name."""
        return f"Crank {self.build.profile.name}, {'parked' if self.hit else 'pool miss'}"

    @property
    def note(self) -> str:
        """Return what the number is."""
        used, ready = heavy(self.build), self.build.profile.preimports
        what = "fresh sandbox that stood ready" if self.hit else "fresh sandbox made on demand"
        return f"{what}, {', '.join(used)} imported {'ahead' if ready else 'by the job'}" if used else what

    async def once(self) -> float:
        """Run one job. Raises AssertionError when its sandbox was not the kind that is measured."""
        taken, hit = await run_in(self.runner, self.build)
        if hit is not self.hit:
            raise AssertionError("its sandbox stood ready" if hit else "its sandbox did not stand ready")
        return taken

    async def settle(self) -> None:
        """Wait for the refill, and for what the last job left to be cleared away."""
        if self.hit:
            await self.runner.settled(self.build)
        await quiet(self.link.process.pid)


@dataclass(slots=True)
class ApiWay:
    """A job over HTTPS, committed durably before and after."""

    client: AsyncClient
    keeper_pid: int
    name: str = "Crank end to end"
    note: str = "HTTPS, token, durable store, worker's link, parked python-core"

    async def once(self) -> float:
        """Submit one job and wait for its end."""
        began = time.perf_counter()
        job = await self.client.submit({"code": CODE}, wait_sec=40)
        taken = time.perf_counter() - began
        if job.stdout != "2\n":
            raise AssertionError(f"it ended as {job.status} and printed {job.stdout!r}")
        return taken

    async def settle(self) -> None:
        """Wait until the node is quiet."""
        await quiet(self.keeper_pid)


@dataclass(frozen=True, slots=True)
class Rate:
    """How many jobs a second were done, and what CPU each took."""

    jobs: int
    failed: int
    seconds: float
    cpu_sec: float
    machine_cpu_sec: float

    @property
    def per_sec(self) -> float:
        """Return jobs a second."""
        return self.jobs / self.seconds

    @property
    def cpu_ms_per_job(self) -> float:
        """Return CPU milliseconds a job, as far as our own processes tell."""
        return 1000 * self.cpu_sec / max(1, self.jobs)

    @property
    def machine_cpu_ms_per_job(self) -> float:
        """Return CPU milliseconds a job, counting everything that the machine did meanwhile."""
        return 1000 * self.machine_cpu_sec / max(1, self.jobs)


async def flow(
    once: Callable[[], Awaitable[object]], *, in_flight: int, during_sec: float, pids: Callable[[], list[int]]
) -> Rate:
    """Keep so many jobs under way for so long; CPU is counted over the processes of `pids` and what they waited for."""
    done = failed = 0
    ends_at = time.perf_counter() + during_sec

    async def stream() -> None:
        nonlocal done, failed
        while time.perf_counter() < ends_at:
            try:
                await once()
            except Exception:  # noqa: BLE001 — counted; a rate without failures would be a lie
                failed += 1
            else:
                done += 1

    ours, machine, began = cpu_sec(pids()), machine_cpu_sec(), time.perf_counter()
    await asyncio.gather(*(stream() for _ in range(in_flight)))
    seconds = time.perf_counter() - began
    return Rate(done, failed, seconds, cpu_sec(pids()) - ours, machine_cpu_sec() - machine)


async def sandbox_rate(
    runner: NamespaceRunner, link: LauncherLink, build: ProfileBuild, *, in_flight: int, during_sec: float
) -> Rate:
    """Return how many fresh sandboxes a second this machine sustains, pool or no pool."""

    def pids() -> list[int]:
        return [os.getpid(), *tree(link.process.pid)]

    async def once() -> None:
        await run_in(runner, build)

    await once()
    return await flow(once, in_flight=in_flight, during_sec=during_sec, pids=pids)

"""Crank beside its neighbours: latency, rate and memory of `print(1+1)`, in one run on one machine.

A number without its neighbour says more about the machine than about Crank, so all ways take turns in rounds
whose order changes, and the ratios are what counts. What is measured:

neighbours    a bare interpreter, bubblewrap, sandlock, a warm ipykernel, Monty (their own environment, locked)
parked        for each built profile: from `open` to the outcome, inside the worker, where a sandbox stood ready
pool miss     the same where none stood ready
end to end    HTTPS request to HTTPS answer, the job committed durably before and after
rate          fresh sandboxes a second; jobs a second through everything, many in flight; CPU of each
memory        what one more parked sandbox costs
identity      certificates issued and tokens verified a second, what authentication adds to a request, watchers fed

Run it with `make bench`. It is not a test: it prints what was promised beside what was found and passes no judgement.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import identity, identity_node, report
from benchmarks.crank_ways import ApiWay, RunnerWay, sandbox_rate
from benchmarks.measure import Way, interleave
from benchmarks.memory import per_parked
from benchmarks.neighbours import NeighbourWay, neighbours
from benchmarks.node import api_rates, help_sec, running_node

from crank import AsyncClient
from crank.bootstrap.profiles import Profiles
from crank.config import load
from crank.errors import CrankError
from crank.ports import ProfileBuild
from crank.sandbox.link import LauncherLink, launch
from crank.sandbox.runner import NamespaceRunner

REPO = Path(__file__).resolve().parents[1]
_FULL_SEC = 30.0


@dataclass(slots=True)
class Bench:
    """One run: what was asked for, what was found, and what could not be measured."""

    options: argparse.Namespace
    folder: Path
    notes: list[str] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=lambda: {"latency": {}, "profiles": {}, "end_to_end": {}, "identity": {}, "identity_rates": {}})

    async def profiles(self, builds: list[ProfileBuild]) -> list[ProfileBuild]:
        """Measure rate and memory of each profile, without a pool; return the profiles that stand."""
        standing = []
        for build in builds:
            link = launch()
            runner = NamespaceRunner(link, parked=0)
            try:
                await runner.start()
                self.found["profiles"][build.profile.name] = await self._profile(runner, link, build)
                standing.append(build)
            except (CrankError, AssertionError) as fault:
                self.notes.append(f"{build.profile.name} could not be measured: {fault}")
            finally:
                await runner.stop()
        return standing

    async def _profile(self, runner: NamespaceRunner, link: LauncherLink, build: ProfileBuild) -> dict[str, Any]:
        cores = os.cpu_count() or 1
        memory = await per_parked(runner, link, build)
        rate = await sandbox_rate(runner, link, build, in_flight=2 * cores, during_sec=self.options.seconds)
        return {"memory_per_parked": memory, "fresh_sandboxes": {**report.rate(rate), "in_flight": 2 * cores}}

    async def latencies(self, builds: list[ProfileBuild], keeper_pid: int | None) -> None:
        """Measure every way in turns; the whole path where a node runs."""
        async with AsyncExitStack() as stack:
            ways: list[Way] = [*await self._neighbours(builds, stack), *await self._ours(builds, stack)]
            if keeper_pid is not None:
                ways.append(ApiWay(await stack.enter_async_context(AsyncClient()), keeper_pid))
            series = await interleave(ways, rounds=self.options.rounds)
        for way in ways:
            if series[way.name].failures:
                self.notes.append(f"{way.name}: {series[way.name].failures[0]}")
        self.found["latency"] = {name: entry.to_json() for name, entry in series.items()}

    async def _neighbours(self, builds: list[ProfileBuild], stack: AsyncExitStack) -> list[Way]:
        ways: list[Way] = []
        core = next(build for build in builds if build.profile.name == "python-core")
        missing = json.loads((self.options.peers / "failed.json").read_text("utf-8"))
        self.notes += [f"{name} could not be installed: {why}" for name, why in missing.items()]
        for neighbour in neighbours(sys.executable, core, builds):
            try:
                way = await NeighbourWay.start(neighbour, self.options.peers / "bin" / "python", self.folder)
            except (RuntimeError, TimeoutError) as fault:
                self.notes.append(f"{neighbour.name} does not run here: {fault}")
                continue
            stack.push_async_callback(way.stop)
            ways.append(way)
        return ways

    async def _ours(self, builds: list[ProfileBuild], stack: AsyncExitStack) -> list[Way]:
        ways: list[Way] = []
        for hit in (True, False):
            link = launch()
            runner = NamespaceRunner(link) if hit else NamespaceRunner(link, parked=0)
            stack.push_async_callback(runner.stop)
            await runner.start()
            for build in builds:
                if hit:
                    async with asyncio.timeout(_FULL_SEC):
                        await runner.settled(build)
                ways.append(RunnerWay(runner, link, build, hit))
        return ways

    async def measure(self) -> None:
        """Measure everything."""
        built = {build.profile.name: build for build in Profiles(load()).built()}
        if "python-core" not in built:
            raise SystemExit("bench: python-core is not built; run: make profiles-small")
        wanted = self.options.profiles or [
            name for name in ("python-core", "python-docs", "python-ml") if name in built
        ]
        builds = await self.profiles([built[name] for name in wanted])
        if not any(build.profile.name == "python-core" for build in builds):
            raise SystemExit(f"bench: python-core does not stand here: {self.notes}")
        self.found["help_sec"] = help_sec()
        with ExitStack() as stack:
            keeper_pid = None
            try:
                keeper_pid = stack.enter_context(running_node())
            except RuntimeError as fault:
                self.notes.append(f"nothing was measured end to end: {fault}")
            else:
                self.found["end_to_end"] = await api_rates(
                    self.folder, keeper_pid, in_flight=self.options.in_flight, during_sec=self.options.seconds
                )
                self.found["identity"] = await identity_node.measure(self.options.rounds, self.notes)
            await self.latencies(builds, keeper_pid)
        self.found["identity_rates"] = await identity.measure(self.folder / "identity", self.options.seconds)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure Crank beside its neighbours.")
    parser.add_argument("--rounds", type=int, default=100, help="how often each way runs")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each rate is measured")
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--profiles", nargs="*", help="which profiles; default: all that are built")
    parser.add_argument("--peers", type=Path, default=REPO / ".cache" / "peers", help="the neighbours' environment")
    parser.add_argument("--out", type=Path, default=REPO / ".cache" / "bench", help="where the report goes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crank-bench-") as folder:
        os.environ.setdefault("CRANK_PROFILES_BUILDS", str(REPO / ".cache" / "profiles"))
        os.environ.update(CRANK_HOME=f"{folder}/home", CRANK_API_PORT="0", CRANK_WORKERS_PORT="0")
        bench = Bench(options, Path(folder))
        asyncio.run(bench.measure())
    numbers = report.finish(bench.found, bench.notes)
    report.show(numbers)
    options.out.mkdir(parents=True, exist_ok=True)
    target = options.out / "bench.json"
    target.write_text(json.dumps(numbers, indent=2, ensure_ascii=False) + "\n", "utf-8")
    plot = Path(__file__).parent / "peers" / "plot.py"
    subprocess.run([str(options.peers / "bin" / "python"), str(plot), str(target)], check=False)
    shown = options.out.relative_to(Path.cwd()) if options.out.is_relative_to(Path.cwd()) else options.out
    print(f"report: {shown}/bench.json, bench.png, bench.svg")


if __name__ == "__main__":
    main()

"""Latency and throughput of `print(1+1)`, as ratios measured in one run on one machine.

A number without its neighbour says more about the machine than about Crank. So each is measured beside
`python -c 'print(1+1)'` and, where bubblewrap is installed, beside bubblewrap starting the same Python:

python       a bare interpreter: the floor that nobody isolates
bubblewrap   the usual unprivileged sandbox, with the same namespaces
sandbox      Crank's sandbox alone, inside the worker: open, run, collect, close
end to end   HTTPS request to HTTPS answer, with the job committed durably before and after

Run it with `make bench`. It is not a test: it passes no judgement.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from crank import AsyncClient
from crank.bootstrap.profiles import Profiles
from crank.config import load
from crank.ports import SandboxSpec
from crank.sandbox.runner import NamespaceRunner

REPO = Path(__file__).resolve().parents[1]
CODE = "print(1+1)"


@dataclass(frozen=True)
class Measured:
    """What one way of running it took, in seconds, sorted."""

    name: str
    seconds: list[float]

    def percentile(self, percent: int) -> float:
        """Return a percentile by nearest rank."""
        rank = max(1, -(-len(self.seconds) * percent // 100))
        return self.seconds[rank - 1]


class Quiet:
    """Takes output and drops it."""

    def output(self, stream: str, text: str, offset_bytes: int, at_sec: float) -> None:
        """Drop text."""

    def progress(self, fraction: float | None, message: str) -> None:
        """Drop progress."""


def time_program(name: str, argv: list[str], count: int) -> Measured:
    """Measure a program from start to end."""
    seconds = []
    for _ in range(count + 2):
        began = time.perf_counter()
        done = subprocess.run(argv, capture_output=True, check=True)
        seconds.append(time.perf_counter() - began)
        assert done.stdout == b"2\n"
    return Measured(name, sorted(seconds[2:]))


async def time_calls(name: str, call: Callable[[], Awaitable[None]], count: int) -> Measured:
    """Measure calls one after the other, after two to warm up."""
    seconds = []
    for _ in range(count + 2):
        began = time.perf_counter()
        await call()
        seconds.append(time.perf_counter() - began)
    return Measured(name, sorted(seconds[2:]))


def bubblewrap_argv(python: str, root: Path) -> list[str] | None:
    """Return how bubblewrap starts the profile's own Python, or None where it is not installed."""
    program = shutil.which("bwrap")
    if program is None:
        return None
    return [program, "--unshare-all", "--die-with-parent", "--ro-bind", str(root), "/", "--proc", "/proc", "--dev", "/dev",
            "--tmpfs", "/tmp", python, "-I", "-c", CODE]  # fmt: skip


async def time_sandbox(count: int) -> Measured:
    """Measure the sandbox alone."""
    build = Profiles(load()).find("python-core")
    if build is None:
        raise SystemExit("bench: python-core is not built; run: make profiles-small")
    runner = NamespaceRunner()
    await runner.start()
    sink = Quiet()

    async def run_one() -> None:
        session = await runner.open(SandboxSpec(build, replace(build.profile.limits, wall_sec=30.0)))
        outcome = await session.run_python(CODE, None, sink)
        await session.close()
        assert outcome.stdout.text == "2\n", outcome

    try:
        return await time_calls("sandbox", run_one, count)
    finally:
        await runner.stop()


async def time_api(count: int, in_flight: int) -> tuple[Measured, float]:
    """Measure the whole path: one after the other for latency, many at once for jobs a second."""
    async with AsyncClient() as client:

        async def run_one() -> None:
            job = await client.submit({"code": CODE}, wait_sec=40)
            assert job.stdout == "2\n", job

        latency = await time_calls("end to end", run_one, count)
        gate = asyncio.Semaphore(in_flight)

        async def run_gated() -> None:
            async with gate:
                await run_one()

        began = time.perf_counter()
        await asyncio.gather(*(run_gated() for _ in range(count)))
        return latency, count / (time.perf_counter() - began)


def measure(count: int, in_flight: int) -> tuple[list[Measured], float, list[str]]:
    """Run every way once. Returns what was measured, jobs a second, and what could not be measured."""
    notes = []
    measured = [time_program("python", [sys.executable, "-I", "-c", CODE], count)]
    build = Profiles(load()).find("python-core")
    argv = bubblewrap_argv(build.python, build.rootfs) if build else None
    if argv is None:
        notes.append("bubblewrap is not installed here, so there is no ratio to it")
    else:
        measured.append(time_program("bubblewrap", argv, count))
    measured.append(asyncio.run(time_sandbox(count)))
    crank = str(Path(sys.executable).with_name("crank"))
    subprocess.run([crank, "up", "--detach"], check=True, stderr=subprocess.DEVNULL)
    try:
        latency, rate = asyncio.run(time_api(count, in_flight))
    finally:
        subprocess.run([crank, "down"], check=True, stderr=subprocess.DEVNULL)
    return [*measured, latency], rate, notes


def report(measured: list[Measured], rate: float, notes: list[str], in_flight: int) -> dict[str, Any]:
    """Return the numbers as JSON."""
    floor = measured[0].percentile(50)
    return {
        "machine": {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()},
        "runs": {
            entry.name: {
                "count": len(entry.seconds),
                **{f"p{percent}_ms": round(entry.percentile(percent) * 1000, 2) for percent in (50, 95, 99)},
                "mean_ms": round(statistics.fmean(entry.seconds) * 1000, 2),
                **{
                    f"p50_over_{other.name.replace(' ', '_')}": round(entry.percentile(50) / other.percentile(50), 2)
                    for other in measured
                    if other.name in {"python", "bubblewrap"}
                },
            }
            for entry in measured
        },
        "throughput": {
            "jobs_per_sec": round(rate, 1),
            "in_flight": in_flight,
            "python_starts_per_job": round(1 / rate / floor, 2),
        },
        "notes": notes,
    }


def show(numbers: dict[str, Any]) -> None:
    """Print a table for people."""
    table = Table("print(1+1)", "p50 ms", "p95 ms", "p99 ms", "× python", "× bubblewrap")
    for name, run in numbers["runs"].items():
        cells = [run[key] for key in ("p50_ms", "p95_ms", "p99_ms", "p50_over_python")]
        table.add_row(name, *(f"{cell:.2f}" for cell in cells), str(run.get("p50_over_bubblewrap", "–")))
    console = Console(width=100)
    console.print(table)
    throughput = numbers["throughput"]
    console.print(
        f"{throughput['jobs_per_sec']} jobs/s end to end with {throughput['in_flight']} in flight, every one committed durably"
    )
    for note in numbers["notes"]:
        console.print(f"note: {note}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure Crank beside its neighbours.")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--json", type=Path, help="also write the numbers there; - for stdout alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crank-bench-") as folder:
        os.environ.setdefault("CRANK_PROFILES_BUILDS", str(REPO / ".cache" / "profiles"))
        os.environ.update(CRANK_HOME=f"{folder}/home", CRANK_API_PORT="0", CRANK_WORKERS_PORT="0")
        measured, rate, notes = measure(options.count, options.in_flight)
    numbers = report(measured, rate, notes, options.in_flight)
    text = json.dumps(numbers, indent=2, ensure_ascii=False)
    if options.json == Path("-"):
        print(text)
        return
    show(numbers)
    target = options.json or REPO / ".cache" / "bench.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text + "\n", "utf-8")
    print(f"numbers as JSON: {target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target}")


if __name__ == "__main__":
    main()

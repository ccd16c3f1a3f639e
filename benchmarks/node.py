"""A real node under load: jobs a second through HTTPS and the durable store, with the CPU that each takes."""

import asyncio
import contextlib
import inspect
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.crank_ways import CODE, flow
from benchmarks.measure import tree

from crank import AsyncClient, Worker

CRANK = str(Path(sys.executable).with_name("crank"))
_ENROL_SEC = 30.0
_HELP_RUNS = 9

NOOP = '''"""A capability that does nothing, so that only the way to it is measured."""

from crank import Worker

app = Worker("bench")


@app.capability("bench.noop", version="1.0.0", effects="pure"{isolation})
def noop() -> int:
    """Return one."""
    return 1
'''


def help_sec() -> float:
    """Return the median seconds of `crank --help`."""
    seconds = []
    for _ in range(_HELP_RUNS):
        began = time.perf_counter()
        subprocess.run([CRANK, "--help"], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


@contextlib.contextmanager
def running_node() -> Iterator[int]:
    """Run the node that the environment names; give its keeper's process id. Raises RuntimeError with its words."""
    started = subprocess.run([CRANK, "up", "--detach"], check=False, capture_output=True, text=True)
    if started.returncode != 0:
        raise RuntimeError(f"crank up ended with {started.returncode}: {started.stderr.strip()[-400:]}")
    try:
        node = json.loads(Path(os.environ["CRANK_HOME"], "run", "node.json").read_text())
        yield int(Path(f"/proc/{node['controller_pid']}/stat").read_text().rpartition(")")[2].split()[1])
    finally:
        subprocess.run([CRANK, "down"], check=True, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def serving_noop(folder: Path) -> Iterator[int]:
    """Offer a capability that does nothing, hot where the author may ask for that; give the worker's process id."""
    can_be_hot = "isolation" in inspect.signature(Worker.capability).parameters
    text = NOOP.format(isolation=', isolation="per_worker"' if can_be_hot else "")
    (folder / "noop.py").write_text(text, "utf-8")
    serving = subprocess.Popen([CRANK, "worker", "serve", "noop:app"], cwd=folder, stderr=subprocess.DEVNULL)
    try:
        yield serving.pid
    finally:
        serving.send_signal(signal.SIGINT)
        serving.wait(timeout=30)


def _asking(
    client: AsyncClient, body: dict[str, Any], is_right: Callable[[Any], bool]
) -> Callable[[], Awaitable[None]]:
    async def once() -> None:
        job = await client.submit(body, wait_sec=40)
        if not is_right(job):
            raise AssertionError(f"it ended as {job.status}")

    return once


async def _until_offered(once: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.timeout(_ENROL_SEC):
        while True:
            try:
                return await once()
            except Exception:  # noqa: BLE001 — not offered yet; the deadline decides
                await asyncio.sleep(0.1)


async def api_rates(folder: Path, keeper_pid: int, *, in_flight: int, during_sec: float) -> dict[str, Any]:
    """Measure the sandbox's and a no-op capability's jobs a second, so many in flight."""
    found: dict[str, Any] = {"in_flight": in_flight}
    async with AsyncClient() as client:
        once = _asking(client, {"code": CODE}, lambda job: job.stdout == "2\n")
        await once()
        rate = await flow(once, in_flight=in_flight, during_sec=during_sec, pids=lambda: tree(keeper_pid))
        found["sandboxed_jobs"] = report.rate(rate)
        with serving_noop(folder) as worker_pid:
            once = _asking(client, {"capability": "bench.noop", "args": {}}, lambda job: job.result == 1)
            await _until_offered(once)
            rate = await flow(
                once, in_flight=in_flight, during_sec=during_sec, pids=lambda: [*tree(keeper_pid), *tree(worker_pid)]
            )
            found["noop_jobs"] = report.rate(rate)
    return found

"""Jobs of the weaker tier share an account: what neighbours use is not taken from what a job was promised."""

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from crank.domain.isolation import Tier
from crank.domain.profile import Limits
from crank.ports import SandboxSpec
from crank.sandbox import landlock
from crank.sandbox.bare import LANDLOCK_NEEDED
from crank.sandbox.link import launch
from crank.sandbox.tiers import RUNNERS
from crank.testing.contracts_sandbox import RecordingSink
from tests.support.rootfs import make_build, make_rootfs

pytestmark = pytest.mark.system

_THREADS = 12
_NEIGHBOURS = 8
_CODE = f"""
import sys, threading
goes_on = threading.Event()
threads = [threading.Thread(target=goes_on.wait) for _ in range({_THREADS})]
for thread in threads:
    thread.start()
print("started", flush=True)
sys.stdin.readline()
goes_on.set()
len(threads)
"""


@pytest.fixture
def open_rootfs() -> Iterator[Path]:
    """Give a root that every account may read: no mount lends the right to in this tier."""
    with tempfile.TemporaryDirectory(prefix="crank-neighbours-", dir="/var/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        make_rootfs(place / "rootfs")
        (place / "rootfs").chmod(0o755)
        yield place / "rootfs"


async def test_neighbours_do_not_take_a_jobs_threads(open_rootfs: Path) -> None:
    """Sandboxes that stood before all others began still give their jobs every thread that the limit allows."""
    if landlock.abi() < LANDLOCK_NEEDED:
        pytest.skip("this kernel's Landlock is too early for the tier")
    link = await asyncio.to_thread(launch, tier=Tier.LANDLOCK)
    counted = link.cgroup is not None
    runner = RUNNERS[Tier.LANDLOCK](link, parked=0)
    spec = SandboxSpec(make_build(open_rootfs), replace(Limits(), wall_sec=30.0, processes=16))
    try:
        if not counted:
            pytest.skip("without a control group the account's own count is the only one there is")
        sessions = [await runner.open(spec) for _ in range(_NEIGHBOURS)]
        sinks = [RecordingSink() for _ in sessions]
        jobs = [
            asyncio.create_task(session.run_python(_CODE, None, sink, stdin=True))
            for session, sink in zip(sessions, sinks, strict=True)
        ]
        await asyncio.wait_for(asyncio.gather(*(_begun(*pair) for pair in zip(sinks, jobs, strict=True))), 30)
        for session, job in zip(sessions, jobs, strict=True):
            if not job.done():
                await session.write_stdin(b"\n")
        outcomes = await asyncio.wait_for(asyncio.gather(*jobs), 30)
        assert [outcome.result for outcome in outcomes] == [_THREADS] * _NEIGHBOURS, outcomes[-1].end
    finally:
        await runner.stop()
        await asyncio.to_thread(link.close)


async def _begun(sink: RecordingSink, job: "asyncio.Task[object]") -> None:
    """Wait until a job has its threads, or has ended without."""
    arrived = asyncio.create_task(sink.arrived.wait())
    await asyncio.wait({arrived, job}, return_when=asyncio.FIRST_COMPLETED)
    arrived.cancel()

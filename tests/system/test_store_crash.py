"""What the store acknowledged is there after its process was killed at a random moment."""

import asyncio
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from crank.adapters.failpoints import NoFailpoints
from crank.adapters.sqlite import SqliteStore
from crank.domain.ids import LOCAL_TENANT, JobId
from crank.domain.job import Status

_PROGRAM = """
import asyncio, sys
from pathlib import Path
from crank.adapters.failpoints import EnvFailpoints
from crank.adapters.sqlite import SqliteStore
from crank.testing.samples import sample_job, sample_record

def accept(tx, job_id):
    tx.jobs.insert(sample_job(job_id))
    tx.records.append(sample_record("r" + job_id, job_id=job_id))

async def client(store, prefix):
    for number in range(1_000_000):
        job_id = f"{prefix}-{number}"
        await store.transact(lambda tx: accept(tx, job_id))
        print(job_id, flush=True)

async def main():
    store = SqliteStore(Path(sys.argv[1]), failpoints=EnvFailpoints(sys.argv[3]))
    await store.start()
    await asyncio.gather(*(client(store, f"{sys.argv[2]}-{number}") for number in range(4)))

asyncio.run(main())
"""

pytestmark = pytest.mark.system


def _kill_one(path: Path, round_name: str, *, after: int | None, failpoints: str = "") -> set[str]:
    """Run a process that stores jobs, kill it after so many acknowledgements, return the acknowledged ids."""
    program = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(path), round_name, failpoints], stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    told: list[str] = []
    with program.stdout as output:
        for line in output:
            # A line that the kill cut in two told nobody anything.
            if line.endswith("\n"):
                told.append(line.strip())
            if after is not None and len(told) == after:
                program.kill()
    assert program.wait(60) == -signal.SIGKILL
    return set(told)


def _stored(path: Path) -> tuple[set[str], set[str]]:
    async def look() -> tuple[set[str], set[str]]:
        store = SqliteStore(path, failpoints=NoFailpoints())
        await store.start()
        jobs = await store.read(lambda tx: tx.jobs.page(LOCAL_TENANT, limit=10**6, before=None, status=Status.QUEUED))
        records = await store.read(lambda tx: tx.records.page(job_id=None, after=0, limit=10**6))
        await store.stop()
        return {job.job_id for job in jobs}, {str(record.job_id) for _, record in records}

    return asyncio.run(look())


def test_twelve_random_kills_lose_nothing_acknowledged(tmp_path: Path) -> None:
    """After each kill every acknowledged job is there, and each job stands with its record or not at all."""
    path = tmp_path / "crank.db"
    chance = random.Random(20_261_123)
    acknowledged: set[str] = set()
    for number in range(12):
        acknowledged |= _kill_one(path, f"k{number}", after=chance.randrange(1, 200))
        jobs, records = _stored(path)
        assert acknowledged <= jobs
        assert jobs == records


@pytest.mark.parametrize(("moment", "stored"), [("store.before_commit", False), ("store.after_commit", True)])
def test_a_kill_around_the_commit(tmp_path: Path, moment: str, stored: bool) -> None:
    """Before the commit nothing of it is there; after it all of it is, although nobody was told."""
    path = tmp_path / "crank.db"
    told = _kill_one(path, "f", after=None, failpoints=f"{moment}:kill@1")
    assert told == set()
    jobs, _ = _stored(path)
    assert (len(jobs) > 0) is stored
    assert JobId("f-0-0") in jobs or not stored

"""A worker of version 1 beside a controller of version 2: it is served, and never told what it cannot know."""

from pathlib import Path

import pytest

from crank.controller.open_session import open_session
from crank.controller.reach import interrupt
from crank.controller.submit import Submission, submit
from crank.controller.views import find_job, job_document
from crank.domain.ids import LOCAL_TENANT, JobId
from crank.domain.job import Job
from crank.domain.session import SessionReason
from crank.errors import InvalidRequest, NotSupported
from crank.testing.samples import sample_session
from crank.wire import Started
from tests.support.desk import ScriptedWorker, open_desk
from tests.support.pair import until
from tests.unit.domain.rules.builders import capability


async def send(desk, **fields) -> Job:
    """Submit a job."""
    found = await submit(desk, tenant=LOCAL_TENANT, subject="local", submission=Submission(fields))
    return found.job


async def test_it_gets_ordinary_jobs_alone(tmp_path: Path) -> None:
    """A script runs as before; a program and a job with stdin wait for a worker that knows them."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [capability()])
        await worker.connect()
        waiting = [await send(desk, program=["pandoc"]), await send(desk, code="1", stdin=True)]
        plain = await send(desk, code="1")
        lease = await worker.lease()
        assert (lease.job_id, lease.session_id, lease.program, lease.stdin) == (plain.job_id, None, None, False)
        await worker.finish(lease)
        for job in waiting:
            document = await job_document(desk, tenant=LOCAL_TENANT, job_id=job.job_id)
            assert (document["status"], bool(document["pending"])) == ("queued", True)


async def test_it_keeps_no_session_and_answers_no_call(tmp_path: Path) -> None:
    """Opening a session finds nobody; a call on its running job is refused, not sent."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [capability()])
        await worker.connect()
        with pytest.raises(InvalidRequest) as caught:
            await open_session(desk, tenant=LOCAL_TENANT, subject="local", fields={})
        assert caught.value.error_code == "unsatisfied-capability"
        job = await send(desk, code="1")
        lease = await worker.lease()
        await worker.say(Started(lease.job_id, lease.epoch))

        async def runs() -> bool:
            return str((await find_job(desk, tenant=LOCAL_TENANT, job_id=job.job_id)).status) == "running"

        await until(runs)
        with pytest.raises(NotSupported):
            await interrupt(desk, tenant=LOCAL_TENANT, subject="local", job_id=JobId(lease.job_id))


async def test_sessions_of_a_later_version_are_lost_with_it(tmp_path: Path) -> None:
    """A worker that was set back to version 1 cannot hold the sessions it had: they end and say so."""
    async with open_desk(tmp_path) as desk:
        await desk.store.transact(lambda tx: tx.sessions.insert(sample_session("s1")))
        worker = ScriptedWorker(desk, "w1", [capability()])
        await worker.connect()
        assert await desk.store.read(lambda tx: list(tx.sessions.live())) == []
        (ended,) = await desk.store.read(lambda tx: list(tx.sessions.page(LOCAL_TENANT, limit=9, before=None)))
        assert ended.end is not None
        assert ended.end.reason is SessionReason.WORKER_LOST

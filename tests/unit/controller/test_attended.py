"""Jobs that shall not outlive whoever asked for them, and the moment that is left to come back."""

from dataclasses import replace
from pathlib import Path

import pytest

from crank.controller import follow
from crank.controller.attended import GRACE_SEC, end_unattended, recall
from crank.controller.desk import Desk
from crank.controller.submit import Submission, submit
from crank.controller.views import find_job
from crank.domain.ids import LOCAL_TENANT
from crank.domain.job import Job, Status
from crank.testing.fakes import FakeClock
from crank.wire import Cancel
from tests.support.desk import ScriptedWorker, open_desk
from tests.unit.domain.rules.builders import CORE


async def send(desk: Desk, **fields: object) -> Job:
    """Submit a job."""
    submission = Submission({"code": "print(1)", **fields})
    return (await submit(desk, tenant=LOCAL_TENANT, subject="local", submission=submission)).job


async def test_a_job_ends_when_its_callers_are_gone_for_a_while(tmp_path: Path) -> None:
    """Queued, it is cancelled at once; one that is detached stays."""
    async with open_desk(tmp_path) as real:
        desk = replace(real, clock=FakeClock(), attended={})
        worker = ScriptedWorker(desk, "w1", [CORE], slots=1)
        await worker.connect()
        first = await send(desk)
        await worker.lease()
        waiting = await send(desk, detach=False)
        assert await end_unattended(desk) == 0
        desk.clock.advance(GRACE_SEC)  # type: ignore[attr-defined]
        assert await end_unattended(desk) == 1
        job = await find_job(desk, tenant=LOCAL_TENANT, job_id=waiting.job_id)
        assert job.status is Status.CANCELLED
        assert not (await find_job(desk, tenant=LOCAL_TENANT, job_id=first.job_id)).cancel_requested
        assert await end_unattended(desk) == 0


async def test_a_running_job_is_told_to_end(tmp_path: Path) -> None:
    """Its worker hears of it, and it ends when the worker says so."""
    async with open_desk(tmp_path) as real:
        desk = replace(real, clock=FakeClock(), attended={})
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        job = await send(desk, detach=False)
        lease = await worker.lease()
        desk.clock.advance(GRACE_SEC)  # type: ignore[attr-defined]
        assert await end_unattended(desk) == 1
        assert await worker.link.next(Cancel) == Cancel(job.job_id, lease.epoch)
        await worker.finish(lease)


async def test_whoever_follows_keeps_it_alive(tmp_path: Path) -> None:
    """While its events are followed it stays, however long; the moment begins when the last follower has gone."""
    async with open_desk(tmp_path) as real:
        desk = replace(real, clock=FakeClock(), attended={})
        job = await send_to_nobody(desk)
        following = follow.events(desk, tenant=LOCAL_TENANT, job_id=job.job_id, after=0)
        await anext(following)
        for _ in range(3):
            desk.clock.advance(GRACE_SEC)  # type: ignore[attr-defined]
            assert await end_unattended(desk) == 0
        await following.aclose()  # type: ignore[attr-defined]
        desk.clock.advance(GRACE_SEC / 2)  # type: ignore[attr-defined]
        assert await end_unattended(desk) == 0
        desk.clock.advance(GRACE_SEC / 2)  # type: ignore[attr-defined]
        assert await end_unattended(desk) == 1


async def send_to_nobody(desk: Desk) -> Job:
    """Submit a job whose worker has no free slot."""
    worker = ScriptedWorker(desk, "w1", [CORE], slots=1)
    await worker.connect()
    await send(desk)
    await worker.lease()
    return await send(desk, detach=False)


async def test_a_controller_that_starts_anew_remembers(tmp_path: Path) -> None:
    """What was attended before is looked after again, with a moment to come back."""
    async with open_desk(tmp_path) as real:
        desk = replace(real, clock=FakeClock(), attended={})
        job = await send_to_nobody(desk)
        anew = replace(desk, attended={})
        await recall(anew)
        assert list(anew.attended) == [(LOCAL_TENANT, job.job_id)]
        assert await end_unattended(anew) == 0
        anew.clock.advance(GRACE_SEC)  # type: ignore[attr-defined]
        assert await end_unattended(anew) == 1


@pytest.mark.parametrize("detach", [None, True])
async def test_other_jobs_are_left_alone(tmp_path: Path, detach: bool | None) -> None:
    """A job that nobody waits for goes on, unless it was asked to end with its caller."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        await send(desk, **({} if detach is None else {"detach": detach}))
        assert desk.attended == {}

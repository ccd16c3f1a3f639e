"""Waiting for a job as long as a caller may be kept, and what it is told meanwhile."""

import asyncio

import pytest

from crank.controller.attend import BEAT_SEC, attend
from crank.controller.submit import Submission, submit
from crank.domain.ids import LOCAL_TENANT, JobId
from crank.errors import NotFound
from crank.wire import JobEvent, Output, Started
from tests.support.desk import ScriptedWorker, open_desk
from tests.unit.domain.rules.builders import CORE


async def _begin(desk, worker):
    submission = Submission({"code": "1"})
    job = (await submit(desk, tenant=LOCAL_TENANT, subject="t", submission=submission)).job
    return job, await worker.lease()


@pytest.fixture
async def work(tmp_path):
    """Give a desk with a connected worker."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        yield desk, worker


def _ears():
    told = []

    async def tell(elapsed_sec, message):
        told.append((elapsed_sec, message))

    return told, tell


async def test_an_end_is_told_at_once(work):
    """The wait is over when the job is, long before its time."""
    desk, worker = work
    job, lease = await _begin(desk, worker)
    _, tell = _ears()
    until_sec = desk.clock.monotonic_sec() + 60
    waiting = asyncio.ensure_future(
        attend(desk, tenant=LOCAL_TENANT, job_id=job.job_id, until_sec=until_sec, tell=tell)
    )
    await worker.finish(lease)
    assert (await asyncio.wait_for(waiting, 30)).ended


async def test_a_job_that_goes_on_is_given_as_it_stands(work):
    """When the time is over the job is given unended, and nothing about it changed."""
    desk, worker = work
    job, _ = await _begin(desk, worker)
    _, tell = _ears()
    found = await attend(
        desk, tenant=LOCAL_TENANT, job_id=job.job_id, until_sec=desk.clock.monotonic_sec(), tell=tell
    )
    assert not found.ended
    assert not found.cancel_requested


async def test_news_come_at_every_beat(work, monkeypatch):
    """Each beat tells the last line that was printed; a fraction that the job told of wins over it."""
    assert BEAT_SEC <= 2.0
    monkeypatch.setattr("crank.controller.attend.BEAT_SEC", 0.05)
    desk, worker = work
    job, lease = await _begin(desk, worker)
    await worker.say(Started(lease.job_id, lease.epoch))
    events = [
        JobEvent(lease.epoch, 1, "stdout", "page 1\npage 2\n", 0, None, 1),
        JobEvent(lease.epoch, 2, "progress", "half way", 0, 0.5, 2),
    ]
    told, tell = _ears()
    await worker.say(Output(lease.job_id, lease.epoch, events[:1]))
    until_sec = desk.clock.monotonic_sec() + 60
    waiting = asyncio.ensure_future(
        attend(desk, tenant=LOCAL_TENANT, job_id=job.job_id, until_sec=until_sec, tell=tell)
    )
    async with asyncio.timeout(20):
        while "running: page 2" not in [message for _, message in told]:
            await asyncio.sleep(0.01)
        await worker.say(Output(lease.job_id, lease.epoch, events[1:]))
        while told[-1][1] != "running: 50% half way":
            await asyncio.sleep(0.01)
        await worker.finish(lease)
        assert (await waiting).ended
    assert {message for _, message in told} == {"running: page 2", "running: 50% half way"}


async def test_what_nobody_knows_is_not_waited_for(work):
    """An unknown job is refused at once."""
    desk, _ = work
    _, tell = _ears()
    with pytest.raises(NotFound):
        await attend(desk, tenant=LOCAL_TENANT, job_id=JobId("none"), until_sec=1e9, tell=tell)

"""Lease: the fence that keeps an old attempt from changing a job."""

from crank.domain.ids import InstanceId, WorkerId
from crank.domain.job import Status
from crank.domain.rules.lease import grant, is_current, requeue, start
from tests.unit.domain.rules.builders import job


def test_each_grant_has_a_new_epoch() -> None:
    """A lease that is granted again has a higher epoch, so the first one is dead."""
    first = grant(job(), WorkerId("w"), InstanceId("i"))
    second = grant(requeue(first), WorkerId("w"), InstanceId("i"))
    assert (1, 2) == (first.epoch, second.epoch)
    assert not is_current(second, WorkerId("w"), first.epoch)
    assert is_current(second, WorkerId("w"), second.epoch)


def test_only_the_holder_passes_the_fence() -> None:
    """Another worker with the right epoch changes nothing."""
    assert not is_current(job(Status.RUNNING), WorkerId("other"), 1)


def test_an_ended_job_has_no_current_lease() -> None:
    """Nothing passes the fence of a job that has ended."""
    assert not is_current(job(Status.SUCCEEDED, epoch=1, worker_id=WorkerId("w")), WorkerId("w"), 1)


def test_start_is_noted_once() -> None:
    """A repeated start keeps the first time."""
    first = start(job(Status.LEASED), 5)
    assert (Status.RUNNING, 5) == (first.status, first.started_us)
    assert start(first, 9) == first

"""The right to try a job: what a message under a lease may still change."""

from dataclasses import replace

from crank.domain.ids import InstanceId, WorkerId
from crank.domain.job import HELD, Job, Status, may_move


def grant(job: Job, worker_id: WorkerId, instance_id: InstanceId) -> Job:
    """Lease a queued job to a worker under the next epoch."""
    assert job.status is Status.QUEUED, "only a queued job is leased"
    return replace(
        job,
        status=Status.LEASED,
        epoch=job.epoch + 1,
        attempts=job.attempts + 1,
        worker_id=worker_id,
        instance_id=instance_id,
    )


def is_current(job: Job | None, worker_id: WorkerId, epoch: int) -> bool:
    """Tell whether this worker still holds the lease with this epoch (the fence)."""
    return job is not None and job.status in HELD and job.worker_id == worker_id and job.epoch == epoch


def start(job: Job, at_us: int) -> Job:
    """Note that the job's own code began; a repeated note changes nothing."""
    if not may_move(job.status, Status.RUNNING):
        return job
    return replace(job, status=Status.RUNNING, started_us=at_us)


def requeue(job: Job) -> Job:
    """Give a held job back to the queue; its old epoch is dead from now on."""
    assert may_move(job.status, Status.QUEUED), "only a held job goes back to the queue"
    return replace(job, status=Status.QUEUED, worker_id=None, instance_id=None, started_us=None)

"""Attended: jobs with `detach: false` end when nobody is there for them any more.

Somebody is there while a request waits for the job or follows its events, whoever's it is. When the last one has
gone, a moment is left to come back; then the job is cancelled. A controller that starts anew gives the same moment.
"""

from crank.controller.cancel import cancel
from crank.controller.desk import Desk
from crank.domain.ids import JobId, TenantId
from crank.domain.job import Job
from crank.errors import NotFound
from crank.ports import Transaction

# Long enough for a client to come back with Last-Event-ID, or to ask again with another wait.
GRACE_SEC = 5.0


def attend_to(desk: Desk, job: Job) -> None:
    """Begin to look after a job that was accepted, if it is one that shall not outlive its callers."""
    if not job.request.detach and not job.ended:
        desk.attended[job.tenant, job.job_id] = desk.clock.monotonic_sec()


async def recall(desk: Desk) -> None:
    """Find again, when the controller starts, the jobs that are looked after."""
    for job in await desk.store.read(lambda tx: _open_jobs(tx, desk.policy.queued_max)):
        attend_to(desk, job)


def _open_jobs(tx: Transaction, most: int) -> list[Job]:
    return [*tx.jobs.held(), *tx.jobs.queued(most)]


async def end_unattended(desk: Desk) -> int:
    """Cancel the jobs that nobody has been there for in a while; return how many."""
    now_sec = desk.clock.monotonic_sec()
    left: list[tuple[TenantId, JobId]] = []
    for (tenant, job_id), since_sec in list(desk.attended.items()):
        if desk.watch.has(tenant, job_id):
            desk.attended[tenant, job_id] = now_sec
        elif now_sec - since_sec >= GRACE_SEC:
            left.append((tenant, job_id))
    ended = 0
    for tenant, job_id in left:
        ended += await _end(desk, tenant, job_id)
        # Only now, so that a store that fails here is asked again.
        desk.attended.pop((tenant, job_id), None)
    return ended


async def _end(desk: Desk, tenant: TenantId, job_id: JobId) -> bool:
    job = await desk.store.read(lambda tx: tx.jobs.find(tenant, job_id))
    if job is None or job.ended or job.cancel_requested:
        return False
    try:
        await cancel(desk, tenant=tenant, subject=desk.policy.controller_id, job_id=job_id)
    except NotFound:
        return False
    return True

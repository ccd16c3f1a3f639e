"""Cancel: end a job early, wherever it stands; cancelling an ended job changes nothing."""

from dataclasses import replace

from crank.controller.complete import end_job
from crank.controller.desk import Desk
from crank.domain.ids import JobId, TenantId
from crank.domain.job import Job, Status
from crank.domain.outcome import End, Reason
from crank.errors import NotFound, Unavailable
from crank.ports import Transaction
from crank.wire import Cancel


async def cancel(desk: Desk, *, tenant: TenantId, subject: str, job_id: JobId) -> Job:
    """Cancel and return the job as it stands then; a held one ends when its worker says so. Raises NotFound."""

    def commit(tx: Transaction) -> Job:
        job = tx.jobs.find(tenant, job_id)
        if job is None:
            raise NotFound(f"There is no job {job_id[:128]!r}.", code="job_not_found", field="job_id")
        if job.ended or job.cancel_requested:
            return job
        tx.records.append(desk.record("job.cancel_asked", tenant=tenant, subject=subject, job_id=job_id, facts={}))
        if job.status is Status.QUEUED:
            end = End(Reason.CANCELLED, message="It was cancelled before it was sent to a worker.")
            return end_job(desk, tx, job, end, subject=subject)
        asked = replace(job, cancel_requested=True)
        tx.jobs.update(asked)
        return asked

    job = await desk.store.transact(commit)
    desk.failpoints.reach("cancel.committed")
    desk.watch.changed(tenant, job_id)
    worker = desk.roster.find(job.worker_id)
    if not job.ended and worker is not None:
        try:
            await worker.link.send(Cancel(job_id, job.epoch))
        except Unavailable:
            # It is told again when it enrolls.
            return job
    return job

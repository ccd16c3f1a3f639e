"""Forsake: jobs that another job called for end when that one has ended, or tries again, whatever ended it.

They are looked for, not listed by whoever ends a job: so no way to an end, and no crash on it, leaves one behind.
"""

from crank.controller.cancel import cancel
from crank.controller.desk import Desk
from crank.domain.job import Job
from crank.domain.rules.handle import is_forsaken
from crank.errors import NotFound
from crank.ports import Transaction


async def end_forsaken(desk: Desk) -> int:
    """Cancel every called job that nobody waits for any more; return how many."""
    forsaken = await desk.store.read(_find)
    for job in forsaken:
        try:
            await cancel(desk, tenant=job.tenant, subject=desk.policy.controller_id, job_id=job.job_id)
        except NotFound:
            continue
    return len(forsaken)


def _find(tx: Transaction) -> list[Job]:
    return [
        job
        for job in tx.jobs.called_open()
        if job.called_by is not None
        and not job.cancel_requested
        and is_forsaken(job.called_by, tx.jobs.find(job.tenant, job.called_by.job_id))
    ]

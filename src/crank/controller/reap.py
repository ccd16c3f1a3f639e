"""Reap: leases and sessions of workers that stay away, and what is older than its retention."""

from crank.controller.complete import settle_loss
from crank.controller.desk import Desk
from crank.controller.end_session import lose_sessions
from crank.controller.identities import load_standing
from crank.controller.issue import PURGE_AFTER_US
from crank.controller.use_session import keep_awake
from crank.domain.ids import Digest, WorkerId
from crank.domain.job import HELD, Job
from crank.domain.rules.replay import WINDOW_US
from crank.domain.rules.retry import Loss
from crank.ports import Transaction

SWEEP_JOBS_MAX = 200
# A blob that nothing refers to is left alone this long: it may have been uploaded for a job to come.
ORPHAN_SEC = 3600.0


async def reap(desk: Desk) -> int:
    """Decide about every lease whose worker is away for longer than the lease lasts; return how many."""
    now_sec = desk.clock.monotonic_sec()
    for worker in desk.roster.live():
        if now_sec - worker.beat_at_sec > desk.policy.lease_sec:
            await worker.link.close("silent", "No beat arrived for as long as a lease lasts.")
            desk.roster.leave(worker, worker.beat_at_sec)
    held, sessions = await desk.store.read(lambda tx: (list(tx.jobs.held()), list(tx.sessions.live())))
    await keep_awake(desk, sessions)
    lost = [session for session in sessions if _is_away(desk, session.worker_id, now_sec)]
    overdue = [job for job in held if job.worker_id is not None and _is_away(desk, job.worker_id, now_sec)]
    if overdue:
        await _lose_jobs(desk, overdue)
    # After the jobs that ran in them, so that a job given back to the queue ends with its session.
    await lose_sessions(desk, lost)
    return len(overdue)


async def _lose_jobs(desk: Desk, overdue: list[Job]) -> None:

    def commit(tx: Transaction) -> None:
        for job in overdue:
            current = tx.jobs.find(job.tenant, job.job_id)
            if current is not None and current.status in HELD and current.epoch == job.epoch:
                settle_loss(desk, tx, current, Loss.SILENT)

    await desk.store.transact(commit)
    desk.failpoints.reach("reap.committed")
    for job in overdue:
        desk.watch.changed(job.tenant, job.job_id)
    desk.watch.work.set()


def _is_away(desk: Desk, worker_id: WorkerId, now_sec: float) -> bool:
    return desk.roster.away_sec(worker_id, now_sec) > desk.policy.lease_sec


async def sweep(desk: Desk) -> int:
    """Forget replay keys, old jobs with their streams, and blobs that nothing refers to; return jobs forgotten."""
    now_us = desk.clock.now_us()
    before_us = now_us - int(desk.policy.retention_sec * 1_000_000)

    def forget(tx: Transaction) -> list[Job]:
        tx.replays.purge(now_us - WINDOW_US)
        tx.identities.purge(now_us - PURGE_AFTER_US)
        old = list(tx.jobs.ended_before(before_us, SWEEP_JOBS_MAX))
        for job in old:
            tx.jobs.delete(job.tenant, job.job_id)
        for session in tx.sessions.ended_before(before_us, SWEEP_JOBS_MAX):
            tx.sessions.delete(session.tenant, session.session_id)
        tx.grants.purge(before_us)
        return old

    old = await desk.store.transact(forget)
    # What has expired since is revoked no more: nobody would believe it.
    await load_standing(desk)
    for job in old:
        await desk.streams.remove(job.job_id)
    orphans = desk.blobs.older_than(ORPHAN_SEC)
    used: set[Digest] = await desk.store.read(lambda tx: tx.registry.referred(orphans))
    unused = [digest for digest in orphans if digest not in used]
    for digest in unused:
        desk.blobs.remove(digest)
    if unused:
        await desk.store.transact(lambda tx: tx.credentials.release(unused))
    return len(old)

"""Cut off: a worker that may not be believed any more loses its link, its leases and its sessions, at once."""

import structlog

from crank.controller.complete import settle_loss
from crank.controller.desk import Desk
from crank.controller.end_session import end_session
from crank.controller.roster import LiveWorker
from crank.domain.ids import WorkerId
from crank.domain.job import Job
from crank.domain.rules.retry import Loss
from crank.domain.rules.standing import IDENTITY_REVOKED
from crank.domain.session import SessionEnd, SessionReason
from crank.errors import NotAllowed
from crank.ports import Transaction

_log = structlog.get_logger(__name__)
_REVOKED = SessionEnd(SessionReason.WORKER_LOST, "worker_revoked", "The identity of its worker was revoked.")


async def cut_off_all(desk: Desk) -> int:
    """Close every link whose peer's certificate has expired or was revoked since; return how many.

    A revoked worker's leases go back to the queue, or end truthfully; what it says of them later is of a dead epoch.
    One whose certificate expired keeps them as one that lost its connection does: it may be back with a new one.
    """
    cut = 0
    for worker in desk.roster.live():
        if worker.peer is None:
            continue
        try:
            desk.standing.check(worker.peer, desk.clock.now_us())
        except NotAllowed as fault:
            cut += 1
            await _cut_off(desk, worker, fault)
    return cut


async def _cut_off(desk: Desk, worker: LiveWorker, fault: NotAllowed) -> None:
    worker_id = worker.known.worker_id
    _log.warning("worker_cut_off", worker=worker_id, code=fault.error_code, reason=fault.message)
    # Held by dispatch too: no lease is sent to this link after it.
    async with desk.roster.gate:
        await worker.link.close(fault.error_code, fault.message)
        was_live = desk.roster.leave(worker, desk.clock.monotonic_sec())
        lost = was_live and fault.error_code == IDENTITY_REVOKED
        jobs = await desk.store.transact(lambda tx: _lose_jobs(desk, tx, worker_id)) if lost else []
    desk.failpoints.reach("cut_off.committed")
    for job in jobs:
        desk.watch.changed(job.tenant, job.job_id)
    if lost:
        await _lose_sessions(desk, worker_id)
    desk.watch.work.set()


def _lose_jobs(desk: Desk, tx: Transaction, worker_id: WorkerId) -> list[Job]:
    lost = [job for job in tx.jobs.held() if job.worker_id == worker_id]
    for job in lost:
        settle_loss(desk, tx, job, Loss.REVOKED)
    return lost


async def _lose_sessions(desk: Desk, worker_id: WorkerId) -> None:
    # After its jobs, so that one given back to the queue ends with its session.
    for session in await desk.store.read(lambda tx: list(tx.sessions.live())):
        if session.worker_id == worker_id:
            await end_session(desk, session, _REVOKED, subject=desk.policy.controller_id)

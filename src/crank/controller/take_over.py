"""Take over: a worker's new link follows its older one without a gap; nothing that runs notices.

The new link carries a renewed certificate. Both links stand for a moment, and what was sent by the older one may
still be on its way. So the order is fixed:
 1. from the hello on, nothing that the older link says is acted on, but answers to calls, and calls of jobs
 2. leases that the hello does not name are kept: their messages may be on their way by the older link
 3. the older link is closed; what was queued on it is sent first, and the worker reads it to its end
 4. only then the worker says what it holds (`held`), and what it never got goes back to the queue
"""

from crank.controller.complete import settle_loss
from crank.controller.desk import Desk
from crank.controller.end_session import on_missing
from crank.controller.roster import LiveLease, LiveWorker, lease_of
from crank.domain.ids import LOCAL_TENANT, JobId, SessionId, WorkerId
from crank.domain.job import Job, Status
from crank.domain.rules import lease
from crank.domain.rules.retry import Loss
from crank.errors import Unavailable
from crank.ports import Transaction
from crank.wire import TRUST_SINCE, Held, Hello


async def older_link(desk: Desk, hello: Hello) -> LiveWorker | None:
    """Return the link that this hello renews, fenced from now on (1); None where it renews none.

    Raises Unavailable (`nothing_to_renew`) when the worker means a link that is gone here: it then has to say what
    it holds after it dropped that link, as after every cut.
    """
    if not hello.renews:
        return None
    older = desk.roster.find(WorkerId(hello.worker_id))
    if older is None or older.known.instance_id != hello.instance_id or older.version < TRUST_SINCE:
        raise Unavailable("The link that this one renews is gone.", code="nothing_to_renew")
    return older


def going_on(older: LiveWorker | None, job: Job, next_seq: int) -> LiveLease:
    """Return the lease of a job that a worker holds still: the older link's own, by which open calls are counted."""
    known = None if older is None else older.leases.get(job.job_id)
    if known is None or known.epoch != job.epoch:
        return lease_of(job, next_seq)
    known.next_seq = next_seq
    return known


def carry_over(older: LiveWorker, newer: LiveWorker, carried: list[Job], next_seq: dict[JobId, int]) -> None:
    """Let the new link go on where the older one stood; `carried` are leases that its hello did not name (2)."""
    for job in carried:
        newer.leases[job.job_id] = going_on(older, job, next_seq[job.job_id])
        newer.carried[job.job_id] = job.epoch
    newer.sessions = older.sessions
    newer.asked = set(older.asked)
    newer.carried_sessions = older.asked | (older.sessions or set()) | older.carried_sessions
    newer.pools = older.pools
    newer.draining = older.draining
    newer.paused_until_sec = older.paused_until_sec
    newer.calls, newer.lent, newer.answering = older.calls, older.lent, older.answering
    older.successor = newer


async def on_held(desk: Desk, worker: LiveWorker, message: Held) -> None:
    """Give back what the worker never got, now that it has read its older link to the end (4)."""
    if worker.sessions is None:
        worker.sessions = set()
    if gone := worker.carried_sessions - {SessionId(name) for name in message.sessions}:
        await on_missing(desk, worker, gone)
    worker.carried_sessions = set()
    got = {(JobId(entry.job_id), entry.epoch) for entry in message.holding}
    missing = {job_id: epoch for job_id, epoch in worker.carried.items() if (job_id, epoch) not in got}
    worker.carried = {}
    if not missing:
        return
    await desk.store.transact(lambda tx: _give_back(desk, tx, worker, missing))
    for job_id, epoch in missing.items():
        if (live := worker.leases.get(job_id)) is not None and live.epoch == epoch:
            del worker.leases[job_id]
        desk.watch.changed(LOCAL_TENANT, job_id)
    desk.watch.work.set()


def _give_back(desk: Desk, tx: Transaction, worker: LiveWorker, missing: dict[JobId, int]) -> None:
    for job_id, epoch in missing.items():
        job = tx.jobs.find(LOCAL_TENANT, job_id)
        if job is not None and lease.is_current(job, worker.known.worker_id, epoch):
            # A worker notes a lease durably before it runs any code of it.
            settle_loss(desk, tx, job, Loss.NEVER_BEGUN if job.status is Status.LEASED else Loss.CUT_OFF)

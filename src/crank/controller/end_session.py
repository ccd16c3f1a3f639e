"""End a session: closed by its owner, ended by its worker, or lost with it. The first end holds.

In the transaction that ends it, the jobs that wait for it end too; one that runs is left to its worker, which
says how it ended, or to the reaper.
"""

from dataclasses import replace

from crank.controller.complete import end_job
from crank.controller.desk import Desk
from crank.controller.roster import LiveWorker
from crank.domain.ids import LOCAL_TENANT, JobId, SessionId, TenantId
from crank.domain.job import Status
from crank.domain.job_codec import parse_end
from crank.domain.rules import session as rules
from crank.domain.session import Session, SessionEnd, SessionReason
from crank.errors import NotFound, StoreError, Unavailable
from crank.ports import Transaction
from crank.wire import Close, Ended, Message, Noted, Opened, Sessions


def end_in(desk: Desk, tx: Transaction, session: Session, end: SessionEnd, *, subject: str) -> Session:
    """End a session and the jobs that wait for it, inside a transaction; one that has ended stays as it is."""
    if session.ended:
        return session
    over = rules.ended(session, end, desk.clock.now_us())
    tx.sessions.update(over)
    for job in tx.jobs.of_session(session.session_id):
        if job.status is Status.QUEUED:
            end_job(desk, tx, job, rules.job_end(end), subject=subject)
        elif end.reason is SessionReason.CLOSED:
            tx.jobs.update(replace(job, cancel_requested=True))
    facts = {"session": session.session_id, "reason": str(end.reason), "code": end.code}
    tx.records.append(
        desk.record("session.ended", tenant=session.tenant, subject=subject, job_id=end.job_id, facts=facts)
    )
    return over


async def end_session(desk: Desk, session: Session, end: SessionEnd, *, subject: str) -> Session:
    """End a session that was found before, and wake who waits for it or for its jobs."""

    def commit(tx: Transaction) -> tuple[Session, list[JobId]]:
        current = tx.sessions.find(session.tenant, session.session_id) or session
        waiting = [job.job_id for job in tx.jobs.of_session(session.session_id)]
        return end_in(desk, tx, current, end, subject=subject), waiting

    ended, waiting = await desk.store.transact(commit)
    desk.failpoints.reach("end_session.committed")
    for name in (session.session_id, *waiting):
        desk.watch.changed(session.tenant, name)
    worker = desk.roster.find(session.worker_id)
    if worker is not None and worker.sessions is not None:
        worker.sessions.discard(session.session_id)
    desk.watch.work.set()
    return ended


async def find_session(desk: Desk, *, tenant: TenantId, session_id: SessionId) -> Session:
    """Return a session. Raises NotFound, the same for one that is another tenant's."""
    session = await desk.store.read(lambda tx: tx.sessions.find(tenant, session_id))
    if session is None:
        raise NotFound("There is no such session.", code="session_not_found", field="session")
    return session


async def close_session(desk: Desk, *, tenant: TenantId, subject: str, session_id: SessionId) -> Session:
    """Close a session at once, with the job that runs in it. Closing an ended one changes nothing. Raises NotFound."""
    session = await find_session(desk, tenant=tenant, session_id=session_id)
    if session.ended:
        return session
    closed = await end_session(desk, session, SessionEnd(SessionReason.CLOSED), subject=subject)
    # A worker that is away is told when it says what it holds.
    await tell(desk.roster.find(session.worker_id), Close(session_id))
    return closed


async def tell(worker: LiveWorker | None, message: Message) -> bool:
    """Send a message to a worker that may be away; tell whether it was sent."""
    if worker is None:
        return False
    try:
        await worker.latest.link.send(message)
    except Unavailable:
        return False
    return True


# --- what a worker says ----------------------------------------------------------------------


async def on_opened(desk: Desk, worker: LiveWorker, message: Opened) -> None:
    """Note that a session's sandbox stands; one that nobody wants any more is closed."""
    session_id = SessionId(message.session_id)

    def note(tx: Transaction) -> bool:
        session = tx.sessions.find(LOCAL_TENANT, session_id)
        if session is None or session.ended or session.worker_id != worker.known.worker_id:
            return False
        opened = rules.opened(session, message.tier, desk.clock.now_us())
        if opened is not session:
            tx.sessions.update(opened)
            facts = {"session": session_id, "tier": message.tier}
            subject = str(worker.known.worker_id)
            tx.records.append(
                desk.record("session.opened", tenant=session.tenant, subject=subject, job_id=None, facts=facts)
            )
        return True

    if not await desk.store.transact(note):
        await tell(worker, Close(message.session_id))
        return
    worker.asked.discard(session_id)
    if worker.sessions is not None:
        worker.sessions.add(session_id)
    desk.watch.changed(LOCAL_TENANT, session_id)
    desk.watch.work.set()


async def on_ended(desk: Desk, worker: LiveWorker, message: Ended) -> None:
    """Note the end of a session durably, then let its worker forget it."""
    end = _read_end(message)
    worker.asked.discard(SessionId(message.session_id))
    session = await desk.store.read(lambda tx: tx.sessions.find(LOCAL_TENANT, SessionId(message.session_id)))
    if session is not None and session.worker_id == worker.known.worker_id:
        await end_session(desk, session, end, subject=str(worker.known.worker_id))
    await tell(worker, Noted(message.session_id))


def _read_end(message: Ended) -> SessionEnd:
    # One that cannot be read still ends its session: dropping the link would bring it back for ever.
    try:
        return SessionEnd(
            reason=SessionReason(message.reason),
            code=message.code,
            message=message.message,
            job_id=None if message.job_id is None else JobId(message.job_id),
            job_end=None if message.end is None else parse_end(message.end),
        )
    except (ValueError, StoreError) as fault:
        return SessionEnd(
            SessionReason.CRASHED, "end_unreadable", f"Its worker told an end that cannot be read: {fault}"[:500]
        )


async def on_listed(desk: Desk, worker: LiveWorker, message: Sessions) -> None:
    """Compare what a worker holds with what it should hold: end what it lost, close what nobody wants."""
    standing = {SessionId(one.session_id): one for one in message.opened}
    held = {*standing, *(SessionId(name) for name in message.opening)}
    live = await desk.store.read(lambda tx: tx.sessions.live())
    mine = {session.session_id: session for session in live if session.worker_id == worker.known.worker_id}
    for session_id, session in mine.items():
        if session_id not in held:
            await end_session(desk, session, _LOST, subject=desk.policy.controller_id)
    worker.sessions = set(standing) & set(mine)
    for session_id in held - set(mine):
        await tell(worker, Close(session_id))
    for session_id in worker.sessions.copy():
        await on_opened(desk, worker, standing[session_id])
    desk.watch.work.set()


async def on_missing(desk: Desk, worker: LiveWorker, missing: set[SessionId]) -> None:
    """End sessions that a worker should hold and does not."""
    live = await desk.store.read(lambda tx: tx.sessions.live())
    for session in live:
        if session.session_id in missing and session.worker_id == worker.known.worker_id:
            await end_session(desk, session, _LOST, subject=desk.policy.controller_id)


async def on_unknown(desk: Desk, worker: LiveWorker, job_id: JobId) -> None:
    """End the session of a job whose worker does not know it, though it should."""
    job = await desk.store.read(lambda tx: tx.jobs.find(LOCAL_TENANT, job_id))
    session_id = None if job is None else job.request.session_id
    if session_id is None:
        return
    session = await desk.store.read(lambda tx: tx.sessions.find(LOCAL_TENANT, session_id))
    if session is not None and session.worker_id == worker.known.worker_id:
        await end_session(desk, session, _LOST, subject=desk.policy.controller_id)


async def lose_sessions(desk: Desk, sessions: list[Session]) -> None:
    """End sessions whose worker stayed away for longer than a lease lasts."""
    for session in sessions:
        await end_session(desk, session, _SILENT, subject=desk.policy.controller_id)


_LOST = SessionEnd(
    SessionReason.WORKER_LOST, "worker_restarted", "Its worker came back without it: the worker was restarted."
)
_SILENT = SessionEnd(
    SessionReason.WORKER_LOST, "worker_silent", "Its worker stayed away for longer than a lease lasts."
)

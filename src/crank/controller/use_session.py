"""Use a session: which of its jobs are accepted, and how their ends turn its idle clock."""

from collections.abc import Sequence
from dataclasses import replace

from crank.controller.desk import Desk
from crank.controller.end_session import find_session, tell
from crank.domain.ids import TenantId
from crank.domain.job import Job, Refusal
from crank.domain.json import JsonObject
from crank.domain.quantity import SESSION_JOBS_MAX
from crank.domain.rules import session as rules
from crank.domain.rules.request import Draft
from crank.domain.session import Session, SessionState
from crank.errors import Conflict, InvalidRequest, NotFound, Unavailable
from crank.ports import Transaction
from crank.wire import Touch

# Said once, when the session was opened; a job of it may not say otherwise.
_OF_SESSION = ("accelerator", "gpu_model", "memory_bytes", "attestation")


async def join(desk: Desk, *, tenant: TenantId, draft: Draft, fields: JsonObject) -> tuple[Draft, Session | None]:
    """Complete a draft with what its session fixes; without a session it stays as it is.

    Raises NotFound (`session_not_found`), Conflict (`session_ended`), InvalidRequest (`session_mismatch`).
    """
    if draft.session_id is None:
        return draft, None
    session = await find_session(desk, tenant=tenant, session_id=draft.session_id)
    _check_usable(session)
    wanted = session.request
    for name, value in (("capability", wanted.capability), ("env_profile", wanted.env_profile)):
        if fields.get(name) is not None and fields[name] != value:
            raise _mismatch(name, f"The session runs {value}.")
    for name in ("version", "mounts"):
        if fields.get(name):
            raise _mismatch(name, f"{name} was said when the session was opened.")
    for name in _OF_SESSION:
        if (fields.get("constraints") or {}).get(name) is not None:
            raise _mismatch(f"constraints.{name}", f"{name} was said when the session was opened.")
    joined = replace(
        draft,
        capability=wanted.capability,
        version=wanted.version,
        env_profile=wanted.env_profile,
        accelerator=wanted.accelerator,
        gpu_model=wanted.gpu_model,
        attestation=wanted.attestation,
    )
    return joined, session


def _check_usable(session: Session) -> None:
    refused = rules.refusal(session)
    if refused is not None:
        raise _conflict(refused)


def _conflict(refused: Refusal) -> Conflict:
    return Conflict(refused.message, code=refused.code, field=refused.constraint, fix=refused.fix)


def _mismatch(field: str, cause: str) -> InvalidRequest:
    return InvalidRequest(
        cause, code="session_mismatch", field=field, fix="Leave it out, or open another session that has it."
    )


def admit(desk: Desk, tx: Transaction, job: Job) -> None:
    """Check once more, inside the transaction that accepts a job, that its session takes it; turn the idle clock.

    Raises NotFound, Conflict (`session_ended`), Unavailable (`session_queue_full`).
    """
    if job.request.session_id is None:
        return
    session = tx.sessions.find(job.tenant, job.request.session_id)
    if session is None:
        raise NotFound("There is no such session.", code="session_not_found", field="session")
    _check_usable(session)
    if len(tx.jobs.of_session(session.session_id)) >= SESSION_JOBS_MAX:
        raise Unavailable(
            f"{SESSION_JOBS_MAX} jobs wait for this session already.",
            code="session_queue_full",
            fix="Wait until some have ended; jobs of one session run one after another.",
            retry_after_sec=5,
        )
    tx.sessions.update(rules.used(session, desk.clock.now_us()))


async def touch(desk: Desk, session: Session | None) -> None:
    """Turn the idle clock beside the child too: a job was accepted that may have to wait for its turn."""
    if session is not None:
        await tell(desk.roster.find(session.worker_id), Touch(session.session_id, None, None))


async def keep_awake(desk: Desk, sessions: Sequence[Session]) -> None:
    """Turn the idle clock of every session for which jobs wait, so that a full worker costs nobody a session."""
    ready = [session for session in sessions if session.state is SessionState.OPEN]
    if ready:
        waiting = await desk.store.read(lambda tx: [one for one in ready if tx.jobs.of_session(one.session_id)])
        for session in waiting:
            await touch(desk, session)

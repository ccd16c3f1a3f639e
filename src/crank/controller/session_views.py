"""Views of sessions: read-only answers for the API, as JSON documents."""

from dataclasses import asdict

from crank.controller.desk import Desk
from crank.controller.end_session import find_session
from crank.controller.views import moment
from crank.domain.capability import Capability
from crank.domain.ids import SessionId, TenantId
from crank.domain.job import Job, Status
from crank.domain.json import JsonObject
from crank.domain.session import Session, SessionEnd
from crank.ports import Transaction

_US = 1_000_000


async def session_document(desk: Desk, *, tenant: TenantId, session_id: SessionId) -> JsonObject:
    """Return a session with its clocks and its jobs. Raises NotFound."""
    session = await find_session(desk, tenant=tenant, session_id=session_id)
    return await desk.store.read(lambda tx: _document(desk, tx, session))


async def sessions_page(desk: Desk, *, tenant: TenantId, limit: int, before: str | None) -> JsonObject:
    """Return sessions, newest first, and the cursor of the next page."""

    def read(tx: Transaction) -> JsonObject:
        found = list(tx.sessions.page(tenant, limit=limit + 1, before=before))
        shown = found[:limit]
        return {
            "sessions": [_document(desk, tx, session) for session in shown],
            "next": shown[-1].session_id if len(found) > limit else None,
        }

    return await desk.store.read(read)


def _document(desk: Desk, tx: Transaction, session: Session) -> JsonObject:
    request = session.request
    jobs = [] if session.ended else list(tx.jobs.of_session(session.session_id))
    running = next((job.job_id for job in jobs if job.status is not Status.QUEUED), None)
    return {
        "session_id": session.session_id,
        "name": request.name,
        "state": str(session.state),
        "capability": request.capability,
        "env_profile": request.env_profile,
        "accelerator": None if request.accelerator is None else str(request.accelerator),
        "gpu_model": request.gpu_model,
        "tier": session.tier,
        "worker_id": session.worker_id,
        "mounts": [use.name for use in request.mounts],
        "limits": _limits(desk, session),
        "clocks": _clocks(session, jobs),
        "running_job_id": running,
        "queued_jobs": sum(job.status is Status.QUEUED for job in jobs),
        "created_at": moment(session.created_us),
        "opened_at": moment(session.opened_us),
        "ended_at": moment(session.ended_us),
        "end": _end(session.end),
    }


def _clocks(session: Session, jobs: list[Job]) -> JsonObject:
    """Return the clocks as the controller sees them; the worker beside the sandbox keeps the true ones."""
    request = session.request
    idle_until_us = session.used_us + int(request.idle_sec * _US)
    begun_us = session.opened_us or session.created_us
    return {
        "idle_sec": request.idle_sec,
        "lifetime_sec": request.lifetime_sec,
        "idle_until": None if session.ended or jobs else moment(idle_until_us),
        "lifetime_until": None if session.ended else moment(begun_us + int(request.lifetime_sec * _US)),
    }


def _limits(desk: Desk, session: Session) -> JsonObject:
    capability = _capability(desk, session)
    limits: JsonObject = {} if capability is None else dict(capability.limits)
    ceiling = None if capability is None else capability.memory_bytes
    limits["memory_bytes"] = session.request.memory_bytes or ceiling
    return limits


def _capability(desk: Desk, session: Session) -> Capability | None:
    worker = desk.roster.find(session.worker_id)
    wanted = session.request
    offered = worker.known.capabilities if worker is not None else ()
    return next(
        (one for one in offered if one.name == wanted.capability and one.accelerator == wanted.accelerator), None
    )


def _end(end: SessionEnd | None) -> JsonObject | None:
    if end is None:
        return None
    job_end = None if end.job_end is None else {name: _plain(value) for name, value in asdict(end.job_end).items()}
    return {
        "reason": str(end.reason),
        "code": end.code,
        "message": end.sentence,
        "job_id": end.job_id,
        "job_end": job_end,
    }


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, int) else str(value)

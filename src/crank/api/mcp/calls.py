"""What the tools do: each calls the node's use cases as the HTTP routes do, and waits no longer than a host lets it."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any

from crank.api.mcp import shapes
from crank.api.mcp.errands import Errands
from crank.api.peer import Caller
from crank.controller import browse, views
from crank.controller import cancel as cancelling
from crank.controller.attend import Tell, attend
from crank.controller.desk import Desk
from crank.controller.end_session import close_session
from crank.controller.mounts import list_mounts
from crank.controller.open_session import open_session
from crank.controller.spend import may_call
from crank.controller.submit import Submission, Submitted, claim, submit
from crank.domain.capability import Capability
from crank.domain.ids import JobId, SessionId, parse_job_id, parse_session_id
from crank.domain.json import JsonObject, dumps
from crank.domain.quantity import KIB
from crank.domain.rules import discovery, excerpt, patience
from crank.errors import CrankError, InvalidRequest

# A session's id of this word opens one.
NEW_SESSION = "new"
SCHEMA_BYTES_MAX = 8 * KIB
_CONSTRAINTS = ("timeout_sec", "memory_bytes", "accelerator")


@dataclass(frozen=True, slots=True)
class Told:
    """What a tool answers: the structure, and pictures beside it as (media type, base64)."""

    document: JsonObject
    images: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool: who, since when, and how progress is told."""

    caller: Caller
    tell: Tell
    errands: Errands
    begun_sec: float
    reader: browse.Reader = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reader", browse.Reader(self.caller.tenant, self.caller.subject))

    @property
    def desk(self) -> Desk:
        """Return the desk as the caller's credential sees it."""
        return self.caller.desk

    async def shown(self, job_id: JobId) -> Told:
        """Return a job as it stands."""
        document = await views.job_document(self.desk, tenant=self.caller.tenant, job_id=job_id)
        job = await views.find_job(self.desk, tenant=self.caller.tenant, job_id=job_id)
        step = None if document["end"] is not None else patience.next_step(job.status, job_id)
        return Told(excerpt.excerpt(document, next_step=step), tuple(excerpt.images(document)))

    async def attend(self, job_id: JobId, wait_sec: float | None) -> None:
        """Wait for a job for as long as this call may, or until the node stops. Raises NotFound."""
        until_sec = self.begun_sec + patience.wait_sec(wait_sec)
        work = attend(self.desk, tenant=self.caller.tenant, job_id=job_id, until_sec=until_sec, tell=self.tell)
        waiting = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(self.errands.closing.wait())
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                waiting.result()
        finally:
            for task in (waiting, leaving):
                task.cancel()
            await asyncio.gather(waiting, leaving, return_exceptions=True)


async def run_python(call: Call, asked: shapes.RunPython) -> Told:
    """Run a script to its end, or as far as it comes."""
    fields = _fields(asked)
    fields |= {"code": asked.code, "args": asked.args, "env_profile": asked.profile, "capability": asked.capability}
    fields |= {"session": asked.session, "context": asked.context}
    handles = asked.model_dump(exclude_none=True).get("handles") or ()
    fields["handles"] = [{"kind": "mount" if "mount" in each else "call", **each} for each in handles] or None
    if asked.session != NEW_SESSION:
        return await _start(call, asked, fields)
    kept = {name: value for name, value in fields.items() if name not in ("env_profile", "capability", "mounts")}
    constraints = {"timeout_sec": asked.timeout_sec} if asked.timeout_sec is not None else None
    # An errand: cut off at any moment, it still comes to an id by which the session can be closed.
    opening = call.errands.send(_open(call, asked))
    begun = False
    try:
        session_id = await asyncio.shield(opening)
        begun = True
        return await _start(call, asked, {**kept, "session": session_id, "constraints": constraints})
    except asyncio.CancelledError:
        # A detached script goes on in its session, and so does one whose call the stopping of the node cut off.
        if not (begun and (asked.detach or call.errands.closing.is_set())):
            call.errands.send(_forsake(call, opening))
        raise
    except Exception:
        # A refused script leaves nothing behind, its session neither.
        await asyncio.shield(call.errands.send(_forsake(call, opening)))
        raise


async def call_capability(call: Call, asked: shapes.CallCapability) -> Told:
    """Call a capability to its end, or as far as it comes."""
    fields = {**_fields(asked), "capability": asked.name, "args": asked.args, "version": asked.version}
    try:
        return await _start(call, asked, fields)
    except InvalidRequest as fault:
        if (fault.error_code, fault.field) != ("missing_field", "code"):
            raise
        raise InvalidRequest(
            fault.message, code=fault.error_code, field="name", fix="Use run_python with this capability and your code."
        ) from fault


async def job_wait(call: Call, asked: shapes.JobWait) -> Told:
    """Wait for a job that goes on whatever becomes of this call."""
    job_id = parse_job_id(asked.job_id)
    await call.attend(job_id, asked.wait_sec)
    return await call.shown(job_id)


async def job_cancel(call: Call, asked: shapes.JobCancel) -> Told:
    """Ask for the end of a job."""
    job_id = parse_job_id(asked.job_id)
    await cancelling.cancel(call.desk, tenant=call.caller.tenant, subject=call.caller.subject, job_id=job_id)
    # A running job ends when its worker says so, which takes a moment.
    await call.attend(job_id, 2.0)
    return await call.shown(job_id)


# --- starting --------------------------------------------------------------------------------


def _fields(asked: shapes.Waits) -> JsonObject:
    plain = asked.model_dump(exclude_none=True)
    constraints = {name: plain[name] for name in _CONSTRAINTS if name in plain}
    return {
        "files": plain.get("files"),
        "mounts": plain.get("mounts"),
        "constraints": constraints or None,
        "idempotency_key": asked.idempotency_key,
    }


async def _open(call: Call, asked: shapes.RunPython) -> SessionId:
    plain = asked.model_dump(exclude_none=True)
    fields = {
        "env_profile": asked.profile,
        "capability": asked.capability,
        "mounts": plain.get("mounts"),
        "accelerator": asked.accelerator,
        "memory_bytes": asked.memory_bytes,
    }
    wanted = {name: value for name, value in fields.items() if value is not None}
    if asked.idempotency_key is not None:
        raise InvalidRequest("A new session is new each time.", code="invalid_field", field="idempotency_key",
                             fix="Leave the key out, or name a session that is open.")  # fmt: skip
    session = await open_session(call.desk, tenant=call.caller.tenant, subject=call.caller.subject, fields=wanted)
    return session.session_id


async def _forsake(call: Call, opening: "asyncio.Task[SessionId]") -> None:
    """Close a session as soon as it is open, or stop opening it when the node stops."""
    leaving = asyncio.ensure_future(call.errands.closing.wait())
    await asyncio.wait((opening, leaving), return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    # Without effect on one that is done; otherwise it closes what it began.
    opening.cancel()
    with contextlib.suppress(CrankError, asyncio.CancelledError):
        await close_session(
            call.desk, tenant=call.caller.tenant, subject=call.caller.subject, session_id=await opening
        )


async def _start(call: Call, asked: shapes.Waits, fields: JsonObject) -> Told:
    """Submit and wait. A call that is cut off takes its job along, unless it was to be detached."""
    body = {name: value for name, value in fields.items() if value is not None}
    submission = Submission(body)
    with claim(call.desk, tenant=call.caller.tenant, submission=submission):
        work = submit(call.desk, tenant=call.caller.tenant, subject=call.caller.subject, submission=submission)
        submitting = call.errands.send(work)
        try:
            submitted: Submitted = await asyncio.shield(submitting)
            await call.attend(submitted.job.job_id, asked.wait_sec)
            return await call.shown(submitted.job.job_id)
        except asyncio.CancelledError:
            if not asked.detach and not call.errands.closing.is_set():
                call.errands.send(_give_up(call, submitting))
            raise


async def _give_up(call: Call, submitting: "asyncio.Task[Submitted]") -> None:
    """Cancel the job of a call that nobody waits for any more; a replayed one belongs to an earlier call."""
    try:
        submitted = await submitting
    except CrankError:
        return
    if not submitted.replayed:
        await cancelling.cancel(
            call.desk, tenant=call.caller.tenant, subject=call.caller.subject, job_id=submitted.job.job_id
        )


# --- files -----------------------------------------------------------------------------------


async def list_files(call: Call, asked: shapes.ListFiles) -> Told:
    """List a place, or the mounts that there are."""
    place = _place(asked, needed=False)
    page: dict[str, Any] = {"after": asked.after, "limit": asked.limit}
    if place == "job_id" and asked.path:
        raise InvalidRequest("What a job left is listed whole.", code="invalid_field", field="path", fix="Leave it out.")
    if asked.job_id is not None:
        found = await browse.list_artifacts(call.desk, call.reader, job_id=parse_job_id(asked.job_id), **page)
    elif asked.session is not None:
        session_id = parse_session_id(asked.session)
        found = await browse.list_session(call.desk, call.reader, session_id=session_id, path=asked.path, **page)
    elif asked.mount is not None:
        found = await browse.list_mount(call.desk, call.reader, mount=asked.mount, path=asked.path, **page)
    else:
        found = await _mounts(call, asked)
    return Told(found)


async def _mounts(call: Call, asked: shapes.ListFiles) -> JsonObject:
    known = await list_mounts(call.desk, tenant=call.caller.tenant)
    names = sorted(name for mount in known if (name := mount.name or str(mount.mount_id)) > asked.after)
    files = [{"path": name, "kind": "mount", "size_bytes": None} for name in names[: asked.limit]]
    return {"files": files, "next": names[asked.limit - 1] if len(names) > asked.limit else None}


async def read_file(call: Call, asked: shapes.ReadFile) -> Told:
    """Read a page of a file."""
    place = _place(asked, needed=True)
    page: dict[str, Any] = {"offset_bytes": asked.offset_bytes, "length_bytes": asked.max_bytes}
    if asked.stream is not None and (place != "job_id" or asked.path is not None):
        raise InvalidRequest("stream is read of a job, in place of a path.", code="invalid_field", field="stream",
                             fix="Send job_id and stream, and nothing else.")  # fmt: skip
    if asked.stream is None and not asked.path:
        raise InvalidRequest("A file is read by its path.", code="missing_field", field="path",
                             fix="Call list_files first, and send a path that it names.")  # fmt: skip
    path = asked.path or ""
    if asked.stream is not None:
        job_id = parse_job_id(asked.job_id or "")
        return Told(await browse.read_printed(call.desk, call.reader, job_id=job_id, stream=asked.stream, **page))
    if asked.job_id is not None:
        job_id = parse_job_id(asked.job_id)
        return Told(await browse.read_artifact(call.desk, call.reader, job_id=job_id, path=path, **page))
    if asked.session is not None:
        session_id = parse_session_id(asked.session)
        return Told(await browse.read_session(call.desk, call.reader, session_id=session_id, path=path, **page))
    return Told(await browse.read_mount(call.desk, call.reader, mount=asked.mount or "", path=path, **page))


def _place(asked: shapes.Somewhere, *, needed: bool) -> str | None:
    given = [name for name in ("job_id", "mount", "session") if getattr(asked, name) is not None]
    if len(given) > 1 or (needed and not given):
        raise InvalidRequest(
            "A file lies in a job, a mount or a session.",
            code="invalid_field",
            field=given[1] if given else "job_id",
            fix="Send exactly one of job_id, mount and session.",
        )
    return given[0] if given else None


# --- capabilities ----------------------------------------------------------------------------


async def find_capability(call: Call, asked: shapes.FindCapability) -> Told:
    """Rank what connected workers offer, and the caller may call, by what is asked for."""
    there = [one for worker in call.desk.roster.live() for one in worker.known.capabilities]
    offered = [one for one in there if may_call(call.desk, one.name)]
    found = [_candidate(one) for one in discovery.find(asked.query, offered)]
    if found:
        message = "The best stands first; read the reasons before you choose."
    elif offered:
        message = "Nothing here fits these words. Say it in other words, or write a script for run_python."
    elif there:
        message = "Your key or token allows none of what is offered here. Ask the node's owner for one that does."
    else:
        message = "No worker is connected now, so nothing is offered."
    return Told({"candidates": found, "message": message})


def _candidate(one: discovery.Candidate) -> JsonObject:
    capability: Capability = one.capability
    tool = "run_python with capability" if capability.takes_code else "call_capability with name"
    return {
        "name": capability.name,
        "version": capability.version,
        "summary": capability.summary,
        "why": list(one.why),
        "score": one.score,
        "use": f"{tool}={capability.name}",
        "accelerator": str(capability.accelerator),
        "effects": str(capability.effects),
        "timeout_sec": capability.timeout_sec,
        "input_schema": None if capability.takes_code else _bounded(capability.input_schema),
        "output_schema": None if capability.takes_code else _bounded(capability.output_schema),
    }


def _bounded(schema: JsonObject) -> JsonObject:
    if len(dumps(schema)) <= SCHEMA_BYTES_MAX:
        return schema
    return {"description": "This schema is large; the resource crank://capabilities/{name} holds it."}

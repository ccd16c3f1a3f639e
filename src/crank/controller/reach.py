"""Reach what runs: interrupt a job, write to its stdin, act on the files of a session.

Each is a call over the link of the one worker that holds it: it waits for the answer, and a lost link or a slow
worker is told as such. Interrupts and files act once a call; bytes of stdin that carry their offset are taken once
however often the call is repeated.
"""

import asyncio
import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from crank.controller.desk import Desk
from crank.controller.end_session import find_session
from crank.controller.roster import LiveWorker
from crank.controller.views import find_job
from crank.domain.ids import Digest, JobId, SessionId, TenantId, parse_digest
from crank.domain.job import Job, Status
from crank.domain.json import JsonObject, JsonValue
from crank.domain.quantity import BLOB_BYTES_MAX, STDIN_CALL_BYTES_MAX
from crank.domain.rules import session as rules
from crank.domain.rules.call import fault_of
from crank.domain.rules.request import parse_relative_path
from crank.domain.session import Session, SessionState
from crank.errors import Conflict, InvalidRequest, NotSupported, ProtocolError, TooLarge, Unavailable
from crank.wire import Answered, Files, Interrupt, Message, Stdin

# Calls of one worker that wait for an answer at once.
CALLS_MAX = 64
CALL_SEC = 15.0
# A call whose bytes travel as a blob takes as long as the blob.
FILE_CALL_SEC = 300.0


async def _ask(desk: Desk, worker: LiveWorker, call: Callable[[str], Message], *, limit_sec: float) -> JsonValue:
    """Make a call and return its answer. Raises the fault that the worker tells of, Unavailable."""
    if not worker.knows_sessions:
        raise NotSupported("The worker that holds this is older than this controller.", fix="Update that worker.")
    if len(worker.calls) >= CALLS_MAX:
        raise Unavailable("Too many calls wait for this worker.", code="worker_busy")
    call_id = desk.ids.uuid7()
    waiting: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
    worker.calls[call_id] = waiting
    try:
        async with asyncio.timeout(limit_sec):
            await worker.link.send(call(call_id))
            answer = await waiting
    except TimeoutError as late:
        raise Unavailable(f"The worker did not answer within {limit_sec:g} s.", code="worker_slow") from late
    finally:
        worker.calls.pop(call_id, None)
    if answer.verdict != "done":
        raise fault_of(answer.verdict, answer.code, answer.message)
    return answer.answer


def answered(worker: LiveWorker, message: Answered) -> None:
    """Hand an answer to who waits for it; one that nobody waits for any more is dropped."""
    waiting = worker.calls.get(message.call_id)
    if waiting is not None and not waiting.done():
        waiting.set_result(message)


# --- running jobs ----------------------------------------------------------------------------


async def _running(desk: Desk, tenant: TenantId, job_id: JobId) -> tuple[Job, LiveWorker]:
    job = await find_job(desk, tenant=tenant, job_id=job_id)
    if job.status is not Status.RUNNING:
        raise Conflict(
            f"The job does not run; it is {job.status}.", code="job_not_running", field="job_id",
            fix="Wait until its status is running; an ended job takes nothing.",
        )  # fmt: skip
    worker = desk.roster.find(job.worker_id)
    if worker is None:
        raise Unavailable("The job's worker is not connected now.", code="worker_gone")
    return job, worker


async def interrupt(desk: Desk, *, tenant: TenantId, subject: str, job_id: JobId) -> None:
    """Send SIGINT to the job's code. Raises NotFound, Conflict (`job_not_running`), NotSupported, Unavailable."""
    job, worker = await _running(desk, tenant, job_id)
    await _ask(desk, worker, lambda call_id: Interrupt(call_id, job_id, job.epoch), limit_sec=CALL_SEC)
    record = desk.record("job.interrupted", tenant=tenant, subject=subject, job_id=job_id, facts={"epoch": job.epoch})
    await desk.store.transact(lambda tx: tx.records.append(record))


async def write_stdin(
    desk: Desk, chunk: bytes, *, tenant: TenantId, job_id: JobId, offset_bytes: int | None, end: bool
) -> JsonObject:
    """Send bytes to the stdin of a running job, and say how many it has taken.

    offset_bytes  where these begin: a repeat of bytes that were taken changes nothing

    Raises NotFound, Conflict (`job_not_running`, `stdin_closed`, `stdin_gap`, `stdin_ended`), TooLarge, Unavailable
    (`stdin_full`).
    """
    if len(chunk) > STDIN_CALL_BYTES_MAX:
        raise TooLarge(f"One call takes at most {STDIN_CALL_BYTES_MAX} bytes.", code="stdin_too_large")
    job, worker = await _running(desk, tenant, job_id)
    if not job.request.stdin:
        raise Conflict(
            "This job's stdin is empty.", code="stdin_closed", field="job_id", fix="Submit the job with stdin: true."
        )
    octets = base64.b64encode(chunk).decode()
    answer = await _ask(
        desk, worker, lambda call_id: Stdin(call_id, job_id, job.epoch, octets, offset_bytes, end), limit_sec=CALL_SEC
    )
    if not isinstance(answer, dict):
        raise ProtocolError("A worker answered a write to stdin with something else.")
    return {"taken_bytes": int(answer["taken_bytes"]), "ended": bool(answer["ended"])}


# --- files of a session ----------------------------------------------------------------------


async def _open(desk: Desk, tenant: TenantId, session_id: SessionId) -> tuple[Session, LiveWorker]:
    session = await find_session(desk, tenant=tenant, session_id=session_id)
    refused = rules.refusal(session)
    if refused is not None:
        raise Conflict(refused.message, code=refused.code, field=refused.constraint, fix=refused.fix)
    worker = desk.roster.find(session.worker_id)
    if worker is None or session.state is SessionState.OPENING:
        raise Unavailable("The session is not open yet, or its worker is not connected now.", code="session_not_ready")
    return session, worker


def _path(text: str) -> str:
    return parse_relative_path(text, field="path")


async def list_files(desk: Desk, *, tenant: TenantId, session_id: SessionId, path: str) -> JsonObject:
    """Return what lies in a folder of a session ("" is the topmost). Raises NotFound, Conflict, Unavailable."""
    wanted = _path(path) if path else ""
    _, worker = await _open(desk, tenant, session_id)
    answer = await _ask(
        desk, worker, lambda call_id: Files(call_id, session_id, "list", wanted, None, None), limit_sec=CALL_SEC
    )
    try:
        entries = [
            {
                "path": str(entry["path"]),
                "kind": str(entry["kind"]),
                "size_bytes": int(entry["size_bytes"]),
                "modified_us": int(entry["modified_us"]),
            }
            for entry in answer["files"]
        ]
        return {"files": entries, "truncated": bool(answer["truncated"])}
    except (KeyError, TypeError, ValueError) as fault:
        raise ProtocolError("A worker answered a listing with something else.") from fault


async def get_file(desk: Desk, *, tenant: TenantId, session_id: SessionId, path: str) -> tuple[BinaryIO, int, Digest]:
    """Return a file's bytes, its size and its digest; close what is returned. Raises NotFound, Conflict, Unavailable."""
    wanted = _path(path)
    _, worker = await _open(desk, tenant, session_id)
    answer = await _ask(
        desk, worker, lambda call_id: Files(call_id, session_id, "get", wanted, None, None), limit_sec=FILE_CALL_SEC
    )
    try:
        digest, size_bytes = parse_digest(answer["sha256"]), int(answer["size_bytes"])
        if await asyncio.to_thread(desk.blobs.size, digest) != size_bytes:
            raise ProtocolError("A worker named a file whose bytes did not arrive.")
        return await asyncio.to_thread(desk.blobs.open, digest), size_bytes, digest
    except (KeyError, TypeError, ValueError, InvalidRequest) as fault:
        raise ProtocolError("A worker answered the reading of a file with something else.") from fault


async def put_file(desk: Desk, source: BinaryIO, *, tenant: TenantId, session_id: SessionId, path: str) -> JsonObject:
    """Write a file into a session, in place of what has that path. Raises NotFound, Conflict, TooLarge, Unavailable."""
    wanted = _path(path)
    _, worker = await _open(desk, tenant, session_id)
    digest, size_bytes = await asyncio.to_thread(desk.blobs.put, source, expected=None, bytes_max=BLOB_BYTES_MAX)
    with _lend(worker, digest):
        await _ask(
            desk,
            worker,
            lambda call_id: Files(call_id, session_id, "put", wanted, digest, size_bytes),
            limit_sec=FILE_CALL_SEC,
        )
    return {"path": wanted, "size_bytes": size_bytes, "sha256": digest}


async def remove_file(desk: Desk, *, tenant: TenantId, session_id: SessionId, path: str) -> None:
    """Remove a file, or a folder with everything in it. Raises NotFound, Conflict, Unavailable."""
    wanted = _path(path)
    _, worker = await _open(desk, tenant, session_id)
    await _ask(
        desk, worker, lambda call_id: Files(call_id, session_id, "remove", wanted, None, None), limit_sec=CALL_SEC
    )


@contextmanager
def _lend(worker: LiveWorker, digest: Digest) -> Iterator[None]:
    """Let a worker read one blob while a call is under way."""
    worker.lent[digest] += 1
    try:
        yield
    finally:
        worker.lent[digest] -= 1
        if not worker.lent[digest]:
            del worker.lent[digest]

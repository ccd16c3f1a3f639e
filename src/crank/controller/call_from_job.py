"""Call from a job: from what a job's code asked for, by one of its handles, to a job of its own and its answer.

Steps, marked again in the code:
 1. fence: the worker that asks holds the lease of the job that calls
 2. find the job that was made for this very call before
 3. check the call against the handles in that job's own request (pure), and that its files came with it
 4. submit it for the credential that the calling job belongs to, like any other request
 5. in the transaction that accepts it: fence again, count again, record
 6. let the calling job lend its slot, and wait for the end
 7. let it read what the called job left, and answer
The worker says a call again on every new link until it has the answer, so this holds nothing that a restart could lose.
"""

import asyncio
from dataclasses import dataclass, replace

import structlog

from crank.controller.constraints import satisfies_by
from crank.controller.desk import Desk
from crank.controller.follow import wait_ended
from crank.controller.narrowed import whole
from crank.controller.roster import LiveWorker
from crank.controller.scope import desk_for, desk_for_grant, unknown
from crank.controller.submit import Origin, Submission, submit
from crank.controller.views import find_outcome
from crank.domain.credential import OWNER_SUBJECT, Credential
from crank.domain.grant import Grant, GrantId
from crank.domain.handle import (
    ASKED_CALLS_MAX,
    CALL_FILES_BYTES_MAX,
    CALL_FILES_MAX,
    CALL_RESULT_BYTES_MAX,
    JobCall,
)
from crank.domain.ids import LOCAL_TENANT, CredentialId, JobId, WorkerId, parse_digest
from crank.domain.job import Job, Refusal, Status
from crank.domain.json import JsonObject, JsonValue, dumps
from crank.domain.outcome import Artifact, Outcome
from crank.domain.rules import handle as rules
from crank.domain.rules import lease
from crank.domain.rules.grant import within
from crank.errors import CrankError, InvalidRequest, NotAllowed, Unavailable
from crank.ports import Transaction
from crank.wire.calls import Call, CallAnswer, CallFile

_log = structlog.get_logger(__name__)

# Of one worker: more than its jobs can have open, so only one that is out of order gets there.
CALLS_OF_WORKER_MAX = 1024
_RECORDS_LOOKED_AT = 20
# A job may well run for a day; it is asked again after that.
_WAIT_SEC = 86_400.0
_OWN_FOLDER = ".crank/"


@dataclass(frozen=True, slots=True)
class _Asked:
    """A call with the job that made it, and who that job belongs to."""

    message: Call
    call: JobCall
    caller: Job
    subject: str


def begin_call(desk: Desk, worker: LiveWorker, message: Call) -> None:
    """Work on a call beside the link that it came by; one that is being worked on is not begun again."""
    key = (message.job_id, message.epoch, message.number)
    if key in worker.answering or len(worker.answering) >= CALLS_OF_WORKER_MAX:
        return
    answering = asyncio.create_task(_answer(desk, worker, message))
    worker.answering[key] = answering
    answering.add_done_callback(lambda _: worker.answering.pop(key, None))


async def _answer(desk: Desk, worker: LiveWorker, message: Call) -> None:
    try:
        answer = await call_from_job(desk, worker=worker, message=message)
    except CrankError as fault:
        await _note_refusal(desk, message, fault)
        answer = _refused(message, fault)
    except Exception:  # noqa: BLE001 - the job must hear of it, and the link goes on
        _log.exception("call_defect", job_id=message.job_id, number=message.number)
        answer = _refused(message, Unavailable("The node failed; its log says how.", code="internal_error"))
    try:
        # By the link of now: a worker asks again after a cut, not when its links follow one another.
        await worker.latest.link.send(answer)
    except Unavailable:
        # It is asked again on the worker's next link.
        return


async def call_from_job(desk: Desk, *, worker: LiveWorker, message: Call) -> CallAnswer:
    """Do what a job asks for, once, and return what became of it. Raises what `submit` raises, NotAllowed."""
    asked = await desk.store.read(lambda tx: _look(tx, worker.known.worker_id, message))  # 1
    caller = asked.caller
    made = await desk.store.read(
        lambda tx: tx.jobs.called(caller.tenant, caller.job_id, message.epoch, message.number)  # 2
    )
    if made is None:
        _check(desk, asked)  # 3
        _check_files(desk, worker, message)
        made = await _submit(desk, worker, asked)
        desk.failpoints.reach("call.accepted")
    ended = await _wait(desk, worker, asked, made)  # 6
    return await _told(desk, asked, ended)  # 7


def _look(tx: Transaction, worker_id: WorkerId, message: Call) -> _Asked:
    caller = _fenced(tx, worker_id, message.job_id, message.epoch)
    records = tx.records.page(job_id=caller.job_id, after=0, limit=_RECORDS_LOOKED_AT)
    subjects = [record.subject for _, record in records if record.kind == "job.submitted"]
    call = JobCall(
        number=message.number,
        handle=message.handle,
        capability=message.capability,
        version=message.version,
        args=message.args,
        code=message.code,
        mounts={mount.name: mount.handle for mount in message.mounts},
        handles=tuple(message.handles),
        timeout_sec=message.timeout_sec,
    )
    return _Asked(message, call, caller, subjects[0] if subjects else OWNER_SUBJECT)


def _fenced(tx: Transaction, worker_id: WorkerId, job_id: str, epoch: int) -> Job:
    job = tx.jobs.find(LOCAL_TENANT, JobId(job_id))
    if job is None or not lease.is_current(job, worker_id, epoch) or job.cancel_requested:
        raise NotAllowed("The job that calls is over, or runs elsewhere.", code="caller_ended")
    return job


def _check(desk: Desk, asked: _Asked) -> None:
    if not 1 <= asked.call.number <= ASKED_CALLS_MAX:
        raise InvalidRequest("A call has another number.", code="invalid_field", field="number")
    satisfies = satisfies_by(desk.schemas, desk.clock)
    _pass(rules.call_refusal(asked.caller, asked.call, within=within, satisfies=satisfies))


def _pass(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise NotAllowed(refusal.message, code=refusal.code, field=refusal.constraint, fix=refusal.fix)


def _check_files(desk: Desk, worker: LiveWorker, message: Call) -> None:
    """See that the worker brought each file itself: no name of a blob opens what somebody else left."""
    if len(message.files) > CALL_FILES_MAX or sum(file.size_bytes for file in message.files) > CALL_FILES_BYTES_MAX:
        raise InvalidRequest("The files of a call are too many, or too large.", code="files_too_large", field="files")
    for file in message.files:
        digest = parse_digest(file.sha256, field="files")
        if not desk.roster.has_brought(worker.known.worker_id, digest) or desk.blobs.size(digest) != file.size_bytes:
            raise InvalidRequest("A file of the call did not arrive.", code="blob_not_found", field="files")


async def _submit(desk: Desk, worker: LiveWorker, asked: _Asked) -> Job:
    caller, by = asked.caller, rules.called_by(asked.caller, asked.call)
    seen = await _desk_of(desk, caller)
    await desk.store.transact(lambda tx: _hold(desk, tx, asked))
    origin = Origin(by, rules.passed_on(caller, asked.call), lambda tx, made: _admit(desk, tx, worker, asked, made))
    submitted = await submit(  # 4
        seen,
        tenant=caller.tenant,
        subject=asked.subject,
        submission=Submission(_fields(asked), traceparent=caller.request.traceparent),
        origin=origin,
    )
    return submitted.job


async def _desk_of(desk: Desk, caller: Job) -> Desk:
    """Return the desk on which requests of the calling job's token or key are served. Raises NotAuthenticated.

    So a token covers and counts each call anew, whatever the handles say: nobody handed over more than they held.
    """

    def find(tx: Transaction) -> tuple[GrantId | None, Grant | None, Credential | None]:
        grant_id = tx.grants.noted(caller.tenant, caller.job_id)
        grant = None if grant_id is None else tx.grants.find(caller.tenant, grant_id)
        owner = caller.owner if grant is None else grant.credential_id
        return grant_id, grant, None if owner is None else tx.credentials.find(caller.tenant, owner)

    grant_id, grant, credential = await desk.store.read(find)
    if grant_id is None and caller.owner is None:
        return desk
    if credential is None or (grant_id is not None and grant is None):
        raise unknown()
    return desk_for(desk, credential) if grant is None else desk_for_grant(desk, credential, grant)


def _hold(desk: Desk, tx: Transaction, asked: _Asked) -> None:
    """Note that the files came from a job of this credential."""
    for file in asked.message.files if asked.caller.owner is not None else ():
        tx.credentials.hold(CredentialId(asked.caller.owner or ""), parse_digest(file.sha256), desk.clock.now_us())


def _fields(asked: _Asked) -> JsonObject:
    call, held = asked.call, {handle.name: handle for handle in asked.caller.request.handles}
    right = held[call.handle].right
    mounts = [{"name": name, "mount": held[handle].mount_id} for name, handle in call.mounts.items()]
    # What a job may only tell a machine of some level, it does not tell another one by calling.
    level = asked.caller.request.attestation
    limits = {"timeout_sec": call.timeout_sec, "attestation": None if level is None else level.label}
    fields: dict[str, JsonValue] = {
        "capability": call.capability,
        "version": call.version or (right.version if right is not None else None),
        "args": call.args,
        "code": call.code,
        "files": [{"path": file.path, "sha256": file.sha256} for file in asked.message.files] or None,
        "mounts": mounts or None,
        "constraints": {name: limit for name, limit in limits.items() if limit is not None} or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _admit(desk: Desk, tx: Transaction, worker: LiveWorker, asked: _Asked, made_id: JobId) -> Job | None:  # 5
    # The tree is counted whole, whatever the token behind the calling job may still see of it.
    tx, by = whole(tx), rules.called_by(asked.caller, asked.call)
    caller = _fenced(tx, worker.known.worker_id, by.job_id, by.epoch)
    made = tx.jobs.called(caller.tenant, by.job_id, by.epoch, by.number)
    if made is not None:
        return made
    _pass(rules.count_refusal(caller, by, tx.jobs.calls(caller.tenant, by.root), _way_up(tx, caller)))
    facts: JsonObject = {
        "handle": by.handle, "capability": asked.call.capability, "epoch": by.epoch, "number": by.number, "depth": by.depth,
        "called": made_id, "passed_on": list(asked.call.handles),
    }  # fmt: skip
    tx.records.append(
        desk.record("job.called", tenant=caller.tenant, subject=str(worker.known.worker_id), job_id=by.job_id, facts=facts)
    )
    return None


def _way_up(tx: Transaction, caller: Job) -> list[Job]:
    """Return the calling job and all above it that passed the handle down: whatever a called job holds came from its caller."""
    way = [caller]
    while (by := way[-1].called_by) is not None and (above := tx.jobs.find(caller.tenant, by.job_id)) is not None:
        way.append(above)
    return way


async def _wait(desk: Desk, worker: LiveWorker, asked: _Asked, made: Job) -> Job:
    held = worker.leases.get(asked.caller.job_id)
    lends = held is not None and held.epoch == asked.message.epoch
    if held is not None and lends:
        held.open += 1
        desk.watch.work.set()
    try:
        while not made.ended:
            made = await wait_ended(desk, tenant=made.tenant, job_id=made.job_id, timeout_sec=_WAIT_SEC)
        return made
    finally:
        if held is not None and lends:
            held.open -= 1


# --- the answer --------------------------------------------------------------------------------


async def _told(desk: Desk, asked: _Asked, made: Job) -> CallAnswer:
    outcome = await find_outcome(desk, made)
    files, left_out = _files(outcome)
    caller, epoch = asked.caller, asked.message.epoch
    if files:
        digests = [parse_digest(file.sha256) for file in files]

        def refer(tx: Transaction) -> None:
            # A reference to a job that is over would keep bytes for nobody.
            if (job := tx.jobs.find(caller.tenant, caller.job_id)) is not None and job.epoch == epoch and not job.ended:
                tx.registry.refer(caller.tenant, caller.job_id, digests)

        await desk.store.transact(refer)
    answer = CallAnswer(
        job_id=asked.message.job_id,
        epoch=epoch,
        number=asked.message.number,
        verdict="done" if made.status is Status.SUCCEEDED else "failed",
        status=str(made.status),
        reason=None if made.end is None else str(made.end.reason),
        code=None if made.end is None else made.end.code,
        message=None if made.end is None else made.end.message,
        fix=None,
        has_result=outcome is not None and outcome.has_result,
        result=outcome.result if outcome is not None and outcome.has_result else None,
        files=files,
        left_out=left_out,
    )
    fix = "Let it write a file to /out and return the name."
    if answer.verdict == "done" and not answer.has_result and answer.message:
        # It had one that its own sandbox did not keep; nothing must not be taken for it.
        return replace(answer, verdict="failed", code="result_not_kept", fix=fix)
    if len(dumps(answer.result).encode()) > CALL_RESULT_BYTES_MAX:
        message = f"The called job succeeded, but its result is larger than {CALL_RESULT_BYTES_MAX} bytes."
        return replace(answer, verdict="failed", code="result_too_large", message=message, fix=fix, has_result=False, result=None)
    return answer


def _files(outcome: Outcome | None) -> tuple[list[CallFile], int]:
    """Return what the called job left and can be handed over, and how many of its files cannot."""
    left: tuple[Artifact, ...] = () if outcome is None else outcome.artifacts
    own = [artifact for artifact in left if not artifact.path.startswith(_OWN_FOLDER)]
    files: list[CallFile] = []
    room = CALL_FILES_BYTES_MAX
    for artifact in own:
        if len(files) < CALL_FILES_MAX and artifact.size_bytes <= room:
            room -= artifact.size_bytes
            files.append(CallFile(artifact.path, artifact.sha256, artifact.size_bytes))
    return files, len(own) - len(files)


def _refused(message: Call, fault: CrankError) -> CallAnswer:
    return CallAnswer(
        job_id=message.job_id,
        epoch=message.epoch,
        number=message.number,
        verdict="refused",
        status=None,
        reason=None,
        code=fault.error_code,
        message=fault.message,
        fix=fault.fix,
        has_result=False,
        result=None,
        files=[],
        left_out=0,
    )


async def _note_refusal(desk: Desk, message: Call, fault: CrankError) -> None:
    """Leave a record of a refused call; many of one job within a minute are one, with a count."""
    job_id = JobId(message.job_id)
    count = desk.refused_calls.refusals_to_record(job_id, fault.error_code, desk.clock.monotonic_sec())
    if not count:
        return
    facts: JsonObject = {"code": fault.error_code, "handle": message.handle[:80], "count": count}
    record = desk.record("call.refused", tenant=LOCAL_TENANT, subject=desk.policy.controller_id, job_id=job_id, facts=facts)
    try:
        await desk.store.transact(lambda tx: tx.records.append(record))
    except CrankError as full:
        _log.error("call_refusal_not_recorded", code=full.error_code)

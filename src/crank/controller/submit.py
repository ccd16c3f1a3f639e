"""Submit: from a checked body to an accepted job, or a refusal that leaves nothing behind.

Steps, marked again in the code:
 1. read the request into a draft
 2. find what it was used for before (idempotency)
 3. complete it with what its session fixes; resolve its mounts on this node, and what it hands over; see that the
    caller's grant covers it
 4. find who could ever run it; refuse at once when nobody can
 5. check it against the capability's own terms
 6. keep its files as blobs, of which those named by hash must be the caller's to use, and add what an earlier job of
    the same caller kept for it
 7. admit it: job, what it uses of a grant, replay key, blob references and record in one transaction
 8. begin to look after one that shall not outlive its caller, and wake the dispatcher
Authentication came before (the tenant is proven); money and policy join at 4 and 7 later.
"""

import asyncio
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from crank.controller.access import check_job_id, may_use_blob
from crank.controller.attended import attend_to
from crank.controller.desk import Desk
from crank.controller.earlier import OWN_FOLDER, find_kept
from crank.controller.hand_over import hand_over, resolve_mounts
from crank.controller.narrowed import space_of
from crank.controller.spend import Checked, accept, check_granted, look_up, mounts_of, named, spend
from crank.controller.use_session import admit, join, touch
from crank.domain.capability import Capability
from crank.domain.handle import CalledBy, Handle
from crank.domain.identity import make_spiffe_id
from crank.domain.ids import Digest, JobId, TenantId
from crank.domain.job import InputFile, Job, JobRequest, Mount, MountUse, Refusal, Status
from crank.domain.json import JsonObject
from crank.domain.quantity import BLOB_BYTES_MAX
from crank.domain.rules import placement, replay
from crank.domain.rules.grant import Call
from crank.domain.rules.request import Draft, parse_idempotency_key, parse_request, request_digest
from crank.domain.session import Session
from crank.domain.worker import KnownWorker, Replay
from crank.errors import Conflict, InvalidRequest, NotSupported, Unavailable
from crank.ports import Transaction


@dataclass(frozen=True, slots=True)
class Submission:
    """One request: its body, parsed strictly and checked for types, and what came in headers."""

    fields: JsonObject
    idempotency_key: str | None = None
    traceparent: str | None = None

    @property
    def key(self) -> str | None:
        """Return the idempotency key from the header or the body. Raises InvalidRequest when they differ."""
        inside = self.fields.get("idempotency_key")
        if inside is not None and self.idempotency_key is not None and inside != self.idempotency_key:
            raise InvalidRequest(
                "The Idempotency-Key header and the body's idempotency_key differ.",
                code="idempotency_mismatch",
                field="idempotency_key",
            )
        key = self.idempotency_key if self.idempotency_key is not None else inside
        return None if key is None else parse_idempotency_key(key)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a job comes from that the code of another one called for.

    handles  what it has in its hand: never more than the calling job has in its own
    admit    looked at in the transaction that accepts it, with its id: returns the job that was made for this call already,
             or raises
    """

    called_by: CalledBy
    handles: tuple[Handle, ...]
    admit: Callable[[Transaction, JobId], Job | None]


@dataclass(frozen=True, slots=True)
class Submitted:
    """The job, and whether it had been accepted by an earlier, equal request."""

    job: Job
    replayed: bool


@contextmanager
def claim(desk: Desk, *, tenant: TenantId, submission: Submission) -> Iterator[None]:
    """Hold the request's key and job id until its answer is out; see `Flights.claim` for what it raises."""
    names = []
    if submission.key is not None:
        names.append(f"key {submission.key}")
    if submission.fields.get("job_id") is not None:
        names.append(f"job {submission.fields['job_id']}")
    with desk.flights.claim(space_of(desk.asker, tenant), names, request_digest(submission.fields)):
        yield


async def submit(
    desk: Desk, *, tenant: TenantId, subject: str, submission: Submission, origin: Origin | None = None
) -> Submitted:
    """Accept a job once.

    origin  where it comes from, when another job called for it

    Raises InvalidRequest (also `unsatisfied-capability`, `no-local-satisfier`, `idempotency_mismatch`),
    NotSupported, TooLarge, Conflict, NotAllowed, Unavailable (`queue_full`, `disk_full`).
    """
    draft = parse_request(submission.fields)  # 1
    check_job_id(desk, draft.job_id)
    digest = request_digest(submission.fields)
    key = submission.key
    if key is not None or draft.job_id is not None:  # 2
        earlier = await desk.store.read(lambda tx: _earlier(desk, tx, tenant, key, draft.job_id, digest))
        if earlier is not None:
            return Submitted(earlier, replayed=True)
    draft, session = await join(desk, tenant=tenant, draft=draft, fields=submission.fields)  # 3
    mounts, call = await look_up(desk, draft.capability, lambda tx: _resolve(tx, tenant, draft, session))
    handles = origin.handles if origin is not None else await hand_over(
        desk, tenant=tenant, capability=draft.capability, drafts=draft.handles
    )
    checked = await check_granted(desk, call)
    capability = await _who_could(desk, subject, draft, mounts, tenant=tenant, session=session)  # 4
    _check_terms(desk, draft, capability)  # 5
    await _check_blobs(desk, draft)  # 6
    files = await asyncio.to_thread(_keep_files, desk, draft) if draft.files else ()
    files += await find_kept(
        desk,
        tenant=tenant,
        subject=subject,
        capability=capability,
        args=draft.args,
        mounts=mounts,
        called=origin is not None,
    )
    job = Job(
        job_id=draft.job_id or JobId(desk.ids.uuid7()),
        tenant=tenant,
        request=replace(_request(draft, capability, files, mounts, submission.traceparent), handles=handles),
        request_digest=digest,
        status=Status.QUEUED,
        epoch=0,
        attempts=0,
        submitted_us=desk.clock.now_us(),
        called_by=None if origin is None else origin.called_by,
    )
    desk.failpoints.reach("submit.before_commit")

    def commit(tx: Transaction) -> Submitted:
        made = None if origin is None else origin.admit(tx, job.job_id)
        return Submitted(made, replayed=True) if made is not None else _admit(desk, tx, job, key, subject, checked)

    submitted = await accept(desk, call.capability, commit)  # 7
    desk.failpoints.reach("submit.committed")
    attend_to(desk, submitted.job)  # 8
    desk.watch.work.set()
    await touch(desk, session)
    return submitted


def _earlier(
    desk: Desk, tx: Transaction, tenant: TenantId, key: str | None, job_id: JobId | None, digest: Digest
) -> Job | None:
    now_us = desk.clock.now_us()
    verdicts: list[replay.Fresh | replay.Repeated | Refusal] = []
    if key is not None:
        verdicts.append(replay.by_key(tx.replays.find(tenant, key), digest, now_us))
    if job_id is not None:
        verdicts.append(replay.by_job_id(tx.jobs.find(tenant, job_id), digest, now_us))
    for verdict in verdicts:
        if isinstance(verdict, Refusal):
            kind = Conflict if verdict.code == "job_id_taken" else InvalidRequest
            raise kind(verdict.message, code=verdict.code, field=verdict.constraint, fix=verdict.fix)
    for verdict in verdicts:
        if isinstance(verdict, replay.Repeated):
            return tx.jobs.find(tenant, verdict.job_id)
    return None


async def _who_could(
    desk: Desk, subject: str, draft: Draft, mounts: dict[str, Mount], *, tenant: TenantId, session: Session | None
) -> Capability:
    request = _request(draft, None, (), mounts, None)
    nodes = frozenset(mount.node_id for mount in mounts.values())
    live = {worker.known.worker_id for worker in desk.roster.live()}
    since_us = desk.clock.now_us() - int(desk.policy.known_worker_sec * 1_000_000)
    known = await desk.store.read(lambda tx: tx.registry.workers())
    offers = [
        offer
        for worker in known
        if (session is None or worker.worker_id == session.worker_id)
        if worker.worker_id in live or (worker.seen_us >= since_us and not _is_revoked(desk, worker))
        for offer in placement.offers_of(worker, 1)
    ]
    able = placement.satisfiers(request, offers, nodes, floor=desk.policy.attestation_min)
    if not isinstance(able, Refusal):
        return min(able, key=lambda offer: offer.capability.accelerator).capability
    facts = {"code": able.code, "constraint": able.constraint, "capability": draft.capability}
    record = desk.record("job.refused", tenant=tenant, subject=subject, job_id=None, facts=facts)
    await desk.store.transact(lambda tx: tx.records.append(record))
    raise InvalidRequest(able.message, code=able.code, field=_field(able), fix=able.fix)


def _is_revoked(desk: Desk, worker: KnownWorker) -> bool:
    """Tell whether a worker that is away cannot come back, so that no job waits for it."""
    return desk.standing.is_banned(make_spiffe_id(desk.policy.trust_domain, "worker", worker.worker_id))


def _field(refusal: Refusal) -> str | None:
    inside = {"accelerator", "gpu_model", "timeout_sec", "memory_bytes", "attestation"}
    return f"constraints.{refusal.constraint}" if refusal.constraint in inside else refusal.constraint


def _check_terms(desk: Desk, draft: Draft, capability: Capability) -> None:
    if (draft.max_output_bytes or 0) > desk.policy.output_bytes_max:
        raise InvalidRequest(
            f"This node keeps at most {desk.policy.output_bytes_max} bytes of each output stream.",
            code="limit_out_of_range",
            field="constraints.max_output_bytes",
            fix="Ask for less, or write the output to a file in /out.",
        )
    if capability.takes_code and draft.code is None and draft.program is None:
        raise InvalidRequest(
            f"{capability.name} runs a script or a program, and the request has neither.",
            code="missing_field",
            field="code",
        )
    if not capability.takes_code:
        _check_function(desk, draft, capability)


def _check_function(desk: Desk, draft: Draft, capability: Capability) -> None:
    takes = "args, files and mounts" if capability.takes_files else "args"
    if draft.handles:
        raise NotSupported(f"{capability.name} is a function, and only scripts take handles yet.", field="handles")
    for name, given in (("code", draft.code), ("program", draft.program), ("stdin", draft.stdin or None)):
        if given is not None:
            raise InvalidRequest(
                f"{capability.name} is a function; it takes {takes} and no {name}.", code="invalid_field", field=name
            )
    if (draft.files or draft.mounts) and not capability.takes_files:
        raise InvalidRequest(
            f"{capability.name} is a function; it takes args, and no files or mounts.",
            code="invalid_field",
            field="files" if draft.files else "mounts",
        )
    for position, file in enumerate(draft.files):
        if file.path.split("/")[0].casefold() == OWN_FOLDER:
            raise InvalidRequest(
                f"The folder {OWN_FOLDER} is Crank's own.", code="invalid_path", field=f"files.{position}.path"
            )
    # A capability that takes files may well be asked for with them alone.
    args = {} if draft.args is None and capability.takes_files else draft.args
    problems = desk.schemas.check(capability.input_schema, args, field="args")
    if problems:
        raise InvalidRequest(
            f"args do not fit what {capability.name} takes.",
            code="invalid_args",
            field=problems[0].field,
            problems=problems,
        )


async def _check_blobs(desk: Desk, draft: Draft) -> None:
    """Refuse a blob that is not the caller's to use as one that is not there."""
    for position, file in enumerate(draft.files):
        if file.sha256 is not None and not await may_use_blob(desk, file.sha256):
            raise _no_blob(position)


def _no_blob(position: int) -> InvalidRequest:
    return InvalidRequest(
        "There is no blob with this SHA-256.",
        code="blob_not_found",
        field=f"files.{position}.sha256",
        fix="Upload it first with PUT /v1/blobs/<sha256>.",
    )


def _keep_files(desk: Desk, draft: Draft) -> tuple[InputFile, ...]:
    kept = []
    for position, file in enumerate(draft.files):
        if file.content is not None:
            digest, size = desk.blobs.put(io.BytesIO(file.content), expected=None, bytes_max=BLOB_BYTES_MAX)
            kept.append(InputFile(file.path, digest, size))
            continue
        assert file.sha256 is not None, "a draft file has content or a digest"
        stored_bytes = desk.blobs.size(file.sha256)
        if stored_bytes is None:
            raise _no_blob(position)
        kept.append(InputFile(file.path, file.sha256, stored_bytes))
    return tuple(kept)


def _request(
    draft: Draft,
    capability: Capability | None,
    files: tuple[InputFile, ...],
    mounts: dict[str, Mount],
    traceparent: str | None,
) -> JobRequest:
    return JobRequest(
        capability=draft.capability,
        version=draft.version,
        env_profile=capability.env_profile if capability else draft.env_profile,
        accelerator=draft.accelerator,
        gpu_model=draft.gpu_model,
        timeout_sec=draft.timeout_sec,
        max_output_bytes=draft.max_output_bytes,
        memory_bytes=draft.memory_bytes,
        cpu_sec=draft.cpu_sec,
        idle_sec=draft.idle_sec,
        no_output_sec=draft.no_output_sec,
        code=draft.code,
        args=draft.args,
        files=files,
        mounts=tuple(MountUse(name, mount.mount_id) for name, mount in mounts.items()),
        effects=draft.effects if capability is None or capability.takes_code else capability.effects,
        route=draft.route,
        traceparent=traceparent,
        session_id=draft.session_id,
        context=draft.context,
        program=draft.program,
        stdin=draft.stdin,
        detach=draft.detach,
        attestation=draft.attestation,
    )


def _resolve(
    tx: Transaction, tenant: TenantId, draft: Draft, session: Session | None
) -> tuple[dict[str, Mount], Call]:
    """Return the mounts and what a grant must cover: in a session, also the mounts that the job will find there."""
    mounts = resolve_mounts(tx, tenant, draft.mounts)
    held = mounts_of(mounts.values()) if session is None else named(tx, tenant, session.request.mounts)
    has_code = draft.code is not None or draft.program is not None or draft.stdin or session is not None
    return mounts, Call(draft.capability, draft.version, draft.args, held, has_code)


def _admit(desk: Desk, tx: Transaction, job: Job, key: str | None, subject: str, checked: Checked) -> Submitted:
    # Looked up again inside the transaction: two equal requests may have passed step 2 together.
    wanted_id = job.job_id if tx.jobs.find(job.tenant, job.job_id) else None
    earlier = _earlier(desk, tx, job.tenant, key, wanted_id, job.request_digest)
    if earlier is not None:
        return Submitted(earlier, replayed=True)
    if tx.jobs.count(Status.QUEUED) >= desk.policy.queued_max:
        raise Unavailable(
            f"{desk.policy.queued_max} jobs are waiting already.",
            code="queue_full",
            fix="Try again after the time in Retry-After.",
            retry_after_sec=5,
        )
    admit(desk, tx, job)
    spend(desk, tx, checked, used_for=job.job_id, cost=job.hold)
    tx.jobs.insert(job)
    if key is not None:
        tx.replays.put(Replay(job.tenant, key, job.request_digest, job.job_id, job.submitted_us))
    if job.request.files:
        tx.registry.refer(job.tenant, job.job_id, [file.sha256 for file in job.request.files])
    facts = {"capability": job.request.capability, "request_sha256": job.request_digest}
    tx.records.append(desk.record("job.submitted", tenant=job.tenant, subject=subject, job_id=job.job_id, facts=facts))
    return Submitted(job, replayed=False)

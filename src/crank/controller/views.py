"""Views: read-only answers for the API, as JSON documents."""

import asyncio
import hashlib
from dataclasses import asdict
from datetime import UTC, datetime

from crank.controller.access import authorise
from crank.controller.desk import Desk
from crank.domain.capability import capability_document
from crank.domain.handle import CalledBy
from crank.domain.ids import JobId, TenantId, WorkerId
from crank.domain.job import Job, Mount, Status
from crank.domain.json import JsonObject, loads_strict
from crank.domain.outcome import End, Outcome, Stream
from crank.domain.outcome_codec import parse_outcome
from crank.domain.quantity import BLOB_BYTES_MAX
from crank.domain.rules import placement
from crank.domain.rules.access import Action
from crank.errors import NotFound

_DOCUMENT_DEPTH_MAX = 128


def moment(at_us: int | None) -> str | None:
    """Return a time as ISO 8601 in UTC with microseconds."""
    if at_us is None:
        return None
    return datetime.fromtimestamp(at_us / 1_000_000, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


async def find_job(desk: Desk, *, tenant: TenantId, job_id: JobId) -> Job:
    """Return a job. Raises NotFound, the same for one that is another tenant's."""
    job = await desk.store.read(lambda tx: tx.jobs.find(tenant, job_id))
    if job is None:
        raise NotFound(f"There is no job {job_id[:128]!r}.", code="job_not_found", field="job_id")
    return job


async def find_outcome(desk: Desk, job: Job) -> Outcome | None:
    """Return how the job's attempt ended, or None when it left nothing."""
    if job.outcome is not None:
        return parse_outcome(job.outcome)
    if job.outcome_blob is None:
        return None
    digest = job.outcome_blob
    kept = desk.shelf.find(digest)
    if kept is not None:
        return kept

    def read() -> bytes:
        with desk.blobs.open(digest) as source:
            return source.read(BLOB_BYTES_MAX)

    octets = await asyncio.to_thread(read)
    outcome = parse_outcome(loads_strict(octets, depth_max=_DOCUMENT_DEPTH_MAX))
    desk.shelf.keep(digest, outcome, len(octets))
    return outcome


async def job_document(desk: Desk, *, tenant: TenantId, job_id: JobId) -> JsonObject:
    """Return the whole job. Raises NotFound."""
    job = await find_job(desk, tenant=tenant, job_id=job_id)
    outcome = await find_outcome(desk, job)
    mounts: list[Mount] = []
    if job.status is Status.QUEUED and job.request.mounts:
        mounts = await desk.store.read(lambda tx: list(tx.registry.mounts(tenant)))
    return {**_head(desk, job, mounts), **_tail(outcome)}


def _head(desk: Desk, job: Job, mounts: list[Mount]) -> JsonObject:
    request = job.request
    return {
        "job_id": job.job_id,
        "status": str(job.status),
        "capability": request.capability,
        "version": request.version,
        "env_profile": request.env_profile,
        "accelerator": None if request.accelerator is None else str(request.accelerator),
        "effects": str(request.effects),
        "session_id": request.session_id,
        "context": request.context,
        "mounts": [asdict(use) for use in request.mounts],
        "submitted_at": moment(job.submitted_us),
        "started_at": moment(job.started_us),
        "ended_at": moment(job.ended_us),
        "attempts": job.attempts,
        "epoch": job.epoch,
        "worker_id": job.worker_id,
        "cancel_requested": job.cancel_requested,
        "called_by": None if job.called_by is None else _caller(job.called_by),
        "handles": [handle.name for handle in request.handles],
        "pending": _pending(desk, job, mounts),
        "end": None if job.end is None else _end(job.end),
    }


def _caller(by: CalledBy) -> JsonObject:
    return {"job_id": by.job_id, "epoch": by.epoch, "number": by.number, "handle": by.handle}


def _pending(desk: Desk, job: Job, mounts: list[Mount]) -> str | None:
    if job.status is not Status.QUEUED:
        return None
    wanted = {use.mount_id for use in job.request.mounts}
    nodes = frozenset(mount.node_id for mount in mounts if mount.mount_id in wanted)
    free = desk.roster.offers(desk.clock.monotonic_sec(), called=job.called_by is not None)
    offers = desk.roster.for_request(job.request, free)
    placed = placement.choose(job.request, offers, nodes, floor=desk.policy.attestation_min)
    if isinstance(placed, placement.Busy) and job.request.session_id is not None:
        return "Waiting for a free slot on the worker that holds its session."
    return placed.sentence if isinstance(placed, placement.Busy) else "About to be sent to a worker."


def _end(end: End) -> JsonObject:
    return {name: None if value is None else _text(value) for name, value in asdict(end).items()}


def _text(value: object) -> object:
    return value if isinstance(value, int) else str(value)


def _tail(outcome: Outcome | None) -> JsonObject:
    if outcome is None:
        return {
            "stdout": "", "stderr": "", "has_result": False, "result": None, "displays": [], "artifacts": [],
            "skipped": [], "metrics": None, "tier": None, "layers": [], "denials": [], "notes": [],
        }  # fmt: skip
    return {
        "stdout": outcome.stdout.text,
        "stderr": outcome.stderr.text,
        "has_result": outcome.has_result,
        "result": outcome.result,
        "displays": list(outcome.displays),
        "artifacts": [asdict(artifact) for artifact in outcome.artifacts],
        "skipped": [asdict(entry) for entry in outcome.skipped],
        "metrics": {
            **asdict(outcome.usage),
            "stdout": _stream(outcome.stdout),
            "stderr": _stream(outcome.stderr),
        },
        "tier": outcome.tier,
        "layers": list(outcome.layers),
        "denials": [asdict(denial) for denial in outcome.denials],
        "notes": list(outcome.notes),
    }


def _stream(stream: Stream) -> JsonObject:
    return {"seen_bytes": stream.seen_bytes, "kept_bytes": stream.kept_bytes, "truncated": stream.truncated}


async def jobs_page(
    desk: Desk, *, tenant: TenantId, limit: int, before: str | None, status: Status | None
) -> JsonObject:
    """Return jobs without their output, newest first, and the cursor of the next page."""
    jobs = await desk.store.read(lambda tx: list(tx.jobs.page(tenant, limit=limit + 1, before=before, status=status)))
    mounts = await desk.store.read(lambda tx: list(tx.registry.mounts(tenant)))
    shown = jobs[:limit]
    return {
        "jobs": [_head(desk, job, mounts) for job in shown],
        "next": shown[-1].job_id if len(jobs) > limit else None,
    }


async def workers_document(desk: Desk) -> JsonObject:
    """Return every worker that is known, with whether it is connected now."""
    known = await desk.store.read(lambda tx: list(tx.registry.workers()))
    now_sec = desk.clock.monotonic_sec()
    entries = []
    for worker in known:
        live = desk.roster.find(worker.worker_id)
        entries.append(
            {
                "worker_id": worker.worker_id,
                "instance_id": worker.instance_id,
                "node_id": worker.node_id,
                "connected": live is not None,
                "draining": live is not None and live.draining,
                "slots": worker.slots,
                "free_slots": live.free_slots(now_sec) if live else 0,
                "capabilities": [capability.name for capability in worker.capabilities],
                "attestation": worker.attestation.label,
                "tier": next((each.tier for each in worker.capabilities if each.tier is not None), None),
                "pools": [asdict(pool) for pool in live.pools] if live else [],
                "enrolled_at": moment(worker.enrolled_us),
                "seen_at": moment(desk.clock.now_us() if live else worker.seen_us),
            }
        )
    return {"workers": entries}


async def manifest_document(desk: Desk, worker_id: WorkerId) -> JsonObject:
    """Return what a connected worker signed. Raises NotFound."""
    live = desk.roster.find(worker_id)
    if live is None or live.manifest is None:
        raise NotFound(
            f"No worker {worker_id[:80]!r} is connected that signed what it offers.",
            code="manifest_not_found",
            field="worker_id",
            fix="'crank worker list' shows who is connected.",
        )
    return {
        "worker_id": live.known.worker_id,
        "instance_id": live.known.instance_id,
        "node_id": live.known.node_id,
        "attestation": live.known.attestation.label,
        "manifest": live.manifest,
        "sha256": hashlib.sha256(live.manifest.encode()).hexdigest(),
    }


async def capabilities_document(desk: Desk) -> JsonObject:
    """Return what connected workers offer, each offer once, with who offers it."""
    entries: dict[str, JsonObject] = {}
    for worker in desk.roster.live():
        for capability in worker.known.capabilities:
            document = {**capability_document(capability), "takes_files": capability.takes_files}
            key = f"{capability.name} {capability.version} {capability.accelerator} {capability.gpu_model}"
            entry = entries.setdefault(key, {**document, "workers": []})
            entry["workers"].append(worker.known.worker_id)
    return {"capabilities": [entries[key] for key in sorted(entries)]}


async def records_page(
    desk: Desk, *, tenant: TenantId, job_id: JobId | None, after: int, limit: int
) -> JsonObject:
    """Return the audit trail in order, after a position; all of it to the owner alone. Raises NotAllowed."""
    if job_id is None:
        await authorise(desk, Action.READ_RECORDS)
    rows = await desk.store.read(lambda tx: list(tx.records.page(job_id=job_id, after=after, limit=limit)))
    shown = [(position, record) for position, record in rows if record.tenant == tenant]
    return {
        "records": [
            {
                "position": position,
                "record_id": record.record_id,
                "at": moment(record.at_us),
                "kind": record.kind,
                "subject": record.subject,
                "job_id": record.job_id,
                "facts": record.facts,
            }
            for position, record in shown
        ],
        "next": rows[-1][0] if len(rows) == limit else None,
    }


async def ready(desk: Desk) -> JsonObject:
    """Return whether jobs can be accepted and run, and what stands in the way."""
    queued, held = await desk.store.read(
        lambda tx: (tx.jobs.count(Status.QUEUED), tx.jobs.count(Status.LEASED) + tx.jobs.count(Status.RUNNING))
    )
    workers = len(desk.roster.live())
    return {"ready": workers > 0, "workers": workers, "queued": queued, "held": held}

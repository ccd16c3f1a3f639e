"""The JSON form of jobs, records and workers that every store keeps, so that all of them agree.

What is written reads back to an equal value; what cannot be read back is a damaged store.
"""

from dataclasses import asdict
from typing import Any

from crank.domain.capability import Accelerator, Effects, capability_document, parse_capability
from crank.domain.grant import Right
from crank.domain.handle import CalledBy, Handle, HandleKind
from crank.domain.ids import Digest, InstanceId, JobId, MountId, TenantId, WorkerId
from crank.domain.job import InputFile, Job, JobRequest, MountUse, Status
from crank.domain.json import JsonObject
from crank.domain.outcome import Clock, End, Reason
from crank.domain.record import Record
from crank.domain.trust import Attestation
from crank.domain.worker import KnownWorker, Replay
from crank.errors import CrankError, StoreError


def _damaged(what: str, fault: Exception) -> StoreError:
    return StoreError(f"A stored {what} cannot be read back: {fault!r}.", code="store_corrupt")


def job_request_document(request: JobRequest) -> JsonObject:
    """Return the JSON form of a request; `parse_job_request` reads it back to an equal value."""
    document: JsonObject = asdict(request)
    document["files"] = list(document["files"])
    document["mounts"] = list(document["mounts"])
    document["program"] = None if request.program is None else list(request.program)
    document["handles"] = [_handle_document(handle) for handle in request.handles]
    document["attestation"] = None if request.attestation is None else request.attestation.label
    return document


def _handle_document(handle: Handle) -> JsonObject:
    document: JsonObject = asdict(handle)
    if handle.right is not None:
        mounts = handle.right.mounts
        document["right"]["constraints"] = list(handle.right.constraints)
        document["right"]["mounts"] = None if mounts is None else list(mounts)
    return document


def _parse_handle(document: Any) -> Handle:
    right, mount_id = document["right"], document["mount_id"]
    if right is not None:
        mounts = right["mounts"]
        right = Right(
            **{
                **right,
                "constraints": tuple(right["constraints"]),
                "mounts": None if mounts is None else tuple(mounts),
            }
        )
    kind = HandleKind(document["kind"])
    return Handle(document["name"], kind, right, None if mount_id is None else MountId(mount_id))


def parse_job_request(document: Any) -> JobRequest:
    """Read a stored request. Raises StoreError (`store_corrupt`)."""
    try:
        accelerator, level = document["accelerator"], document.get("attestation")
        return JobRequest(
            **{
                **document,
                "accelerator": None if accelerator is None else Accelerator(accelerator),
                "effects": Effects(document["effects"]),
                "files": tuple(
                    InputFile(path=file["path"], sha256=Digest(file["sha256"]), size_bytes=file["size_bytes"])
                    for file in document["files"]
                ),
                "mounts": tuple(
                    MountUse(name=use["name"], mount_id=MountId(use["mount_id"])) for use in document["mounts"]
                ),
                # Requests of the first version know no programs.
                "program": None if document.get("program") is None else tuple(document["program"]),
                # Those of before version 4 of the store know no handles.
                "handles": tuple(_parse_handle(entry) for entry in document.get("handles", ())),
                "attestation": None if level is None else Attestation[level.upper()],
            }
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise _damaged("request", fault) from fault


def end_document(end: End) -> JsonObject:
    """Return the JSON form of an end, with every part present."""
    document: JsonObject = asdict(end)
    return document


def parse_end(document: Any) -> End:
    """Read a stored end. Raises StoreError (`store_corrupt`)."""
    try:
        clock = document["clock"]
        return End(
            **{
                **document,
                "reason": Reason(document["reason"]),
                "clock": None if clock is None else Clock(clock),
            }
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise _damaged("end", fault) from fault


def job_document(job: Job) -> JsonObject:
    """Return the JSON form of a whole job, for export and for stores that keep documents."""
    return {
        "job_id": job.job_id,
        "tenant": job.tenant,
        "request": job_request_document(job.request),
        "request_digest": job.request_digest,
        "status": str(job.status),
        "epoch": job.epoch,
        "attempts": job.attempts,
        "submitted_us": job.submitted_us,
        "started_us": job.started_us,
        "ended_us": job.ended_us,
        "worker_id": job.worker_id,
        "instance_id": job.instance_id,
        "cancel_requested": job.cancel_requested,
        "end": None if job.end is None else end_document(job.end),
        "outcome": job.outcome,
        "outcome_blob": job.outcome_blob,
        "hold": job.hold,
        "owner": job.owner,
        "called_by": None if job.called_by is None else asdict(job.called_by),
    }


def parse_job(document: Any) -> Job:
    """Read a whole job back. Raises StoreError (`store_corrupt`)."""
    try:
        end, called_by = document["end"], document.get("called_by")
        return Job(
            **{
                **document,
                "called_by": None if called_by is None else CalledBy(**called_by),
                "request": parse_job_request(document["request"]),
                "status": Status(document["status"]),
                "end": None if end is None else parse_end(end),
            }
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise _damaged("job", fault) from fault


def record_document(record: Record) -> JsonObject:
    """Return the JSON form of an audit record."""
    document: JsonObject = asdict(record)
    return document


def replay_document(replay: Replay) -> JsonObject:
    """Return the JSON form of a remembered idempotency key."""
    document: JsonObject = asdict(replay)
    return document


def capabilities_document(worker: KnownWorker) -> list[JsonObject]:
    """Return the JSON form of what a worker offers."""
    return [capability_document(capability) for capability in worker.capabilities]


def parse_known_worker(document: Any) -> KnownWorker:
    """Read a stored worker, `capabilities` being documents. Raises StoreError (`store_corrupt`)."""
    try:
        return KnownWorker(
            worker_id=WorkerId(document["worker_id"]),
            instance_id=InstanceId(document["instance_id"]),
            node_id=document["node_id"],
            slots=document["slots"],
            capabilities=tuple(parse_capability(entry) for entry in document["capabilities"]),
            enrolled_us=document["enrolled_us"],
            seen_us=document["seen_us"],
            attestation=Attestation[document["attestation"].upper()],
            signed=bool(document["signed"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError, CrankError) as fault:
        raise _damaged("worker", fault) from fault


def parse_record(document: Any) -> Record:
    """Read a stored record. Raises StoreError (`store_corrupt`)."""
    try:
        job_id = document["job_id"]
        return Record(
            **{
                **document,
                "tenant": TenantId(document["tenant"]),
                "job_id": None if job_id is None else JobId(job_id),
            }
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise _damaged("record", fault) from fault

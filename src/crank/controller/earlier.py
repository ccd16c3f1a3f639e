"""Earlier: what a job of the same caller left for its next one, where a capability asks for that.

A capability whose args have a field `previous` is given the file `.crank/kept.tar` that an earlier job of it left in /out.
Which job that is, the node finds by what it wrote down itself: the same tenant, the same credential, the same capability.
What another credential's job left is as if it were not there.
"""

from collections.abc import Sequence

from crank.controller.desk import Desk
from crank.controller.views import find_outcome
from crank.domain.capability import Capability
from crank.domain.ids import JobId, TenantId
from crank.domain.job import InputFile, Job, Mount
from crank.domain.json import JsonValue
from crank.errors import CrankError, InvalidRequest, NotSupported
from crank.ports import Transaction

KEPT = ".crank/kept.tar"
# A caller's own files do not lie here.
OWN_FOLDER = ".crank"
LATEST, NONE = "latest", "none"
# So many of the newest jobs are looked at for the latest one, and of those so many outcomes are read.
_JOBS_MAX = 200
_OUTCOMES_MAX = 5
_RECORDS_MAX = 50


async def find_kept(
    desk: Desk,
    *,
    tenant: TenantId,
    subject: str,
    capability: Capability,
    args: JsonValue,
    mounts: dict[str, Mount],
    called: bool = False,
) -> tuple[InputFile, ...]:
    """Return what an earlier job kept for this one, or nothing.

    called  another job asked: what else its credential has is not in that job's hand, so it finds nothing and names nothing

    Raises InvalidRequest (`previous_not_found`) when a job is named that this caller may not build on.
    """
    field = capability.input_schema.get("properties", {}).get("previous")
    if not capability.takes_files or not isinstance(field, dict):
        return ()
    wanted = args.get("previous", LATEST) if isinstance(args, dict) else LATEST
    if wanted == NONE or (called and wanted == LATEST):
        return ()
    if called:
        raise NotSupported(
            "A job names no other job when it calls.", field="args.previous", fix=f"Leave previous out, or send {NONE!r}."
        )
    if wanted != LATEST:
        return await _named(desk, tenant, subject, capability, JobId(str(wanted)))
    places = sorted((name, mount.mount_id) for name, mount in mounts.items())
    jobs = await desk.store.read(lambda tx: _candidates(tx, tenant, subject, capability, places))
    for job in jobs:
        kept = await _kept_of(desk, job)
        if kept:
            return kept
    return ()


async def _named(
    desk: Desk, tenant: TenantId, subject: str, capability: Capability, job_id: JobId
) -> tuple[InputFile, ...]:
    def find(tx: Transaction) -> Job | None:
        job = tx.jobs.find(tenant, job_id)
        return job if job is not None and _is_own(tx, job, subject, capability) else None

    job = await desk.store.read(find)
    if job is None:
        raise InvalidRequest(
            f"There is no ended job {job_id[:80]!r} of {capability.name} that this credential started.",
            code="previous_not_found",
            field="args.previous",
            fix=f"Give the id of such a job, or {LATEST!r}, or {NONE!r}.",
        )
    return await _kept_of(desk, job)


def _candidates(
    tx: Transaction, tenant: TenantId, subject: str, capability: Capability, places: Sequence[tuple[str, str]]
) -> list[Job]:
    """Return ended jobs over the same mounts, newest first."""
    found: list[Job] = []
    for job in tx.jobs.page(tenant, limit=_JOBS_MAX, before=None, status=None):
        same = sorted((use.name, use.mount_id) for use in job.request.mounts) == places
        if same and job.request.capability == capability.name and _is_own(tx, job, subject, capability):
            found.append(job)
            if len(found) == _OUTCOMES_MAX:
                break
    return found


def _is_own(tx: Transaction, job: Job, subject: str, capability: Capability) -> bool:
    if not job.ended or job.request.capability != capability.name:
        return False
    # Another tenant may use the same id; its records say so.
    records = tx.records.page(job_id=job.job_id, after=0, limit=_RECORDS_MAX)
    return any(
        record.kind == "job.submitted" and record.tenant == job.tenant and record.subject == subject
        for _, record in records
    )


async def _kept_of(desk: Desk, job: Job) -> tuple[InputFile, ...]:
    try:
        outcome = await find_outcome(desk, job)
    except CrankError:
        # Its outcome is gone; what it kept is a saving and never needed.
        return ()
    for artifact in outcome.artifacts if outcome is not None else ():
        if artifact.path == KEPT and desk.blobs.size(artifact.sha256) == artifact.size_bytes:
            return (InputFile(KEPT, artifact.sha256, artifact.size_bytes),)
    return ()

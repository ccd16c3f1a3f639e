"""Artifacts and blobs: the bytes that jobs take and leave."""

import asyncio
from typing import BinaryIO

from crank.controller.access import may_use_blob
from crank.controller.desk import Desk
from crank.controller.views import find_job, find_outcome
from crank.domain.ids import Digest, JobId, TenantId
from crank.domain.outcome import Artifact
from crank.errors import NotFound


async def list_artifacts(desk: Desk, *, tenant: TenantId, job_id: JobId) -> tuple[Artifact, ...]:
    """Return what the job left in /out. Raises NotFound."""
    outcome = await find_outcome(desk, await find_job(desk, tenant=tenant, job_id=job_id))
    return outcome.artifacts if outcome else ()


async def find(desk: Desk, *, tenant: TenantId, job_id: JobId, path: str) -> Artifact:
    """Return one artifact by the path that the job gave it; a path is only ever compared, never opened.

    Raises NotFound.
    """
    for artifact in await list_artifacts(desk, tenant=tenant, job_id=job_id):
        if artifact.path == path:
            return artifact
    raise NotFound("The job left no artifact with this path.", code="artifact_not_found", field="path")


async def open_blob(desk: Desk, *, digest: Digest) -> BinaryIO:
    """Open a blob to read. Raises NotFound."""
    return await asyncio.to_thread(desk.blobs.open, digest)


async def blob_size(desk: Desk, *, digest: Digest) -> int:
    """Return a blob's size in bytes. Raises NotFound, the same for one that is not the caller's to use."""
    known = await may_use_blob(desk, digest)
    size_bytes = await asyncio.to_thread(desk.blobs.size, digest) if known else None
    if size_bytes is None:
        raise NotFound("There is no blob with this SHA-256.", code="blob_not_found", field="sha256")
    return size_bytes


async def store(desk: Desk, *, source: BinaryIO, expected: Digest, bytes_max: int) -> int:
    """Store an uploaded blob, note who brought it, and return its size. Raises what `BlobStore.put` raises."""
    digest, size_bytes = await asyncio.to_thread(desk.blobs.put, source, expected=expected, bytes_max=bytes_max)
    asker = desk.asker
    if asker is not None and asker.bounded:
        now_us = desk.clock.now_us()
        await desk.store.transact(lambda tx: tx.credentials.hold(asker.credential_id, digest, now_us))
    return size_bytes

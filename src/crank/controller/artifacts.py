"""Artifacts and blobs: the bytes that jobs take and leave."""

import asyncio
from typing import BinaryIO

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


async def store(desk: Desk, *, source: BinaryIO, expected: Digest, bytes_max: int) -> int:
    """Store an uploaded blob and return its size. Raises what `BlobStore.put` raises."""
    _, size_bytes = await asyncio.to_thread(desk.blobs.put, source, expected=expected, bytes_max=bytes_max)
    return size_bytes

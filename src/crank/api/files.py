"""Blobs going in, artifacts coming out. Names from jobs are compared, never opened."""

import tempfile
from collections.abc import AsyncIterator
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, StreamingResponse

from crank.api.models import ArtifactsView, BlobView, problems
from crank.api.peer import desk_of
from crank.api.rest import JobIdPath, Proven
from crank.controller import artifacts
from crank.controller.desk import Desk
from crank.domain.ids import JobId, parse_digest
from crank.domain.quantity import BLOB_BYTES_MAX, MIB
from crank.errors import NotFound, TooLarge

router = APIRouter(prefix="/v1", tags=["files"])
CHUNK_BYTES = 256 * 1024
DigestPath = Annotated[str, Path(max_length=64, description="SHA-256 in lower-case hexadecimal.")]
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


async def receive_blob(request: Request, desk: Desk, sha256: str) -> Response:
    """Store the request's body as a blob; bounded while it arrives. Raises TooLarge and what the store raises."""
    digest = parse_digest(sha256)
    known_bytes = desk.blobs.size(digest)
    if known_bytes is not None:
        return JSONResponse({"sha256": digest, "size_bytes": known_bytes})
    with tempfile.SpooledTemporaryFile(max_size=MIB) as arrived:
        seen_bytes = 0
        async for chunk in request.stream():
            seen_bytes += len(chunk)
            if seen_bytes > BLOB_BYTES_MAX:
                raise TooLarge(f"A blob is at most {BLOB_BYTES_MAX} bytes.", code="blob_too_large")
            await run_in_threadpool(arrived.write, chunk)
        arrived.seek(0)
        source: Any = arrived
        size_bytes = await artifacts.store(desk, source=source, expected=digest, bytes_max=BLOB_BYTES_MAX)
    return JSONResponse({"sha256": digest, "size_bytes": size_bytes}, status_code=201)


async def read_chunks(source: BinaryIO) -> AsyncIterator[bytes]:
    """Yield a file's bytes and close it."""
    try:
        while chunk := await run_in_threadpool(source.read, CHUNK_BYTES):
            yield chunk
    finally:
        source.close()


@router.put(
    "/blobs/{sha256}",
    operation_id="putBlob",
    summary="Upload a blob",
    response_model=BlobView,
    responses={
        200: {"description": "The node has it already.", "model": BlobView},
        201: {"description": "Stored.", "model": BlobView},
        **problems(401, 413, 422, 503),
    },
    openapi_extra={"requestBody": {"required": True, "content": _BINARY}},
)
async def put_blob(request: Request, sha256: DigestPath, caller: Proven) -> Response:
    """Store bytes under their SHA-256; doing it twice changes nothing."""
    return await receive_blob(request, desk_of(request), sha256)


@router.get(
    "/jobs/{job_id}/artifacts",
    operation_id="listArtifacts",
    summary="List what a job left",
    response_model=ArtifactsView,
    responses=problems(401, 404, 422),
)
async def list_artifacts(request: Request, job_id: JobIdPath, caller: Proven) -> Any:
    """Return the files that a job left in /out."""
    found = await artifacts.list_artifacts(desk_of(request), tenant=caller.tenant, job_id=JobId(job_id))
    return {
        "artifacts": [
            {"path": a.path, "size_bytes": a.size_bytes, "sha256": a.sha256, "media_type": a.media_type} for a in found
        ]
    }


@router.get(
    "/jobs/{job_id}/artifacts/{path:path}",
    operation_id="getArtifact",
    summary="Download what a job left",
    response_class=StreamingResponse,
    responses={200: {"description": "The file.", "content": _BINARY}, **problems(401, 404, 422)},
)
async def get_artifact(
    request: Request, job_id: JobIdPath, path: Annotated[str, Path(description="As listed.")], caller: Proven
) -> Response:
    """Send one artifact, in a way that no browser renders."""
    desk = desk_of(request)
    artifact = await artifacts.find(desk, tenant=caller.tenant, job_id=JobId(job_id), path=path)
    try:
        source = await artifacts.open_blob(desk, digest=artifact.sha256)
    except NotFound as fault:
        raise NotFound("The artifact's bytes are no longer kept.", code="artifact_not_found", field="path") from fault
    name = quote(artifact.path.rpartition("/")[2], safe="")
    headers = {
        "Content-Length": str(artifact.size_bytes),
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
        "ETag": f'"{artifact.sha256}"',
        "Cache-Control": "private, no-transform",
    }
    return StreamingResponse(read_chunks(source), media_type="application/octet-stream", headers=headers)

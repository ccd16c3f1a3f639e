"""Bytes over HTTP: blobs up, artifacts down."""

import asyncio
import errno
import re
import tempfile
from collections.abc import AsyncIterator
from typing import Annotated, BinaryIO, cast
from urllib.parse import quote

from fastapi import APIRouter, Header, Path, Request, Security
from starlette.responses import JSONResponse, Response, StreamingResponse

from crank.api.documents import answer, desk_of, header, refusals
from crank.api.models import ArtifactsPage, BlobStored
from crank.api.peer import Caller, bearer
from crank.api.rest import JobPath
from crank.api.strict import StrictRoute, chunks
from crank.controller import artifacts
from crank.controller.desk import Desk
from crank.domain.ids import Digest, parse_digest, parse_job_id
from crank.domain.quantity import BLOB_BYTES_MAX, KIB, MIB
from crank.errors import TooLarge, Unavailable

PIECE_BYTES = 256 * KIB
_SPOOL_BYTES = 1 * MIB
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}")
# An artifact is a stranger's file: nothing in it may act in the browser of who opens it.
HARMLESS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "private, no-cache",
}
router = APIRouter(route_class=StrictRoute)
From = Annotated[Caller, Security(bearer)]
BlobPath = Annotated[str, Path(description="SHA-256 of the bytes, in lower-case hexadecimal.")]


class Octets(StreamingResponse):
    """Bytes of any media type."""


@router.put(
    "/v1/blobs/{sha256}",
    operation_id="put_blob",
    summary="Upload a blob",
    tags=["files"],
    status_code=201,
    response_class=JSONResponse,
    responses={201: {"model": BlobStored}, **refusals(406, 408, 413)},
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string"}}}}
    },
)
async def put_blob(request: Request, sha256: BlobPath, caller: From) -> Response:
    """Store bytes under their SHA-256; what does not have it is refused."""
    digest = parse_digest(sha256)
    return answer({"sha256": digest, "size_bytes": await receive_blob(desk_of(request), request, digest)}, 201)


@router.head(
    "/v1/blobs/{sha256}",
    operation_id="has_blob",
    summary="Ask for a blob",
    tags=["files"],
    responses={200: {"description": "It is stored; Content-Length is its size."}, **refusals(404)},
    response_class=Response,
)
async def has_blob(request: Request, sha256: BlobPath, caller: From) -> Response:
    """Tell whether a blob is stored."""
    return await blob_head(desk_of(request), parse_digest(sha256))


@router.get(
    "/v1/jobs/{job_id}/artifacts",
    operation_id="list_artifacts",
    summary="List a job's artifacts",
    tags=["jobs"],
    response_class=JSONResponse,
    responses={200: {"model": ArtifactsPage}, **refusals(404, 406)},
)
async def list_artifacts(request: Request, job_id: JobPath, caller: From) -> Response:
    """Return what the job left in /out."""
    found = await artifacts.list_artifacts(desk_of(request), tenant=caller.tenant, job_id=parse_job_id(job_id))
    entries = [
        {"path": one.path, "size_bytes": one.size_bytes, "sha256": one.sha256, "media_type": one.media_type}
        for one in found
    ]
    return answer({"artifacts": entries})


@router.get(
    "/v1/jobs/{job_id}/artifacts/{path:path}",
    operation_id="get_artifact",
    summary="Download an artifact",
    tags=["jobs"],
    response_class=Octets,
    responses={
        200: {
            "description": "The file's bytes, as a download.",
            "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
            "headers": {"ETag": header("The SHA-256, quoted."), "Content-Disposition": header("attachment")},
        },
        304: {"description": "You have it already."},
        **refusals(404),
    },
)
async def get_artifact(
    request: Request,
    job_id: JobPath,
    path: Annotated[str, Path(description="The path that the job gave it.")],
    caller: From,
    if_none_match: Annotated[str | None, Header(description="An ETag that you have.")] = None,
) -> Response:
    """Send one artifact so that it cannot act: as an attachment, never sniffed, in a sandbox."""
    desk = desk_of(request)
    found = await artifacts.find(desk, tenant=caller.tenant, job_id=parse_job_id(job_id), path=path)
    tag = f'"{found.sha256}"'
    name = found.path.rpartition("/")[2]
    headers = {**HARMLESS, "etag": tag, "content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
    if if_none_match is not None and tag in {part.strip().removeprefix("W/") for part in if_none_match.split(",")}:
        return Response(status_code=304, headers=headers)
    media_type = found.media_type if _MEDIA_TYPE.fullmatch(found.media_type) else "application/octet-stream"
    source = await artifacts.open_blob(desk, digest=found.sha256)
    headers |= {"content-length": str(found.size_bytes), "content-type": media_type}
    return Octets(pieces(source), headers=headers)


# --- shared with the worker listener ---------------------------------------------------------


async def receive_blob(desk: Desk, request: Request, digest: Digest) -> int:
    """Store a request's body as a blob and return its size in bytes.

    Raises InvalidRequest (`digest_mismatch`), TooLarge, Unavailable; nothing is left behind then.
    """
    # Read whole before a thread is used: a slow sender must not hold one.
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
        await spool_body(request, cast(BinaryIO, spool))
        return await artifacts.store(desk, source=cast(BinaryIO, spool), expected=digest, bytes_max=BLOB_BYTES_MAX)


async def spool_body(request: Request, spool: BinaryIO) -> None:
    """Write a request's body into a file and stand at its beginning. Raises TooLarge, Unavailable, InvalidRequest."""
    try:
        async for piece in chunks(request, bytes_max=BLOB_BYTES_MAX):
            spool.write(piece)
        spool.seek(0)
    except OSError as fault:
        raise _no_room(fault) from fault


def _no_room(fault: OSError) -> Unavailable | TooLarge:
    if fault.errno == errno.EFBIG:
        return TooLarge("The blob is larger than files may be on this node.")
    return Unavailable("The node could not keep the upload.", code="disk_full", detail=str(fault))


async def blob_head(desk: Desk, digest: Digest) -> Response:
    """Tell a blob's size without its bytes. Raises NotFound."""
    size_bytes = await artifacts.blob_size(desk, digest=digest)
    return Response(headers={"content-length": str(size_bytes), "content-type": "application/octet-stream"})


async def pieces(source: BinaryIO) -> AsyncIterator[bytes]:
    """Yield a file's bytes, read in a thread, and close it."""
    try:
        while piece := await asyncio.to_thread(source.read, PIECE_BYTES):
            yield piece
    finally:
        source.close()

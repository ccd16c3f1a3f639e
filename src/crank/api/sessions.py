"""Sessions over HTTP: open, look, touch, close; their files; and calls on running jobs."""

import asyncio
import base64
import binascii
import tempfile
from typing import Annotated, BinaryIO, cast
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Security
from starlette.responses import JSONResponse, Response

from crank.api.documents import BODY, answer, desk_of, header, refusals
from crank.api.files import HARMLESS, Octets, pieces, spool_body
from crank.api.models import JobDocument
from crank.api.peer import Caller, bearer
from crank.api.rest import JobPath
from crank.api.session_models import SessionDocument, SessionFiles, SessionFileStored, SessionsPage, StdinTaken
from crank.api.strict import StrictRoute
from crank.api.wanted import SessionClocks, SessionWanted, StdinWanted
from crank.controller import reach, session_views, views
from crank.controller.end_session import close_session
from crank.controller.open_session import open_session, touch_session
from crank.domain.ids import parse_job_id, parse_session_id
from crank.domain.json import JsonObject
from crank.errors import InvalidRequest

router = APIRouter(route_class=StrictRoute)
From = Annotated[Caller, Security(bearer)]
SessionPath = Annotated[str, Path(description="The session's id.")]
FilePath = Annotated[str, Path(description="The file's path, relative to /scratch.")]


@router.post(
    "/v1/sessions",
    operation_id="open_session",
    summary="Open a session",
    tags=["sessions"],
    status_code=201,
    response_class=JSONResponse,
    responses={
        201: {"model": SessionDocument, "headers": {"Location": header("Where the session is.")}},
        **refusals(*BODY, 403, 406),
    },
)
async def post_session(request: Request, wanted: SessionWanted, caller: From) -> Response:
    """Build a sandbox that lives on between jobs, and answer when it stands."""
    desk = desk_of(request)
    session = await open_session(desk, tenant=caller.tenant, subject=caller.subject, fields=await request.json())
    document = await session_views.session_document(desk, tenant=caller.tenant, session_id=session.session_id)
    return answer(document, 201, {"location": f"/v1/sessions/{session.session_id}"})


@router.get(
    "/v1/sessions",
    operation_id="list_sessions",
    summary="List sessions, newest first",
    tags=["sessions"],
    response_class=JSONResponse,
    responses={200: {"model": SessionsPage}, **refusals(406)},
)
async def list_sessions(
    request: Request,
    caller: From,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> Response:
    """Return a page of sessions, the ended ones too."""
    cursor = None if before is None else parse_session_id(before, field="before")
    page = await session_views.sessions_page(desk_of(request), tenant=caller.tenant, limit=limit, before=cursor)
    return answer(page)


@router.get(
    "/v1/sessions/{session_id}",
    operation_id="get_session",
    summary="Read a session",
    tags=["sessions"],
    response_class=JSONResponse,
    responses={200: {"model": SessionDocument}, **refusals(404, 406)},
)
async def get_session(request: Request, session_id: SessionPath, caller: From) -> Response:
    """Return the session, with its clocks and, once it has ended, why."""
    return answer(await _document(request, caller, session_id))


@router.post(
    "/v1/sessions/{session_id}/touch",
    operation_id="touch_session",
    summary="Turn a session's clocks",
    tags=["sessions"],
    response_class=JSONResponse,
    responses={200: {"model": SessionDocument}, **refusals(*BODY, 404, 406, 409)},
)
async def post_touch(request: Request, wanted: SessionClocks, session_id: SessionPath, caller: From) -> Response:
    """Begin the idle clock anew; a number also changes that clock."""
    await touch_session(
        desk_of(request),
        tenant=caller.tenant,
        session_id=parse_session_id(session_id),
        fields=await request.json(),
    )
    return answer(await _document(request, caller, session_id))


@router.delete(
    "/v1/sessions/{session_id}",
    operation_id="close_session",
    summary="Close a session",
    tags=["sessions"],
    response_class=JSONResponse,
    responses={200: {"model": SessionDocument}, **refusals(404, 406)},
)
async def delete_session(request: Request, session_id: SessionPath, caller: From) -> Response:
    """End the session at once, with the job that runs in it; closing it again changes nothing."""
    await close_session(
        desk_of(request), tenant=caller.tenant, subject=caller.subject, session_id=parse_session_id(session_id)
    )
    return answer(await _document(request, caller, session_id))


async def _document(request: Request, caller: Caller, session_id: str) -> JsonObject:
    return await session_views.session_document(
        desk_of(request), tenant=caller.tenant, session_id=parse_session_id(session_id)
    )


# --- files -----------------------------------------------------------------------------------


@router.get(
    "/v1/sessions/{session_id}/files",
    operation_id="list_session_files",
    summary="List files of a session",
    tags=["sessions"],
    response_class=JSONResponse,
    responses={200: {"model": SessionFiles}, **refusals(404, 406, 409)},
)
async def list_files(
    request: Request,
    session_id: SessionPath,
    caller: From,
    path: Annotated[str, Query(description="A folder in /scratch; empty for /scratch itself.")] = "",
) -> Response:
    """Return what lies directly in a folder."""
    found = await reach.list_files(
        desk_of(request), tenant=caller.tenant, session_id=parse_session_id(session_id), path=path
    )
    entries = [
        {
            "path": entry["path"],
            "kind": entry["kind"],
            "size_bytes": entry["size_bytes"],
            "modified_at": views.moment(entry["modified_us"]),
        }
        for entry in found["files"]
    ]
    return answer({"files": entries, "truncated": found["truncated"]})


@router.get(
    "/v1/sessions/{session_id}/files/{path:path}",
    operation_id="get_session_file",
    summary="Read a file of a session",
    tags=["sessions"],
    response_class=Octets,
    responses={
        200: {
            "description": "The file's bytes, as a download.",
            "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
            "headers": {"ETag": header("The SHA-256, quoted."), "Content-Disposition": header("attachment")},
        },
        **refusals(404, 409, 413),
    },
)
async def get_file(request: Request, session_id: SessionPath, path: FilePath, caller: From) -> Response:
    """Send one file as it is now, so that it cannot act: as an attachment, never sniffed, in a sandbox."""
    source, size_bytes, digest = await reach.get_file(
        desk_of(request), tenant=caller.tenant, session_id=parse_session_id(session_id), path=path
    )
    name = quote(path.rpartition("/")[2], safe="")
    headers = {
        **HARMLESS,
        "etag": f'"{digest}"',
        "content-disposition": f"attachment; filename*=UTF-8''{name}",
        "content-length": str(size_bytes),
        "content-type": "application/octet-stream",
    }
    return Octets(pieces(source), headers=headers)


@router.put(
    "/v1/sessions/{session_id}/files/{path:path}",
    operation_id="put_session_file",
    summary="Write a file of a session",
    tags=["sessions"],
    response_class=JSONResponse,
    responses={200: {"model": SessionFileStored}, **refusals(404, 406, 408, 409, 413)},
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string"}}}}
    },
)
async def put_file(request: Request, session_id: SessionPath, path: FilePath, caller: From) -> Response:
    """Store the body's bytes at /scratch/<path>, in place of what is there."""
    wanted = parse_session_id(session_id)
    with tempfile.TemporaryFile() as spool:
        source = cast(BinaryIO, spool)
        await spool_body(request, source)
        stored = await reach.put_file(desk_of(request), source, tenant=caller.tenant, session_id=wanted, path=path)
    return answer(stored)


@router.delete(
    "/v1/sessions/{session_id}/files/{path:path}",
    operation_id="remove_session_file",
    summary="Remove a file of a session",
    tags=["sessions"],
    status_code=204,
    response_class=Response,
    responses={**refusals(404, 409)},
)
async def remove_file(request: Request, session_id: SessionPath, path: FilePath, caller: From) -> Response:
    """Remove a file, or a folder with everything in it."""
    await reach.remove_file(desk_of(request), tenant=caller.tenant, session_id=parse_session_id(session_id), path=path)
    return Response(status_code=204)


# --- running jobs ----------------------------------------------------------------------------


@router.post(
    "/v1/jobs/{job_id}/interrupt",
    operation_id="interrupt_job",
    summary="Interrupt a running job",
    tags=["jobs"],
    response_class=JSONResponse,
    responses={200: {"model": JobDocument}, **refusals(404, 406, 409)},
)
async def interrupt_job(request: Request, job_id: JobPath, caller: From) -> Response:
    """Send SIGINT: KeyboardInterrupt in the code. The state of its session stays."""
    desk = desk_of(request)
    wanted = parse_job_id(job_id)
    await reach.interrupt(desk, tenant=caller.tenant, subject=caller.subject, job_id=wanted)
    return answer(await views.job_document(desk, tenant=caller.tenant, job_id=wanted))


@router.post(
    "/v1/jobs/{job_id}/stdin",
    operation_id="write_stdin",
    summary="Write to a running job's stdin",
    tags=["jobs"],
    response_class=JSONResponse,
    responses={200: {"model": StdinTaken}, **refusals(*BODY, 404, 406, 409)},
)
async def write_stdin(request: Request, wanted: StdinWanted, job_id: JobPath, caller: From) -> Response:
    """Send bytes to a job that was submitted with stdin: true; offset_bytes makes a repeat harmless."""
    taken = await reach.write_stdin(
        desk_of(request),
        await asyncio.to_thread(_stdin_bytes, wanted),
        tenant=caller.tenant,
        job_id=parse_job_id(job_id),
        offset_bytes=wanted.offset_bytes,
        end=wanted.end,
    )
    return answer(taken)


def _stdin_bytes(wanted: StdinWanted) -> bytes:
    if wanted.text is not None and wanted.base64 is not None:
        raise InvalidRequest("Send text or base64, not both.", code="invalid_field", field="base64")
    if wanted.base64 is None:
        return (wanted.text or "").encode()
    try:
        return base64.b64decode(wanted.base64, validate=True)
    except (binascii.Error, ValueError) as fault:
        raise InvalidRequest("The content is not base64.", code="invalid_field", field="base64") from fault

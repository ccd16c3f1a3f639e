"""GPT Actions: eight operations for a caller that waits 45 s, reads 100 000 characters of text, and forgets headers.

Answers stay below both, and say what was cut and what to do next. The document of these operations is made in
`actions_document`; they are the same jobs as everybody's.
"""

import asyncio
import base64
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Path, Query, Request, Security
from starlette.responses import JSONResponse, Response

from crank.api.actions_models import (
    CallWanted,
    CapabilitiesFound,
    FilesReturned,
    JobBrief,
    NodeDescribed,
    RunWanted,
    TextPage,
)
from crank.api.documents import answer, desk_of
from crank.api.peer import Caller, bearer
from crank.api.rest import wait_for_end
from crank.api.strict import StrictRoute
from crank.controller import artifacts, views
from crank.controller import cancel as cancelling
from crank.controller.bring_files import bring_files
from crank.controller.instruct import instruct, offered
from crank.controller.spend import may_call
from crank.controller.submit import Submission, submit
from crank.domain.capability import Capability
from crank.domain.ids import JobId, parse_job_id
from crank.domain.json import JsonObject, dumps
from crank.domain.outcome import Artifact
from crank.domain.rules import discovery
from crank.domain.rules.brief import brief_job, clip

# Theirs are 45 s and 100 000 characters; what lies between is for the network and the frame around our texts.
ANSWER_SEC_MAX = 38.0
ANSWER_CHARS_MAX = 80_000
WAIT_SEC = 25.0
# Base64 of so many bytes, ten names and the frame stay below the limit.
FILES_BYTES_MAX = 45_000
FILES_MAX = 10
_NOT_RETURNED = ("image/", "video/")
PAGE_BYTES = 16_000
CAPABILITIES_MAX = 20
SCHEMA_CHARS_MAX = 2_000
_WAYS = {
    "wait": "It goes on. Call waitForJob with this job_id; do not run it again.",
    "more": "What is named in cut is longer than an answer may be: write it to /out and use getFiles or readFile.",
}
router = APIRouter(route_class=StrictRoute, prefix="/v1/actions", default_response_class=JSONResponse)
From = Annotated[Caller, Security(bearer)]
JobPath = Annotated[str, Path(description="The job_id that runPython or callCapability answered with.")]
FilePath = Annotated[str, Query(description="The path of the file, as the job's files list it.", max_length=512)]
WaitQuery = Annotated[float, Query(ge=0, le=35, description="Seconds to wait for the end.")]
_SAFE = {"x-openai-isConsequential": False}
_CONSEQUENTIAL = {"x-openai-isConsequential": True}


@router.post(
    "/run", operation_id="runPython", summary="Run Python in a sandbox", responses={200: {"model": JobBrief}},
    openapi_extra=_SAFE,
)  # fmt: skip
async def run_python(request: Request, wanted: RunWanted, caller: From) -> Response:
    """Run a script on the person's machine: no network, shared folders read-only, files left in /out come back. Read describeNode first."""
    desk = desk_of(request)
    begun_sec = desk.clock.monotonic_sec()
    refs = (await request.json()).get("openaiFileIdRefs") or []
    body: JsonObject = {
        "code": wanted.code,
        "env_profile": wanted.profile,
        "args": wanted.args,
        "mounts": wanted.folders,
        "constraints": None if wanted.timeout_sec is None else {"timeout_sec": wanted.timeout_sec},
        "files": await bring_files(desk, refs) or None,
    }
    return await _run(request, caller, body, wanted.wait_sec, begun_sec)


@router.post(
    "/call", operation_id="callCapability", summary="Call an installed function",
    responses={200: {"model": JobBrief}}, openapi_extra=_CONSEQUENTIAL,
)  # fmt: skip
async def call_capability(request: Request, wanted: CallWanted, caller: From) -> Response:
    """Call a function that the person installed, by the name and the input schema that findCapabilities gives."""
    begun_sec = desk_of(request).clock.monotonic_sec()
    body: JsonObject = {"capability": wanted.capability, "args": wanted.args}
    return await _run(request, caller, body, wanted.wait_sec, begun_sec)


async def _run(
    request: Request, caller: Caller, body: JsonObject, wait_sec: float | None, begun_sec: float
) -> Response:
    desk = desk_of(request)
    fields = {name: value for name, value in body.items() if value is not None}
    submission = Submission(fields=fields)
    submitted = await submit(desk, tenant=caller.tenant, subject=caller.subject, submission=submission)
    # What fetching took is taken off, so that the whole answer is in time.
    left_sec = ANSWER_SEC_MAX - (desk.clock.monotonic_sec() - begun_sec)
    return await _brief(
        request, caller, submitted.job.job_id, min(WAIT_SEC if wait_sec is None else wait_sec, left_sec)
    )


async def _brief(request: Request, caller: Caller, job_id: JobId, wait_sec: float) -> Response:
    if wait_sec > 0:
        await wait_for_end(request, caller, job_id, wait_sec)
    document = await views.job_document(desk_of(request), tenant=caller.tenant, job_id=job_id)
    return answer(brief_job(document, chars_max=ANSWER_CHARS_MAX, ways=_WAYS))


@router.get(
    "/jobs/{job_id}", operation_id="waitForJob", summary="Wait for a job", responses={200: {"model": JobBrief}},
    openapi_extra=_SAFE,
)  # fmt: skip
async def wait_for_job(request: Request, job_id: JobPath, caller: From, wait_sec: WaitQuery = WAIT_SEC) -> Response:
    """Wait for a job that was not finished, and read it. Call it again while finished is false."""
    return await _brief(request, caller, parse_job_id(job_id), wait_sec)


@router.post(
    "/jobs/{job_id}/cancel", operation_id="cancelJob", summary="End a job early",
    responses={200: {"model": JobBrief}}, openapi_extra=_CONSEQUENTIAL,
)  # fmt: skip
async def cancel_job(request: Request, job_id: JobPath, caller: From) -> Response:
    """Ask for the end of a job that runs; what it printed so far is kept."""
    wanted = parse_job_id(job_id)
    await cancelling.cancel(desk_of(request), tenant=caller.tenant, subject=caller.subject, job_id=wanted)
    return await _brief(request, caller, wanted, 0)


@router.get(
    "/jobs/{job_id}/files", operation_id="getFiles", summary="Hand a job's files to the person",
    responses={200: {"model": FilesReturned}}, openapi_extra=_SAFE,
)  # fmt: skip
async def get_files(
    request: Request,
    job_id: JobPath,
    caller: From,
    path: Annotated[str | None, Query(description="One file; without it as many as fit.", max_length=512)] = None,
) -> Response:
    """Bring files that a job left in /out into the conversation: together at most 45 kB, ten at once, no pictures or videos."""
    desk = desk_of(request)
    wanted = parse_job_id(job_id)
    if path is None:
        found = list(await artifacts.list_artifacts(desk, tenant=caller.tenant, job_id=wanted))
    else:
        found = [await artifacts.find(desk, tenant=caller.tenant, job_id=wanted, path=path)]
    sent: list[JsonObject] = []
    left_out: list[JsonObject] = []
    room_bytes = FILES_BYTES_MAX
    for each in found[: 2 * FILES_MAX]:
        cause = _why_not(each, room_bytes, len(sent))
        if cause is None:
            room_bytes -= each.size_bytes
            sent.append(await _returned(request, each))
        else:
            left_out.append({"path": each.path, "cause": cause, "next": _elsewhere(wanted, each)})
    return answer({"openaiFileResponse": sent, "left_out": left_out, "files_total": len(found)})


def _why_not(found: Artifact, room_bytes: int, sent: int) -> str | None:
    """Return why a file cannot be sent, or None: by the rules of those who receive it."""
    if found.media_type.startswith(_NOT_RETURNED):
        return "Pictures and videos cannot be returned to ChatGPT."
    if sent >= FILES_MAX:
        return f"At most {FILES_MAX} files at once."
    if found.size_bytes > room_bytes:
        return f"Files of one answer have {FILES_BYTES_MAX} bytes together at most."
    return None


def _elsewhere(job_id: JobId, found: Artifact) -> str:
    """Return what gets this file: by itself it may fit, and what never fits is read in parts or fetched."""
    fetch = f"tell the person to fetch it: crank job fetch {job_id}"
    if _why_not(found, FILES_BYTES_MAX, 0) is None:
        return "Call getFiles again with this path: by itself it fits."
    if found.media_type.startswith(_NOT_RETURNED):
        return f"{fetch[0].upper()}{fetch[1:]}"
    return f"It never fits: read it in parts with readFile, or {fetch}"


async def _returned(request: Request, found: Artifact) -> JsonObject:
    source = await artifacts.open_blob(desk_of(request), digest=found.sha256)
    with source:
        content = await asyncio.to_thread(source.read, FILES_BYTES_MAX)
    name = found.path.rpartition("/")[2]
    return {"name": name, "mime_type": found.media_type, "content": base64.b64encode(content).decode("ascii")}


@router.get(
    "/jobs/{job_id}/text", operation_id="readFile", summary="Read a job's file as text",
    responses={200: {"model": TextPage}}, openapi_extra=_SAFE,
)  # fmt: skip
async def read_file(
    request: Request,
    job_id: JobPath,
    path: FilePath,
    caller: From,
    offset_bytes: Annotated[
        int, Query(ge=0, le=2**40, description="Where to begin; next_offset_bytes of the last part.")
    ] = 0,
) -> Response:
    """Read a file that a job left in /out, 16 kB at a time; bytes that are no text are shown as replacement characters."""
    desk = desk_of(request)
    found = await artifacts.find(desk, tenant=caller.tenant, job_id=parse_job_id(job_id), path=path)
    source = await artifacts.open_blob(desk, digest=found.sha256)
    with source:
        piece = await asyncio.to_thread(_read_at, source, offset_bytes)
    behind = offset_bytes + len(piece)
    return answer(
        {
            "path": found.path,
            "text": piece.decode("utf-8", "replace"),
            "offset_bytes": offset_bytes,
            "next_offset_bytes": behind if piece and behind < found.size_bytes else None,
            "size_bytes": found.size_bytes,
        }
    )


def _read_at(source: BinaryIO, offset_bytes: int) -> bytes:
    """Read a part that does not end inside a character."""
    source.seek(offset_bytes)
    piece = source.read(PAGE_BYTES)
    try:
        piece.decode("utf-8")
    except UnicodeDecodeError as fault:
        if fault.end == len(piece) == PAGE_BYTES and fault.start > PAGE_BYTES - 4:
            return piece[: fault.start]
    return piece


@router.get(
    "/capabilities", operation_id="findCapabilities", summary="Find installed functions",
    responses={200: {"model": CapabilitiesFound}}, openapi_extra=_SAFE,
)  # fmt: skip
async def find_capabilities(
    request: Request,
    caller: From,
    words: Annotated[
        str, Query(description="A name, or words of what it should do; empty for all.", max_length=300)
    ] = "",
) -> Response:
    """Find functions that the person installed, with the schema of their args. Use one where it fits instead of writing code."""
    known = [one for one in offered(desk_of(request)) if may_call(desk_of(request), one.name)]
    found = [one.capability for one in discovery.find(words, known)] if words.strip() else known
    shown = [_capability(each) for each in found[:CAPABILITIES_MAX]]
    more = f"{len(found) - len(shown)} more: say in words what it should do." if len(found) > len(shown) else None
    if known and not found:
        more = "Nothing here fits these words: say it in other words, or write a script for runPython."
    return answer({"capabilities": shown, "total": len(found), "next": more})


def _capability(capability: Capability) -> JsonObject:
    return {
        "name": capability.name,
        "version": capability.version,
        "summary": clip(capability.summary, 500)[0],
        "effects": str(capability.effects),
        "takes_code": capability.takes_code,
        "input_schema": clip(dumps(capability.input_schema), SCHEMA_CHARS_MAX)[0],
    }


@router.get(
    "/node", operation_id="describeNode", summary="Learn how to work with this machine",
    responses={200: {"model": NodeDescribed}}, openapi_extra=_SAFE,
)  # fmt: skip
async def describe_node(request: Request, caller: From) -> Response:
    """Read how scripts are written for this machine: environments and packages, shared folders, limits, what is refused."""
    page = await instruct(desk_of(request), tenant=caller.tenant, version=request.app.version)
    text, is_cut = clip(page, ANSWER_CHARS_MAX)
    return answer({"instructions": text, "cut": is_cut})

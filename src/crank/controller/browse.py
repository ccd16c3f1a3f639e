"""Browse: list and read, page by page, what a job left or printed, what lies in a session, and what a mount holds.

A mount is looked into by a small job of its own: behind the same walls, with the same eyes and the same record as
every script, so that nobody sees more through the node than through a sandbox, wherever the folder is.
"""

import asyncio
import base64
import binascii
import os
from dataclasses import dataclass
from typing import Any, BinaryIO

from crank.controller import artifacts, cancel, follow, reach
from crank.controller.desk import Desk
from crank.controller.submit import Submission, submit
from crank.controller.views import find_job, find_outcome
from crank.domain.ids import JobId, SessionId, TenantId
from crank.domain.job import Status
from crank.domain.json import JsonObject
from crank.domain.quantity import MIB
from crank.domain.rules.page import PAGE_BYTES_MAX, page_document
from crank.domain.rules.request import parse_mount_path
from crank.errors import InvalidRequest, NotFound, Unavailable

ENTRIES_MAX = 200
_LOOK_SEC = 20
_LIVE_CHARS_MAX = 1 * MIB
_PAGE_EVENTS = 500
# Run in the sandbox; `args` and `result` are the job's. A link that leads out of the mount is not followed.
_LOOK = """
import base64, os
root = "/in/looked-at"
place = os.path.realpath(os.path.join(root, args["path"]))
if place != root and not place.startswith(root + "/"):
    result = {"fault": "not_found"}
elif not os.access(place, os.R_OK) and os.path.exists(place):
    result = {"fault": "not_readable"}
elif args["what"] == "list" and os.path.isdir(place):
    shown = [(os.fsencode(entry.name).decode("utf-8", "backslashreplace"), entry) for entry in os.scandir(place)]
    names = sorted((pair for pair in shown if pair[0] > args["after"]), key=lambda pair: pair[0])
    files = []
    for name, entry in names[: args["limit"]]:
        kind = "link" if entry.is_symlink() else "folder" if entry.is_dir() else "file" if entry.is_file() else "other"
        size = entry.stat(follow_symlinks=False).st_size if kind == "file" else None
        # Only a script can open what has no name in Unicode.
        files.append({"name": name, "kind": kind if name == entry.name else "unreadable", "size_bytes": size})
    result = {"files": files, "more": len(names) > args["limit"]}
elif args["what"] == "read" and os.path.isfile(place):
    with open(place, "rb") as source:
        size = os.fstat(source.fileno()).st_size
        source.seek(args["offset"])
        result = {"size_bytes": size, "base64": base64.b64encode(source.read(args["length"])).decode()}
else:
    result = {"fault": "not_found"}
"""


@dataclass(frozen=True, slots=True)
class Reader:
    """Who looks."""

    tenant: TenantId
    subject: str


async def list_artifacts(desk: Desk, reader: Reader, *, job_id: JobId, after: str, limit: int) -> JsonObject:
    """Return a page of what a job left in /out, by path. Raises NotFound."""
    found = await artifacts.list_artifacts(desk, tenant=reader.tenant, job_id=job_id)
    later = sorted((one for one in found if one.path > after), key=lambda one: one.path)
    files = [{"path": one.path, "kind": "file", "size_bytes": one.size_bytes} for one in later[:limit]]
    return {"files": files, "next": files[-1]["path"] if len(later) > limit else None}


async def list_session(
    desk: Desk, reader: Reader, *, session_id: SessionId, path: str, after: str, limit: int
) -> JsonObject:
    """Return a page of a session's folder. Raises NotFound, Conflict, Unavailable."""
    answer = await reach.list_files(desk, tenant=reader.tenant, session_id=session_id, path=path)
    later = sorted((one for one in answer["files"] if one["path"] > after), key=lambda one: str(one["path"]))
    files = [{name: one[name] for name in ("path", "kind", "size_bytes")} for one in later[:limit]]
    return {"files": files, "next": files[-1]["path"] if len(later) > limit else None}


async def list_mount(desk: Desk, reader: Reader, *, mount: str, path: str, after: str, limit: int) -> JsonObject:
    """Return a page of a mount's folder. Raises NotAllowed, NotFound, Unavailable, InvalidRequest."""
    folder = parse_mount_path(path, field="path") if path else ""
    name = after.rpartition("/")[2]
    seen = await _look(desk, reader, mount, {"what": "list", "path": folder, "after": name, "limit": limit})
    try:
        files = [
            {
                "path": f"{folder}/{entry['name']}" if folder else str(entry["name"]),
                "kind": str(entry["kind"]),
                "size_bytes": None if entry["size_bytes"] is None else int(entry["size_bytes"]),
            }
            for entry in seen["files"]
        ]
        return {"files": files, "next": files[-1]["path"] if seen["more"] and files else None}
    except (KeyError, TypeError, ValueError) as fault:
        raise _unseen("The listing cannot be read.") from fault


async def read_artifact(
    desk: Desk, reader: Reader, *, job_id: JobId, path: str, offset_bytes: int, length_bytes: int
) -> JsonObject:
    """Return a page of a file that a job left. Raises NotFound."""
    found = await artifacts.find(desk, tenant=reader.tenant, job_id=job_id, path=path)
    source = await artifacts.open_blob(desk, digest=found.sha256)
    octets = await asyncio.to_thread(_part, source, offset_bytes, length_bytes)
    shown = page_document(octets, offset_bytes=offset_bytes, size_bytes=found.size_bytes)
    return {"path": path, "media_type": found.media_type, **shown}


async def read_session(
    desk: Desk, reader: Reader, *, session_id: SessionId, path: str, offset_bytes: int, length_bytes: int
) -> JsonObject:
    """Return a page of a session's file. Raises NotFound, Conflict, Unavailable."""
    source, size_bytes, _ = await reach.get_file(desk, tenant=reader.tenant, session_id=session_id, path=path)
    octets = await asyncio.to_thread(_part, source, offset_bytes, length_bytes)
    return {
        "path": path,
        "media_type": None,
        **page_document(octets, offset_bytes=offset_bytes, size_bytes=size_bytes),
    }


async def read_mount(
    desk: Desk, reader: Reader, *, mount: str, path: str, offset_bytes: int, length_bytes: int
) -> JsonObject:
    """Return a page of a file in a mount. Raises NotAllowed, NotFound, Unavailable, InvalidRequest."""
    wanted = parse_mount_path(path, field="path")
    asked = {"what": "read", "path": wanted, "offset": offset_bytes, "length": length_bytes}
    seen = await _look(desk, reader, mount, asked)
    try:
        octets, size_bytes = base64.b64decode(seen["base64"], validate=True), int(seen["size_bytes"])
    except (KeyError, TypeError, ValueError, binascii.Error) as fault:
        raise _unseen("The page cannot be read.") from fault
    shown = page_document(octets[:length_bytes], offset_bytes=offset_bytes, size_bytes=size_bytes)
    return {"path": wanted, "media_type": None, **shown}


async def read_printed(
    desk: Desk, reader: Reader, *, job_id: JobId, stream: str, offset_bytes: int, length_bytes: int
) -> JsonObject:
    """Return a page of what a job printed, so far or in all. Raises NotFound."""
    texts = await printed(desk, tenant=reader.tenant, job_id=job_id)
    octets = texts[0 if stream == "stdout" else 1].encode("utf-8", "replace")
    part = octets[offset_bytes : offset_bytes + length_bytes]
    shown = page_document(part, offset_bytes=offset_bytes, size_bytes=len(octets))
    return {"path": stream, "media_type": "text/plain", **shown}


async def printed(desk: Desk, *, tenant: TenantId, job_id: JobId) -> tuple[str, str]:
    """Return stdout and stderr: all that was kept of an ended job, the last part of one that runs. Raises NotFound."""
    job = await find_job(desk, tenant=tenant, job_id=job_id)
    outcome = await find_outcome(desk, job)
    if outcome is not None:
        return outcome.stdout.text, outcome.stderr.text
    texts = {"stdout": "", "stderr": ""}
    position = 0
    while page := await desk.streams.read(job_id, position, _PAGE_EVENTS):
        position = page[-1][0]
        for _, event in page:
            if event.kind in texts and event.epoch == job.epoch:
                texts[event.kind] = (texts[event.kind] + event.text)[-_LIVE_CHARS_MAX:]
    return texts["stdout"], texts["stderr"]


def _part(source: BinaryIO, offset_bytes: int, length_bytes: int) -> bytes:
    with source:
        source.seek(offset_bytes, os.SEEK_SET)
        return source.read(min(length_bytes, PAGE_BYTES_MAX))


async def _look(desk: Desk, reader: Reader, mount: str, asked: JsonObject) -> dict[str, Any]:
    fields = {
        "code": _LOOK,
        "args": asked,
        "mounts": [{"name": "looked-at", "mount": mount}],
        "effects": "pure",
        "constraints": {"timeout_sec": _LOOK_SEC},
    }
    submitted = await submit(desk, tenant=reader.tenant, subject=reader.subject, submission=Submission(fields))
    job_id = submitted.job.job_id
    job = submitted.job
    try:
        job = await follow.wait_ended(desk, tenant=reader.tenant, job_id=job_id, timeout_sec=_LOOK_SEC)
    finally:
        if not job.ended:
            await cancel.cancel(desk, tenant=reader.tenant, subject=reader.subject, job_id=job_id)
    outcome = await find_outcome(desk, job)
    if job.status is not Status.SUCCEEDED or outcome is None or not isinstance(outcome.result, dict):
        raise _unseen(f"Job {job_id} is {job.status}.")
    seen: dict[str, Any] = outcome.result
    if seen.get("fault") == "not_readable":
        raise InvalidRequest("Jobs may not read this file.", code="file_unreadable", field="path",
                             fix="Let its owner allow others to read it.")  # fmt: skip
    if "fault" in seen:
        raise NotFound("The mount holds no such thing.", code="file_not_found", field="path",
                       fix="Call list_files first.")  # fmt: skip
    return seen


def _unseen(detail: str) -> Unavailable:
    return Unavailable(
        "The mount could not be looked into.",
        code="mount_unseen",
        fix="Try again when the worker is less busy; the last jobs of the node say what stood in the way.",
        detail=detail,
    )

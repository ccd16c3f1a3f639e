"""What can be read by address: what a job printed and left, and what the node offers."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from crank.api.mcp.tools import PURPOSES
from crank.api.peer import Caller
from crank.controller import artifacts, browse, views
from crank.controller.desk import Desk
from crank.controller.instruct import instruct
from crank.domain.capability import parse_capability_name
from crank.domain.ids import JobId, parse_job_id
from crank.domain.json import JsonValue, dumps
from crank.domain.quantity import KIB
from crank.domain.rules import excerpt
from crank.domain.rules.page import page
from crank.errors import NotFound, TooLarge

URI_CHARS_MAX = 2_048
LOG_CHARS_MAX = 64 * KIB
FILE_BYTES_MAX = 256 * KIB
FILES_SHOWN_MAX = 500
_SCHEME = "crank://"
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Contents:
    """What an address holds: text, or base64 of bytes."""

    media_type: str
    text: str | None
    base64: str | None = None


def listed() -> list[dict[str, Any]]:
    """Return the addresses that always hold something."""
    return [
        {
            "uri": "crank://capabilities",
            "name": "capabilities",
            "title": "Capabilities",
            "description": "What this node offers, one line each; find_capability ranks them by what you want.",
            "mime_type": _JSON,
        },
        {
            "uri": "crank://instructions",
            "name": "instructions",
            "title": "How to work with this node",
            "description": "Its profiles with their packages, its mounts and limits, and examples that run. Read it once.",
            "mime_type": "text/markdown",
        },
    ]


TEMPLATES: Sequence[dict[str, Any]] = (
    {
        "uri_template": "crank://capabilities/{name}",
        "name": "capability",
        "title": "A capability",
        "description": "One capability with its schemas and limits.",
        "mime_type": _JSON,
    },
    {
        "uri_template": "crank://jobs/{job_id}",
        "name": "job",
        "title": "A job",
        "description": "A job as it stands.",
        "mime_type": _JSON,
    },
    {
        "uri_template": "crank://jobs/{job_id}/log",
        "name": "job-log",
        "title": "What a job printed",
        "description": "Its stdout and then its stderr, while it runs too.",
        "mime_type": "text/plain",
    },
    {
        "uri_template": "crank://jobs/{job_id}/files",
        "name": "job-files",
        "title": "What a job left",
        "description": "The files of /out with sizes and hashes.",
        "mime_type": _JSON,
    },
    {
        "uri_template": "crank://jobs/{job_id}/files/{+path}",
        "name": "job-file",
        "title": "A file that a job left",
        "description": f"One file of at most {FILE_BYTES_MAX} bytes; read_file reads larger ones by pages.",
    },
)


def file_uri(job_id: str, path: str) -> str:
    """Return the address of a file that a job left."""
    return f"{_SCHEME}jobs/{job_id}/files/{quote(path)}"


async def read(desk: Desk, caller: Caller, uri: str, *, version: str) -> Contents:
    """Return what an address holds. Raises NotFound, InvalidRequest, TooLarge."""
    if len(uri) > URI_CHARS_MAX or not uri.startswith(_SCHEME):
        raise _nothing()
    place = uri.removeprefix(_SCHEME)
    if place == "capabilities":
        return await _capabilities(desk)
    if place == "instructions":
        text = await instruct(desk, tenant=caller.tenant, version=version, tools=PURPOSES)
        return Contents("text/markdown", text)
    if found := re.fullmatch(r"capabilities/([^/]+)", place):
        return await _capability(desk, unquote(found[1]))
    found = re.fullmatch(r"jobs/([^/]+)(?:/(log|files)(?:/(.+))?)?", place)
    if not found or (found[2] == "log" and found[3] is not None):
        raise _nothing()
    job_id = parse_job_id(unquote(found[1]))
    if found[2] is None:
        return await _job(desk, caller, job_id)
    if found[2] == "log":
        return await _log(desk, caller, job_id)
    return await _files(desk, caller, job_id) if found[3] is None else await _file(desk, caller, job_id, found[3])


def _nothing() -> NotFound:
    return NotFound("Nothing lives at this address.", code="resource_not_found", field="uri",
                    fix="List the resources and their templates first.")  # fmt: skip


def _told(value: JsonValue) -> Contents:
    return Contents(_JSON, dumps(value))


async def _capabilities(desk: Desk) -> Contents:
    shown = ("name", "version", "summary", "accelerator", "effects", "env_profile")
    offered = (await views.capabilities_document(desk))["capabilities"]
    return _told({"capabilities": [{name: entry[name] for name in shown} for entry in offered]})


async def _capability(desk: Desk, wanted: str) -> Contents:
    parse_capability_name(wanted, field="uri")
    offered = (await views.capabilities_document(desk))["capabilities"]
    found = [entry for entry in offered if entry["name"] == wanted]
    if not found:
        raise _nothing()
    return _told({"offers": found})


async def _job(desk: Desk, caller: Caller, job_id: JobId) -> Contents:
    document = await views.job_document(desk, tenant=caller.tenant, job_id=job_id)
    return _told(excerpt.excerpt(document, next_step=None))


async def _log(desk: Desk, caller: Caller, job_id: JobId) -> Contents:
    stdout, stderr = await browse.printed(desk, tenant=caller.tenant, job_id=job_id)
    shown = [excerpt.cut(text, LOG_CHARS_MAX // 2)[0] for text in (stdout, stderr)]
    return Contents("text/plain", f"{shown[0]}\n--- stderr ---\n{shown[1]}" if stderr else shown[0])


async def _files(desk: Desk, caller: Caller, job_id: JobId) -> Contents:
    found = await artifacts.list_artifacts(desk, tenant=caller.tenant, job_id=job_id)
    shown = [
        {
            "path": one.path,
            "size_bytes": one.size_bytes,
            "sha256": one.sha256,
            "media_type": one.media_type,
            "uri": file_uri(job_id, one.path),
        }
        for one in found
    ]
    return _told({"files": shown[:FILES_SHOWN_MAX], "total": len(shown)})


async def _file(desk: Desk, caller: Caller, job_id: JobId, quoted: str) -> Contents:
    path = unquote(quoted)
    found = await artifacts.find(desk, tenant=caller.tenant, job_id=job_id, path=path)
    if found.size_bytes > FILE_BYTES_MAX:
        raise TooLarge(
            f"The file has {found.size_bytes} bytes; a resource holds at most {FILE_BYTES_MAX}.",
            code="resource_too_large",
            field="uri",
            fix="Call read_file with job_id, path and offset_bytes.",
        )
    with await artifacts.open_blob(desk, digest=found.sha256) as source:
        octets = source.read(FILE_BYTES_MAX)
    shown = page(octets)
    if shown.text is not None and shown.taken_bytes == len(octets):
        return Contents(found.media_type, shown.text)
    return Contents(found.media_type, None, base64.b64encode(octets).decode("ascii"))

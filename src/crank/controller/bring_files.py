"""Files that a caller hands over by link: fetched within bounds, kept as blobs, named in the job's request."""

import asyncio
import hashlib
import io
from collections.abc import Sequence
from typing import Any

from crank.controller import artifacts
from crank.controller.desk import Desk
from crank.domain.ids import Digest
from crank.domain.json import JsonObject
from crank.domain.rules.file_links import LINKED_FILE_BYTES_MAX, LINKED_FILES_BYTES_MAX, FileLink, parse_file_links
from crank.errors import NotAllowed, TooLarge, Unavailable

# Together, so that enough of the caller's own time is left to wait for the job.
FETCH_SEC_MAX = 12.0


async def bring_files(desk: Desk, entries: Sequence[Any]) -> list[JsonObject]:
    """Return the `files` of a job's request for what was handed over.

    Raises NotAllowed (`file_links_off`, `file_link_refused`), InvalidRequest, TooLarge, Unavailable
    (`file_link_failed`, `disk_full`). What was fetched before a refusal is a blob that no job refers to, which is swept.
    """
    links = parse_file_links(entries, desk.policy.file_hosts)
    if not links:
        return []
    if desk.downloads is None:
        raise NotAllowed("This node fetches no files for its callers.", code="file_links_off", field="openaiFileIdRefs")
    try:
        async with asyncio.timeout(FETCH_SEC_MAX):
            return await _fetch(desk, links)
    except TimeoutError as fault:
        raise Unavailable(f"The files did not arrive within {FETCH_SEC_MAX:g} s.", code="file_link_failed") from fault


async def _fetch(desk: Desk, links: Sequence[FileLink]) -> list[JsonObject]:
    assert desk.downloads is not None, "asked for before"
    left_bytes = LINKED_FILES_BYTES_MAX
    files: list[JsonObject] = []
    for link in links:
        content = await desk.downloads.fetch(link.url, bytes_max=min(LINKED_FILE_BYTES_MAX, left_bytes))
        left_bytes -= len(content)
        if left_bytes < 0:
            raise TooLarge("The files are too large together.", code="files_too_large", field="openaiFileIdRefs")
        digest = Digest(hashlib.sha256(content).hexdigest())
        # Stored as an upload of the caller's own would be, so that the same rules say who may use it.
        await artifacts.store(desk, source=io.BytesIO(content), expected=digest, bytes_max=LINKED_FILE_BYTES_MAX)
        files.append({"path": link.path, "sha256": digest})
    return files

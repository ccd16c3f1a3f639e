"""Reach: calls on what runs. Interrupt, stdin, and the files of a session, each answered once, faults included."""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from typing import BinaryIO

import structlog

from crank.domain.ids import Digest, JobId
from crank.domain.json import JsonValue
from crank.domain.quantity import BLOB_BYTES_MAX, KIB
from crank.domain.rules.call import verdict_of
from crank.domain.rules.request import parse_relative_path
from crank.domain.rules.session import SESSION_ENDED
from crank.errors import Conflict, CrankError, InvalidRequest, NotFound, SandboxError, TooLarge, Unavailable
from crank.ports import SandboxSession
from crank.wire import Answered, Files, Interrupt, LeaseFile, Stdin, Touch
from crank.worker.attempt import Attempt, Bench, Key
from crank.worker.current import CurrentLink
from crank.worker.inputs import fetch_file
from crank.worker.sessions import Sessions

_log = structlog.get_logger(__name__)

# More are cut off and said to be so: a message is bounded, and people page through folders.
LISTED_MAX = 5_000
# Calls that are worked on at once; the others wait their turn.
CALLS_MAX = 8
_CHUNK_BYTES = 256 * KIB

Call = Interrupt | Stdin | Files


class Reach:
    """Answers calls of the controller."""

    def __init__(self, attempts: Mapping[Key, Attempt], sessions: Sessions, current: CurrentLink, bench: Bench) -> None:
        self._attempts = attempts
        self._sessions = sessions
        self._current = current
        self._bench = bench
        self._turns = asyncio.Semaphore(CALLS_MAX)

    async def answer(self, call: Call) -> None:
        """Do what is asked and say how it went."""
        try:
            async with self._turns:
                answered = Answered(call.call_id, "done", None, None, await self._do(call))
        except CrankError as fault:
            answered = Answered(call.call_id, verdict_of(fault), fault.error_code, fault.message, None)
        except Exception:  # noqa: BLE001 - whoever called must hear of it, and the worker goes on
            _log.exception("call.defect", call=type(call).__name__)
            answered = Answered(call.call_id, "failed", "internal_error", "The worker failed; its log says how.", None)
        if self._current.link is not None:
            # Without a link nobody waits for it any more.
            with suppress(Unavailable):
                await self._current.link.send(answered)

    async def _do(self, call: Call) -> JsonValue:
        match call:
            case Interrupt():
                return await self._interrupt(call)
            case Stdin():
                return self._stdin(call)
            case Files():
                return await self._files(call)

    # --- running jobs ---

    def _attempt(self, job_id: str, epoch: int) -> Attempt:
        attempt = self._attempts.get((JobId(job_id), epoch))
        if attempt is None or attempt.running is None:
            raise Conflict("The job does not run now.", code="job_not_running", fix="Look at its status first.")
        return attempt

    async def _interrupt(self, call: Interrupt) -> JsonValue:
        running = self._attempt(call.job_id, call.epoch).running
        assert running is not None, "checked by _attempt"
        await running.interrupt()
        return None

    def _stdin(self, call: Stdin) -> JsonValue:
        stdin = self._attempt(call.job_id, call.epoch).stdin
        if stdin is None:
            raise Conflict("This job's stdin is empty.", code="stdin_closed", fix="Submit the job with stdin: true.")
        try:
            chunk = base64.b64decode(call.base64, validate=True)
        except (binascii.Error, ValueError) as fault:
            raise InvalidRequest("The bytes are not base64.", code="invalid_field", field="base64") from fault
        stdin.take(chunk, call.offset_bytes, end=call.end)
        return {"taken_bytes": stdin.taken_bytes, "ended": stdin.ended}

    # --- files of a session ---

    async def _files(self, call: Files) -> JsonValue:
        kept = self._sessions.find(call.session_id)
        if kept is None or kept.sandbox is None:
            raise Conflict("The session has ended, or is not open yet.", code=SESSION_ENDED, field="session")
        self._sessions.touch(Touch(call.session_id, None, None))
        try:
            return await self._act(kept.sandbox, call)
        except SandboxError as fault:
            if kept.sandbox.alive:
                raise
            raise Conflict("The session has ended.", code=SESSION_ENDED, field="session") from fault

    async def _act(self, sandbox: SandboxSession, call: Files) -> JsonValue:
        path = parse_relative_path(call.path, field="path") if call.path or call.verb != "list" else ""
        match call.verb:
            case "list":
                return await _list(sandbox, path)
            case "get":
                return await self._get(sandbox, path)
            case "put":
                return await self._put(sandbox, path, call)
            case "remove":
                await sandbox.remove_file(path)
                return None

    async def _get(self, sandbox: SandboxSession, path: str) -> JsonValue:
        with await asyncio.to_thread(self._bench.spool.scratch) as target:
            size_bytes = await sandbox.get_file(path, target)
            if size_bytes > BLOB_BYTES_MAX:
                raise TooLarge(f"The file is larger than {BLOB_BYTES_MAX} bytes.", code="file_too_large", field="path")
            digest = await asyncio.to_thread(_digest, target)
            target.seek(0)
            await (await self._current.wait()).send_blob(digest, target, size_bytes)
        return {"sha256": digest, "size_bytes": size_bytes}

    async def _put(self, sandbox: SandboxSession, path: str, call: Files) -> JsonValue:
        if call.sha256 is None or call.size_bytes is None:
            raise InvalidRequest("A file that is put has a digest and a size.", code="invalid_file", field="sha256")
        file = LeaseFile(path, call.sha256, call.size_bytes)
        with await fetch_file(file, self._bench, self._current) as source:
            await sandbox.put_file(path, source)
        return {"size_bytes": call.size_bytes}


async def _list(sandbox: SandboxSession, path: str) -> JsonValue:
    if path:
        # A file is listed as itself, so that one call tells whether something is there.
        parent, _, _ = path.rpartition("/")
        own = next((entry for entry in await sandbox.list_files(parent) if entry.path == path), None)
        if own is None:
            raise NotFound("There is nothing with this path in the session.", code="file_not_found", field="path")
        found = await sandbox.list_files(path) if own.kind == "folder" else (own,)
    else:
        found = await sandbox.list_files()
    entries = [
        {"path": one.path, "kind": one.kind, "size_bytes": one.size_bytes, "modified_us": one.modified_us}
        for one in found[:LISTED_MAX]
    ]
    return {"files": entries, "truncated": len(found) > LISTED_MAX}


def _digest(source: BinaryIO) -> Digest:
    source.seek(0)
    hashed = hashlib.sha256()
    while piece := source.read(_CHUNK_BYTES):
        hashed.update(piece)
    return Digest(hashed.hexdigest())

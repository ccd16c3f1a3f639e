"""Calls of one attempt: what its code asks for goes to the controller, and what became of it comes back into its sandbox.

Steps of one call, marked again in the code:
 1. check it against what the lease says was handed over
 2. copy its files out of the sandbox, and bring them to the controller
 3. say the call, on each new link again, until it is answered; its number makes a repeat harmless
 4. lay what the called job left into the sandbox
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, cast

from crank.domain.handle import CALL_FILES_BYTES_MAX, CALLS_FOLDER, JobCall
from crank.domain.ids import Digest
from crank.domain.json import JsonObject
from crank.domain.quantity import KIB
from crank.domain.rules.request import parse_relative_path
from crank.errors import CrankError, NotAllowed, TooLarge, Unavailable
from crank.ports import ControllerLink, SandboxSession
from crank.wire import Lease, LeaseFile
from crank.wire.calls import Call, CallAnswer, CallFile, CallMount
from crank.worker.attempt import Bench
from crank.worker.current import CurrentLink
from crank.worker.inputs import Part, fetch_file

_CHUNK_BYTES = 256 * KIB
_PAUSE_SEC = 0.2
_PAUSE_SEC_MAX = 5.0


@dataclass(frozen=True, slots=True)
class _Taken:
    """A file of a call, behind others in one scratch file."""

    path: str
    sha256: Digest
    start: int
    size_bytes: int


class JobCalls:
    """Takes the calls of one attempt (`ports.CallTaker`)."""

    def __init__(self, lease: Lease, sandbox: SandboxSession, bench: Bench, current: CurrentLink) -> None:
        self._lease = lease
        self._sandbox = sandbox
        self._bench = bench
        self._current = current
        self._answers: dict[int, asyncio.Future[CallAnswer]] = {}

    def _folder(self, number: int) -> str:
        # Jobs of one session share /scratch, and each counts its calls from one.
        own = f"{self._lease.job_id[-8:]}-" if self._lease.session_id is not None else ""
        return f"{CALLS_FOLDER}/{own}{number}"

    @property
    def told(self) -> Sequence[JsonObject]:
        """Return what the code is told of its handles."""
        return [asdict(handle) for handle in self._lease.handles or ()]

    @property
    def waiting(self) -> bool:
        """Tell whether the code waits for an answer, and so lends its slot."""
        return bool(self._answers)

    def answered(self, message: CallAnswer) -> None:
        """Hand an answer to the call that waits for it; one that nobody waits for any more is dropped."""
        waiting = self._answers.get(message.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    async def take(self, call: JobCall) -> JsonObject:
        """Do what is asked and return the answer as the code reads it. Raises CrankError for what was refused here."""
        self._check(call)  # 1
        with await asyncio.to_thread(self._bench.spool.scratch) as scratch:
            taken = await self._copy_out(call, scratch)  # 2
            answer = await self._ask(call, scratch, taken)  # 3
        files, missed = await self._lay_in(answer)  # 4
        return {
            "number": call.number,
            "verdict": answer.verdict,
            "status": answer.status,
            "reason": answer.reason,
            "code": answer.code,
            "message": answer.message,
            "fix": answer.fix,
            "result": answer.result,
            "folder": self._folder(call.number),
            "files": files,
            "left_out": answer.left_out + missed,
        }

    def _check(self, call: JobCall) -> None:
        handed = {handle.name: handle.kind for handle in self._lease.handles or ()}
        if handed.get(call.handle) != "call" or not set(call.handles) <= set(handed):
            raise NotAllowed(f"The job has no handle {call.handle[:80]!r} for this call.", code="no_handle", field="handles")
        if any(handed.get(name) != "mount" for name in call.mounts.values()):
            raise NotAllowed("The job has no such handle of kind mount.", code="handle_mount", field="handles")
        for path in call.files:
            parse_relative_path(path, field="files")

    async def _copy_out(self, call: JobCall, scratch: BinaryIO) -> list[_Taken]:
        taken: list[_Taken] = []
        start = 0
        for path, place in call.files.items():
            size_bytes = await self._sandbox.get_file(place, scratch)
            if start + size_bytes > CALL_FILES_BYTES_MAX:
                raise TooLarge(
                    f"The files of a call are together at most {CALL_FILES_BYTES_MAX} bytes.", code="files_too_large", field="files"
                )
            digest = await asyncio.to_thread(_digest, scratch, start, size_bytes)
            taken.append(_Taken(path, digest, start, size_bytes))
            start += size_bytes
            scratch.seek(start)
        return taken

    async def _ask(self, call: JobCall, scratch: BinaryIO, taken: list[_Taken]) -> CallAnswer:
        message = Call(
            job_id=self._lease.job_id,
            epoch=self._lease.epoch,
            number=call.number,
            handle=call.handle,
            capability=call.capability,
            version=call.version,
            args=call.args,
            code=call.code,
            files=[CallFile(each.path, each.sha256, each.size_bytes) for each in taken],
            mounts=[CallMount(name, handle) for name, handle in call.mounts.items()],
            handles=list(call.handles),
            timeout_sec=call.timeout_sec,
        )
        answer: asyncio.Future[CallAnswer] = asyncio.get_running_loop().create_future()
        self._answers[call.number] = answer
        pause_sec = _PAUSE_SEC
        try:
            while True:
                link = await self._current.wait()
                try:
                    await _bring(link, scratch, taken)
                    await link.send(message)
                except Unavailable:
                    # The link is going, or the controller has no room just now.
                    await asyncio.sleep(pause_sec * (0.5 + self._bench.ids.jitter() / 2))
                    pause_sec = min(pause_sec * 2, _PAUSE_SEC_MAX)
                    continue
                self._bench.failpoints.reach("worker.call_sent")
                if await self._wait(answer, link):
                    return answer.result()
        finally:
            del self._answers[call.number]

    async def _wait(self, answer: asyncio.Future[CallAnswer], link: ControllerLink) -> bool:
        """Wait for the answer, or for the end of the link that it would come by; tell which it was."""
        lost = asyncio.ensure_future(self._current.lost(link))
        either: set[asyncio.Future[Any]] = {answer, lost}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
        return answer.done()

    async def _lay_in(self, answer: CallAnswer) -> tuple[list[str], int]:
        laid: list[str] = []
        for file in answer.files:
            try:
                source = await fetch_file(LeaseFile(file.path, file.sha256, file.size_bytes), self._bench, self._current)
                with source:
                    await self._sandbox.put_file(f"{self._folder(answer.number)}/{file.path}", source)
            except CrankError:
                # No room, something of the job's own in the way, or not to be had any more: told as left out.
                continue
            laid.append(file.path)
        return laid, len(answer.files) - len(laid)


async def _bring(link: ControllerLink, scratch: BinaryIO, taken: list[_Taken]) -> None:
    for each in taken:
        scratch.seek(each.start)
        await link.send_blob(each.sha256, cast(BinaryIO, Part(scratch, each.size_bytes)), each.size_bytes)


def _digest(scratch: BinaryIO, start: int, size_bytes: int) -> Digest:
    scratch.seek(start)
    hashed = hashlib.sha256()
    while size_bytes and (piece := scratch.read(min(size_bytes, _CHUNK_BYTES))):
        hashed.update(piece)
        size_bytes -= len(piece)
    return Digest(hashed.hexdigest())

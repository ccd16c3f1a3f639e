"""The standard input of one run: bounded, in order, and each byte taken once however often a call is repeated."""

import asyncio
from collections import deque
from typing import Protocol

from crank.domain.quantity import STDIN_CALL_BYTES_MAX, STDIN_TOTAL_BYTES_MAX, STDIN_WAITING_BYTES_MAX
from crank.errors import Conflict, CrankError, TooLarge, Unavailable

# How long to wait before bytes are offered again to a run that is about to begin.
_NOT_YET_SEC = 0.02


class Writable(Protocol):
    """What takes the bytes in the end."""

    async def write_stdin(self, chunk: bytes) -> None:
        """Take bytes. Raises Conflict when nothing runs."""
        ...

    async def close_stdin(self) -> None:
        """Take the end. Raises Conflict when nothing runs."""
        ...


class StdinQueue:
    """Takes bytes from calls and hands them to the run as fast as it reads."""

    def __init__(self) -> None:
        self.taken_bytes = 0
        self.ended = False
        self._chunks: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._changed = asyncio.Event()
        self._fault: CrankError | None = None

    def take(self, chunk: bytes, offset_bytes: int | None, *, end: bool) -> None:
        """Take bytes that begin at an offset; those that were taken before are passed over.

        Raises Conflict (`stdin_gap`, `stdin_ended`), TooLarge, Unavailable (`stdin_full`), and what the run refused
        earlier bytes with.
        """
        if self._fault is not None:
            raise self._fault
        begin = self.taken_bytes if offset_bytes is None else offset_bytes
        if begin > self.taken_bytes:
            raise Conflict(
                f"stdin has {self.taken_bytes} bytes; these begin at {begin}.",
                code="stdin_gap",
                field="offset_bytes",
                fix="Send the bytes between first.",
            )
        fresh = chunk[self.taken_bytes - begin :]
        if self.ended and fresh:
            raise Conflict("This job's stdin was ended.", code="stdin_ended", field="end")
        self._check_room(len(chunk), len(fresh))
        if fresh:
            self._chunks.append(fresh)
            self._waiting_bytes += len(fresh)
            self.taken_bytes += len(fresh)
        self.ended = self.ended or end
        self._changed.set()

    def _check_room(self, call_bytes: int, fresh_bytes: int) -> None:
        if call_bytes > STDIN_CALL_BYTES_MAX or self.taken_bytes + fresh_bytes > STDIN_TOTAL_BYTES_MAX:
            raise TooLarge(
                f"stdin takes at most {STDIN_CALL_BYTES_MAX} bytes a call and {STDIN_TOTAL_BYTES_MAX} in all.",
                code="stdin_too_large",
                fix="Send smaller pieces, or send a file with the job.",
            )
        if self._waiting_bytes + fresh_bytes > STDIN_WAITING_BYTES_MAX:
            raise Unavailable(
                "The job has not read what was sent to its stdin before.",
                code="stdin_full",
                fix="Send it again when the job has read on.",
            )

    async def pump(self, target: Writable) -> None:
        """Hand bytes on until their end, until the run takes no more, or until cancelled."""
        while True:
            try:
                while self._chunks:
                    await target.write_stdin(self._chunks[0])
                    self._waiting_bytes -= len(self._chunks.popleft())
                if self.ended:
                    await target.close_stdin()
                    return
            except Conflict as fault:
                if fault.error_code != "not_running":
                    self._fault = fault
                    return
                # Told to run, and not yet running: whoever runs it cancels this when it is over.
                await asyncio.sleep(_NOT_YET_SEC)
                continue
            except CrankError as fault:
                self._fault = fault
                return
            self._changed.clear()
            if not self._chunks and not self.ended:
                await self._changed.wait()

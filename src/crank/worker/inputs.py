"""Input files: from the controller into one scratch file, and from there into a sandbox.

A job may bring more files than a process may have open, so they lie one behind the other in a single one.
"""

import asyncio
import io
from collections.abc import Sequence
from typing import BinaryIO, cast

from crank.domain.ids import parse_digest
from crank.errors import NotFound, SandboxError, Unavailable
from crank.ports import SandboxSession
from crank.wire import LeaseFile
from crank.worker.attempt import Bench
from crank.worker.current import CurrentLink

_FETCH_TRIES = 5
_FETCH_PAUSE_SEC = 0.2


class Inputs:
    """All input files of one job, fetched; close it to remove them."""

    def __init__(self, scratch: BinaryIO, files: Sequence[LeaseFile]) -> None:
        self._scratch = scratch
        self._files = files

    async def put_into(self, sandbox: SandboxSession) -> None:
        """Put every file into the sandbox. Raises what `put_file` raises."""
        start = 0
        for file in self._files:
            self._scratch.seek(start)
            await sandbox.put_file(file.path, cast(BinaryIO, Part(self._scratch, file.size_bytes)))
            start += file.size_bytes

    def close(self) -> None:
        """Remove the files. Safe to call twice."""
        self._scratch.close()


class Part(io.RawIOBase):
    """Reads the next bytes of another file, and its end after so many."""

    def __init__(self, source: BinaryIO, size_bytes: int) -> None:
        self._source = source
        self._left = size_bytes

    def readable(self) -> bool:
        """Tell that it is read."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # any buffer that is asked for
        """Read into a buffer; return how much."""
        octets = self._source.read(min(len(buffer), self._left))
        buffer[: len(octets)] = octets
        self._left -= len(octets)
        return len(octets)


async def fetch_all(files: Sequence[LeaseFile], bench: Bench, current: CurrentLink) -> Inputs:
    """Copy a job's files from the controller. Raises SandboxError."""
    if not files:
        return Inputs(io.BytesIO(), files)
    scratch = await asyncio.to_thread(bench.spool.scratch)
    try:
        start = 0
        for file in files:
            await _fetch(file, scratch, start, current)
            start += file.size_bytes
    except BaseException:
        scratch.close()
        raise
    return Inputs(scratch, files)


async def fetch_file(file: LeaseFile, bench: Bench, current: CurrentLink) -> BinaryIO:
    """Copy a file from the controller into a temporary one; close it to remove it. Raises SandboxError."""
    target = await asyncio.to_thread(bench.spool.scratch)
    try:
        await _fetch(file, target, 0, current)
        target.seek(0)
    except BaseException:
        target.close()
        raise
    return target


async def _fetch(file: LeaseFile, target: BinaryIO, start: int, current: CurrentLink) -> None:
    """Copy a file behind the first `start` bytes of another."""
    digest = parse_digest(file.sha256)
    tries = 0
    while True:
        link = await current.wait()
        target.seek(start)
        target.truncate()
        try:
            await link.fetch_blob(digest, target)
            break
        except NotFound as fault:
            raise SandboxError(f"The input file {file.path} is not there any more.", code="input_missing") from fault
        except Unavailable as fault:
            # A lost link is not the file's fault: only failures on a link that stands are counted.
            tries += current.link is link
            if tries >= _FETCH_TRIES:
                raise SandboxError(
                    f"The input file {file.path} could not be fetched: {fault.message}", code="input_unavailable"
                ) from fault
            await asyncio.sleep(_FETCH_PAUSE_SEC * tries)
    if target.seek(0, 2) - start != file.size_bytes:
        raise SandboxError(f"The input file {file.path} has another size than promised.", code="input_mismatch")

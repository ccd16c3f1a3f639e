"""The body of an upload: unpacked, bounded and written in a thread, so that the loop has time for everybody else."""

import asyncio
import re
import tempfile
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import IO, TypeVar, cast

from starlette.requests import ClientDisconnect, Request

from crank.controller.box_call import BoxRefused
from crank.controller.boxes import BOX_DISK_BYTES
from crank.domain.quantity import KIB, MIB
from crank.errors import InvalidRequest, NotSupported, TooLarge

UPLOAD_SEC_MAX = 300.0
# What an unpacker gives, and takes, at once.
PIECE_BYTES = 256 * KIB
_TAKEN_BYTES = 16 * KIB
# What packing may add to a file: heads, and forms around it.
_PACKING_BYTES = 1 * MIB
# Each member costs a fresh unpacker, whatever it holds; tools that cut files up make one for each 64 KiB.
MEMBERS_MAX = 10_000
_SPOOL_BYTES = 512 * KIB
_LENGTH = re.compile(r"[0-9]{1,15}")
T = TypeVar("T")


class Plain:
    """Bytes on their way into a file, which grows no larger than a sandbox."""

    def __init__(self, target: IO[bytes], *, bytes_max: int = BOX_DISK_BYTES) -> None:
        self._target = target
        self._bytes_max = bytes_max
        self.size_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Take a piece of the body. Raises BoxRefused, InvalidRequest, TooLarge."""
        self._put(chunk)

    def finish(self) -> None:
        """Take the end of the body. Raises InvalidRequest."""

    def _put(self, piece: bytes) -> None:
        self.size_bytes += len(piece)
        if self.size_bytes > self._bytes_max:
            raise too_large(self._bytes_max)
        self._target.write(piece)


class Unzipped(Plain):
    """The same for gzip: any number of members after each other, and nothing else."""

    def __init__(self, target: IO[bytes], *, bytes_max: int = BOX_DISK_BYTES) -> None:
        super().__init__(target, bytes_max=bytes_max)
        self._member = zlib.decompressobj(wbits=31)
        self._members_count = 1
        self._is_begun = False
        self._taken_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Take a piece of the body. Raises BoxRefused, InvalidRequest, TooLarge."""
        self._taken_bytes += len(chunk)
        if self._taken_bytes > self._bytes_max + _PACKING_BYTES:
            raise TooLarge("The body is larger than what it could unpack to.", code="body_too_large")
        # In small pieces: what a member leaves over is copied.
        for at in range(0, len(chunk), _TAKEN_BYTES):
            self._unpack(chunk[at : at + _TAKEN_BYTES])

    def _unpack(self, chunk: bytes) -> None:
        more = bool(chunk)
        while more:
            if self._member.eof:
                self._begin()
            self._is_begun = True
            try:
                piece = self._member.decompress(chunk, PIECE_BYTES)
            except zlib.error as fault:
                raise InvalidRequest("The body is not gzip.", code="invalid_body") from fault
            self._put(piece)
            ended = self._member.eof
            chunk = self._member.unused_data if ended else self._member.unconsumed_tail
            # A full piece may have left more inside, which needs no further input to come out.
            more = bool(chunk) or (len(piece) == PIECE_BYTES and not ended)

    def _begin(self) -> None:
        self._members_count += 1
        if self._members_count > MEMBERS_MAX:
            raise TooLarge(f"A gzip body has at most {MEMBERS_MAX} members here.", code="body_too_large")
        self._member = zlib.decompressobj(wbits=31)

    def finish(self) -> None:
        """Take the end of the body. Raises InvalidRequest."""
        if not self._is_begun or not self._member.eof:
            raise InvalidRequest("The gzip body is cut off.", code="body_incomplete")


def too_large(bytes_max: int = BOX_DISK_BYTES) -> BoxRefused:
    """Return the refusal of what no sandbox has room for."""
    return BoxRefused("resource_exhausted", f"a sandbox holds at most {bytes_max} bytes; this is larger")


def unpacker(request: Request, target: IO[bytes]) -> Plain:
    """Return what takes a request's body. Raises NotSupported, BoxRefused (its length alone is too much)."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("gzip", "identity"):
        raise NotSupported("A body is plain or gzip.", field="Content-Encoding")
    check_length(request)
    return Unzipped(target) if encoding == "gzip" else Plain(target)


def check_length(request: Request) -> None:
    """Refuse a body that says itself that no sandbox has room for it. Raises BoxRefused."""
    said = request.headers.get("content-length", "")
    if _LENGTH.fullmatch(said) and int(said) > BOX_DISK_BYTES + _PACKING_BYTES:
        raise too_large()


async def receive(request: Request, target: IO[bytes]) -> int:
    """Write a request's body into a file; return its size in bytes.

    Raises BoxRefused, InvalidRequest, TooLarge, NotSupported.
    """
    body = unpacker(request, target)
    try:
        async with asyncio.timeout(UPLOAD_SEC_MAX):
            async for chunk in request.stream():
                await in_thread(lambda chunk=chunk: body.feed(chunk))  # type: ignore[misc]
            await in_thread(body.finish)
    except (TimeoutError, ClientDisconnect) as fault:
        raise InvalidRequest("The body did not arrive whole.", code="body_incomplete") from fault
    return body.size_bytes


async def bounded(request: Request) -> AsyncGenerator[bytes, None]:
    """Yield the body of a form, no more of it than a sandbox holds. Raises BoxRefused."""
    check_length(request)
    size_bytes = 0
    async for chunk in request.stream():
        size_bytes += len(chunk)
        if size_bytes > BOX_DISK_BYTES + _PACKING_BYTES:
            raise too_large()
        yield chunk


@asynccontextmanager
async def spooled() -> AsyncIterator[IO[bytes]]:
    """Give a temporary file, in memory while it is small."""
    target = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - closed below, in a thread
    try:
        yield cast("IO[bytes]", target)
    finally:
        await in_thread(target.close)


async def in_thread(act: Callable[[], T]) -> T:
    """Do something short in a thread. Whoever is cancelled leaves when it is done: it may hold a file of theirs."""
    doing = asyncio.ensure_future(asyncio.to_thread(act))
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        with suppress(Exception):
            await doing
        raise

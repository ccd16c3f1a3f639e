"""`/files`: contents of files, by path. Large ones travel as files of the session, small ones on the steward's line."""

import asyncio
import base64
import tempfile
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import IO, BinaryIO, cast

from starlette.background import BackgroundTask
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from crank.api.e2b import connect, replies
from crank.api.e2b.peer import Gate, check_user
from crank.controller.box_call import BoxGone, BoxRefused
from crank.controller.boxes import Box
from crank.controller.desk import Desk
from crank.controller.reach import get_file, put_file, remove_file
from crank.domain.json import JsonObject
from crank.domain.quantity import BLOB_BYTES_MAX, KIB, MIB
from crank.errors import Conflict, CrankError, InvalidRequest, NotSupported, TooLarge

STAGING = ".crank-e2b"
INLINE_BYTES = 512 * KIB
FILES_MAX = 100
UPLOAD_SEC_MAX = 300.0
_CHUNK = 256 * KIB
_METADATA = "x-metadata-"


def routes(gate: Gate) -> list[Route]:
    """Return the routes of files."""
    calls = _Files(gate)
    return [Route("/files", calls.read, methods=["GET"]), Route("/files", calls.write, methods=["POST"])]


class _Files:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._desk: Desk = gate.desk

    async def read(self, request: Request) -> Response:
        """Answer a file's bytes."""
        try:
            box = await self._gate.file_box(request, "read")
            check_user(request)
            name = f"r{self._desk.ids.uuid7()}"
            found = await box.line.ask("read", path=request.query_params.get("path", ""), name=name)
            if "base64" in found:
                return Response(base64.b64decode(found["base64"]), media_type="application/octet-stream")
            return await self._staged(box, name)
        except Exception as fault:  # noqa: BLE001 - told in the protocol's own words
            return replies.plain_fault(fault)

    async def _staged(self, box: Box, name: str) -> Response:
        try:
            source, size_bytes, _ = await get_file(
                box.owner.desk, tenant=box.owner.tenant, session_id=box.session.session_id, path=f"{STAGING}/{name}"
            )
        except Conflict as ended:
            raise BoxGone from ended
        finally:
            with suppress(BoxGone, BoxRefused, CrankError):
                await box.line.ask("unstage", name=name)
        headers = {"Content-Length": str(size_bytes)}
        return StreamingResponse(
            _chunks(source),
            media_type="application/octet-stream",
            headers=headers,
            background=BackgroundTask(source.close),
        )

    async def write(self, request: Request) -> Response:
        """Write one file, or those of a form."""
        try:
            box = await self._gate.file_box(request, "write")
            check_user(request)
            kind = connect.media_type(request)
            if kind == "multipart/form-data":
                written = await self._write_form(box, request)
            elif kind in ("application/octet-stream", ""):
                written = await self._write_body(box, request)
            else:
                raise InvalidRequest("A file comes as a form or as an octet stream.", code="invalid_body")
            return JSONResponse(written)
        except Exception as fault:  # noqa: BLE001 - told in the protocol's own words
            return replies.plain_fault(fault)

    async def _write_body(self, box: Box, request: Request) -> list[JsonObject]:
        path = request.query_params.get("path", "")
        with _spooled() as target:
            unpacker = _unpacker(request)
            size = 0
            try:
                async with asyncio.timeout(UPLOAD_SEC_MAX):
                    async for chunk in request.stream():
                        size = _put(target, unpacker.feed(chunk), size)
                    size = _put(target, unpacker.finish(), size)
            except (TimeoutError, ClientDisconnect) as fault:
                raise InvalidRequest("The body did not arrive whole.", code="body_incomplete") from fault
            return [await self._write_one(box, path, target, size, request)]

    async def _write_form(self, box: Box, request: Request) -> list[JsonObject]:
        if request.headers.get("content-encoding"):
            raise NotSupported("A form is not compressed; send an octet stream.", field="Content-Encoding")
        path = request.query_params.get("path")
        try:
            async with asyncio.timeout(UPLOAD_SEC_MAX):
                form = await MultiPartParser(
                    request.headers, _bounded(request), max_files=FILES_MAX, max_fields=FILES_MAX
                ).parse()
        except MultiPartException as fault:
            raise InvalidRequest(f"The form is malformed: {fault.message}", code="malformed_form") from fault
        except (TimeoutError, ClientDisconnect) as fault:
            raise InvalidRequest("The body did not arrive whole.", code="body_incomplete") from fault
        try:
            parts = [part for _, part in form.multi_items() if not isinstance(part, str)]
            if not parts:
                raise InvalidRequest("The form holds no file.", code="invalid_body", field="file")
            if path and len(parts) > 1:
                raise InvalidRequest("A path in the query names one file.", code="invalid_field", field="path")
            written = []
            for part in parts:
                place = path or part.filename or ""
                written.append(await self._write_one(box, place, part.file, part.size or 0, request))
            return written
        finally:
            await form.close()

    async def _write_one(self, box: Box, path: str, source: IO[bytes], size: int, request: Request) -> JsonObject:
        metadata = {
            name.removeprefix(_METADATA): text for name, text in request.headers.items() if name.startswith(_METADATA)
        }
        source.seek(0)
        if size <= INLINE_BYTES:
            octets = base64.b64encode(source.read()).decode()
            found = await box.line.ask("write", path=path, base64=octets, metadata=metadata)
        else:
            found = await self._stage(box, path, cast("BinaryIO", source), metadata)
        entry = found["entry"]
        return {"name": entry["name"], "type": "file", "path": entry["path"], "metadata": entry["metadata"]}

    async def _stage(self, box: Box, path: str, source: BinaryIO, metadata: dict[str, str]) -> JsonObject:
        name = f"w{self._desk.ids.uuid7()}"
        owner, session_id = box.owner.tenant, box.session.session_id
        try:
            await put_file(box.owner.desk, source, tenant=owner, session_id=session_id, path=f"{STAGING}/{name}")
        except TooLarge as full:
            raise BoxRefused("resource_exhausted", full.message) from full
        except Conflict as ended:
            raise BoxGone from ended
        try:
            return await box.line.ask("write", path=path, staged=name, metadata=metadata)
        except BoxRefused:
            with suppress(CrankError):
                await remove_file(box.owner.desk, tenant=owner, session_id=session_id, path=f"{STAGING}/{name}")
            raise


async def _chunks(source: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(source.read, _CHUNK):
        yield chunk


async def _bounded(request: Request) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > BLOB_BYTES_MAX:
            raise TooLarge(f"An upload is at most {BLOB_BYTES_MAX} bytes.", code="body_too_large")
        yield chunk


@contextmanager
def _spooled() -> Iterator[IO[bytes]]:
    with tempfile.SpooledTemporaryFile(max_size=4 * MIB) as target:
        yield cast("IO[bytes]", target)


def _put(target: IO[bytes], chunk: bytes, size: int) -> int:
    size += len(chunk)
    if size > BLOB_BYTES_MAX:
        raise TooLarge(f"A file is at most {BLOB_BYTES_MAX} bytes.", code="body_too_large")
    target.write(chunk)
    return size


class _Plain:
    def feed(self, chunk: bytes) -> bytes:
        return chunk

    def finish(self) -> bytes:
        return b""


class _Unzipped(_Plain):
    """Unpacks gzip piece by piece; what a piece grows to is bounded, so that a bomb is noticed early."""

    def __init__(self) -> None:
        self._unpack = zlib.decompressobj(wbits=31)

    def feed(self, chunk: bytes) -> bytes:
        try:
            out = self._unpack.decompress(chunk, 64 * MIB)
        except zlib.error as fault:
            raise InvalidRequest("The body is not gzip.", code="invalid_body") from fault
        if self._unpack.unconsumed_tail:
            raise TooLarge("The body unpacks to too much.", code="body_too_large")
        return out

    def finish(self) -> bytes:
        if not self._unpack.eof:
            raise InvalidRequest("The gzip body is cut off.", code="body_incomplete")
        return b""


def _unpacker(request: Request) -> _Plain:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "gzip":
        return _Unzipped()
    if encoding != "identity":
        raise NotSupported("A body is plain or gzip.", field="Content-Encoding")
    return _Plain()

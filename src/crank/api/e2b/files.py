"""`/files`: contents of files, by path. Large ones travel as files of the session, small ones on the steward's line."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import IO, BinaryIO, cast

from starlette.background import BackgroundTask
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from crank.api.e2b import connect, replies, upload
from crank.api.e2b.peer import Gate, check_user
from crank.controller.box_call import BoxGone, BoxRefused
from crank.controller.boxes import Box
from crank.controller.desk import Desk
from crank.controller.reach import get_file, put_file, remove_file
from crank.domain.json import JsonObject
from crank.domain.quantity import KIB
from crank.errors import Conflict, CrankError, InvalidRequest, NotSupported, TooLarge

STAGING = ".crank-e2b"
INLINE_BYTES = 512 * KIB
FILES_MAX = 100
FIELDS_MAX = 16
FIELD_BYTES_MAX = 4 * KIB
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
            if kind not in ("multipart/form-data", "application/octet-stream", ""):
                raise InvalidRequest("A file comes as a form or as an octet stream.", code="invalid_body")
            write = self._write_form if kind == "multipart/form-data" else self._write_body
            async with self._gate.boxes.uploads.place(box.owner.credential.credential_id):
                return JSONResponse(await write(box, request))
        except Exception as fault:  # noqa: BLE001 - told in the protocol's own words
            return replies.plain_fault(fault)

    async def _write_body(self, box: Box, request: Request) -> list[JsonObject]:
        path = request.query_params.get("path", "")
        async with upload.spooled() as target:
            size_bytes = await upload.receive(request, target)
            return [await self._write_one(box, path, target, size_bytes, request)]

    async def _write_form(self, box: Box, request: Request) -> list[JsonObject]:
        if request.headers.get("content-encoding"):
            raise NotSupported("A form is not compressed; send an octet stream.", field="Content-Encoding")
        path = request.query_params.get("path")
        try:
            async with asyncio.timeout(upload.UPLOAD_SEC_MAX):
                form = await _Form(
                    request.headers,
                    upload.bounded(request),
                    max_files=FILES_MAX,
                    max_fields=FIELDS_MAX,
                    max_part_size=FIELD_BYTES_MAX,
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

    async def _write_one(self, box: Box, path: str, source: IO[bytes], size_bytes: int, request: Request) -> JsonObject:
        metadata = {
            name.removeprefix(_METADATA): text for name, text in request.headers.items() if name.startswith(_METADATA)
        }
        if size_bytes <= INLINE_BYTES:
            octets = await upload.in_thread(lambda: _inline(source))
            found = await box.line.ask("write", path=path, base64=octets, metadata=metadata)
        else:
            await upload.in_thread(lambda: source.seek(0))
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


class _Form(MultiPartParser):
    # Beside each other a hundred files are held so; what is no file is not used.
    spool_max_size = 64 * KIB


def _inline(source: IO[bytes]) -> str:
    source.seek(0)
    return base64.b64encode(source.read(INLINE_BYTES)).decode()

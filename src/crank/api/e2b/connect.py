"""Connect in JSON: one body for a unary call; for a stream, frames of a flag byte, a length and a JSON object."""

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from crank.api.e2b import replies
from crank.domain.json import JsonObject, loads_strict
from crank.domain.quantity import KIB, MIB
from crank.errors import InvalidRequest, NotSupported, TooLarge

UNARY = "application/json"
STREAM = "application/connect+json"
BODY_BYTES_MAX = 2 * MIB
BODY_SEC_MAX = 60.0
FRAMES_MAX = 1_000
KEEPALIVE_SEC = 20.0
_HEAD = struct.Struct("!BI")
_COMPRESSED, _LAST = 1, 2
_LARGE_BYTES = 64 * KIB
T = TypeVar("T")


async def body(request: Request, bytes_max: int = BODY_BYTES_MAX, sec_max: float = BODY_SEC_MAX) -> bytes:
    """Read a body, bounded in size and time. Raises TooLarge, InvalidRequest."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(sec_max):
            async for part in request.stream():
                size += len(part)
                if size > bytes_max:
                    raise TooLarge(f"A body is at most {bytes_max} bytes here.", code="body_too_large")
                parts.append(part)
    except (TimeoutError, ClientDisconnect) as fault:
        raise InvalidRequest("The body did not arrive whole.", code="body_incomplete") from fault
    return b"".join(parts)


async def read_object(request: Request) -> JsonObject:
    """Read a body that is one JSON object. Raises TooLarge, InvalidRequest."""
    return await _beside(parse_object, await body(request))


async def read_frames(request: Request) -> list[JsonObject]:
    """Read a body that is frames. Raises TooLarge, InvalidRequest, NotSupported."""
    return await _beside(parse_frames, await body(request))


async def _beside(parse: Callable[[bytes], T], raw: bytes) -> T:
    """Read a large body in a thread: a megabyte of small values takes longer than others should wait."""
    return parse(raw) if len(raw) < _LARGE_BYTES else await asyncio.to_thread(parse, raw)


def parse_object(raw: bytes) -> JsonObject:
    """Read one JSON object; an empty body is an empty one. Raises InvalidRequest."""
    value = loads_strict(raw) if raw else {}
    if not isinstance(value, dict):
        raise InvalidRequest("The body is a JSON object.", code="invalid_body")
    return value


def frame(word: Mapping[str, Any], *, last: bool = False) -> bytes:
    """Return one frame of a stream."""
    octets = json.dumps(word, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return _HEAD.pack(_LAST if last else 0, len(octets)) + octets


def parse_frames(raw: bytes) -> list[JsonObject]:
    """Read the frames of a request. Raises InvalidRequest, NotSupported (compression), TooLarge (too many)."""
    words: list[JsonObject] = []
    at = count = 0
    while at < len(raw):
        count += 1
        if count > FRAMES_MAX:
            raise TooLarge(f"A body is at most {FRAMES_MAX} frames here.", code="too_many_frames")
        if len(raw) - at < _HEAD.size:
            raise InvalidRequest("A frame is cut off.", code="malformed_frame")
        flags, length = _HEAD.unpack_from(raw, at)
        begin = at + _HEAD.size
        octets, at = raw[begin : begin + length], begin + length
        if len(octets) != length:
            raise InvalidRequest("A frame is shorter than it says.", code="malformed_frame")
        if flags & _COMPRESSED:
            raise NotSupported("Compressed frames are not taken here.", field="Connect-Content-Encoding")
        if not flags & _LAST:
            words.append(parse_object(octets))
    return words


def media_type(request: Request) -> str:
    """Return a request's media type, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def unary(request: Request, answer: Callable[[JsonObject], Awaitable[JsonObject]]) -> Response:
    """Answer a unary call. Every fault is a Connect fault."""
    try:
        if media_type(request) != UNARY:
            return JSONResponse({"code": "unimplemented", "message": "Only Connect with JSON is spoken here."}, 415)
        return JSONResponse(await answer(await read_object(request)))
    except Exception as fault:  # noqa: BLE001 - whatever happens, the client reads the protocol's own words
        return replies.connect_fault(fault)


async def stream(
    request: Request, events: Callable[[JsonObject], AsyncIterator[JsonObject]], *, alive: JsonObject
) -> Response:
    """Answer a call with a stream of messages. `alive` is the message that says that there is none for a while."""
    if media_type(request) != STREAM:
        return JSONResponse({"code": "unimplemented", "message": "Only Connect with JSON is spoken here."}, 415)
    try:
        words = await read_frames(request)
        if len(words) != 1:
            raise InvalidRequest("A request of this kind is one message.", code="malformed_frame")
    except Exception as fault:  # noqa: BLE001 - as above
        return _ended(fault)
    return StreamingResponse(_frames(events(words[0]), alive), media_type=STREAM)


def _ended(fault: Exception) -> Response:
    code, message = replies.connect_word(fault)
    if (code, message) == ("unavailable", replies.GONE):
        return replies.gone()
    return Response(frame({"error": {"code": code, "message": message}}, last=True), media_type=STREAM)


async def _frames(events: AsyncIterator[JsonObject], alive: JsonObject) -> AsyncIterator[bytes]:
    """Frame messages, with a sign of life whenever there is none for a while; end with how it ended."""
    waiting: asyncio.Task[JsonObject] | None = None
    try:
        while True:
            if waiting is None:
                waiting = asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({waiting}, timeout=KEEPALIVE_SEC)
            if not done:
                yield frame(alive)
                continue
            word, waiting = waiting.result(), None
            yield frame(word)
    except StopAsyncIteration:
        yield frame({}, last=True)
    except Exception as fault:  # noqa: BLE001 - as above
        code, message = replies.connect_word(fault)
        yield frame({"error": {"code": code, "message": message}}, last=True)
    finally:
        if waiting is not None:
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, Exception):
                await waiting
        await events.aclose()  # type: ignore[attr-defined]


def refuse_stream(fault: Exception) -> Response:
    """Return the refusal of a stream that never began."""
    return _ended(fault)

"""Reads requests before the framework does: who asks first, then a bounded, strict body."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from crank.domain.json import loads_strict
from crank.domain.quantity import BODY_BYTES_MAX, KIB
from crank.errors import InvalidRequest, TooLarge, Unavailable

BODY_SEC_MAX: Final = 30.0
CHUNK_SEC_MAX: Final = 30.0
DISCARD_SEC_MAX: Final = 3.0
Handle = Callable[[Request], Coroutine[Any, Any, Response]]


async def chunks(request: Request, *, bytes_max: int) -> AsyncIterator[bytes]:
    """Yield a body piece by piece, never more than `bytes_max`, and never waiting long for a piece.

    Raises TooLarge (nothing of such a body is kept), InvalidRequest (`slow_request`),
    Unavailable when the caller went away.
    """
    seen_bytes = 0
    stream = request.stream()
    if _is_too_long(request.headers.get("content-length"), bytes_max):
        await _discard(stream, 4 * bytes_max)
        raise _too_large(bytes_max)
    while True:
        try:
            piece = await asyncio.wait_for(anext(stream), timeout=CHUNK_SEC_MAX)
        except StopAsyncIteration:
            return
        except TimeoutError as fault:
            raise InvalidRequest(
                f"No byte of the body came for {CHUNK_SEC_MAX:g} s.", code="slow_request", fix="Send it again."
            ) from fault
        except ClientDisconnect as fault:
            raise Unavailable("The caller went away before its body was complete.") from fault
        seen_bytes += len(piece)
        if seen_bytes > bytes_max:
            await _discard(stream, 4 * bytes_max)
            raise _too_large(bytes_max)
        if piece:
            yield piece


def _is_too_long(header: str | None, bytes_max: int) -> bool:
    return header is not None and header.isascii() and header.isdigit() and int(header[:20]) > bytes_max


async def _discard(stream: AsyncIterator[bytes], bytes_max: int) -> None:
    """Read on for a moment: a caller that writes all before it reads would never see the refusal."""
    seen_bytes = 0
    with contextlib.suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(DISCARD_SEC_MAX):
            async for piece in stream:
                seen_bytes += len(piece)
                if seen_bytes > bytes_max:
                    return


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"The body is larger than {bytes_max} bytes.", code="body_too_large")


def slow_body() -> InvalidRequest:
    """Return the refusal of a body that takes too long as a whole, however its pieces come."""
    return InvalidRequest(f"The body took longer than {BODY_SEC_MAX:g} s.", code="slow_request", fix="Send it again.")


class StrictRequest(Request):
    """A request whose body is read once, bounded, and parsed by the one strict reader."""

    bytes_max = BODY_BYTES_MAX

    async def body(self) -> bytes:
        """Return the whole body. Raises what `chunks` raises."""
        if not hasattr(self, "_body"):
            self._body = await self._read()
        return self._body

    async def _read(self) -> bytes:
        try:
            async with asyncio.timeout(BODY_SEC_MAX):
                return b"".join([piece async for piece in chunks(self, bytes_max=self.bytes_max)])
        except TimeoutError as fault:
            raise slow_body() from fault

    async def json(self) -> Any:
        """Return the body as JSON. Raises InvalidRequest."""
        if not hasattr(self, "_json"):
            self._json = loads_strict(await self.body())
        return self._json


class StrictRoute(APIRoute):
    """Authenticates, then checks the media types, then reads the body; only then the framework looks."""

    admits = True
    body_bytes_max = BODY_BYTES_MAX

    def get_route_handler(self) -> Handle:
        """Wrap the framework's handler."""
        handle = super().get_route_handler()
        has_body = self.body_field is not None
        produced = getattr(self.response_class, "media_type", None)

        async def strict(request: Request) -> Response:
            own = StrictRequest(request.scope, request.receive)
            own.bytes_max = self.body_bytes_max
            if self.admits and (self.path.startswith("/v1/") or self.path == "/metrics"):
                own.state.caller = await request.app.state.gate.admit(own)
            _check_accept(own, produced)
            if has_body:
                _check_content_type(own)
                await own.json()
            return await handle(own)

        return strict


class OpenRoute(StrictRoute):
    """The same for the few operations that prove their callers in another way, or tell what is no secret."""

    admits = False
    # Nobody is known yet, so nobody may fill the memory.
    body_bytes_max = 64 * KIB


def _check_content_type(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise InvalidRequest(
            "The body is not declared as JSON.",
            code="unsupported_media_type",
            field="content-type",
            fix="Send 'Content-Type: application/json'.",
        )


def _check_accept(request: Request, produced: str | None) -> None:
    accept = ",".join(request.headers.getlist("accept"))
    if not accept or produced is None:
        return
    ranges = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    family = produced.partition("/")[0]
    if not ranges & {"*/*", f"{family}/*", produced}:
        raise InvalidRequest(
            f"This address answers with {produced}.",
            code="not_acceptable",
            field="accept",
            fix=f"Send 'Accept: {produced}', or leave Accept out.",
        )

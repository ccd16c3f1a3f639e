"""Bodies read with a bound and parsed strictly, for every JSON route."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from crank.api.peer import authenticate
from crank.domain.json import loads_strict
from crank.domain.quantity import BODY_BYTES_MAX
from crank.errors import InvalidRequest, TooLarge


async def read_bounded(request: Request, bytes_max: int) -> bytes:
    """Read a body, stopping as soon as it is too large. Raises TooLarge."""
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > bytes_max:
        raise _too_large(bytes_max)
    chunks: list[bytes] = []
    seen_bytes = 0
    async for chunk in request.stream():
        seen_bytes += len(chunk)
        if seen_bytes > bytes_max:
            raise _too_large(bytes_max)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(
        f"The body is larger than {bytes_max} bytes.",
        code="body_too_large",
        fix="Upload big files with PUT /v1/blobs/<sha256> and name them in the request.",
    )


class StrictRequest(Request):
    """A request whose body is bounded, and whose JSON is read by the one strict reader."""

    async def body(self) -> bytes:
        """Return the body. Raises TooLarge."""
        if not hasattr(self, "_body"):
            self._body = await read_bounded(self, BODY_BYTES_MAX)
        return self._body

    async def json(self) -> Any:
        """Return the JSON of the body. Raises InvalidRequest."""
        if not hasattr(self, "_json"):
            self._json = loads_strict(await self.body())
        return self._json


class StrictRoute(APIRoute):
    """A route that takes `StrictRequest` and insists on a JSON content type where there is a body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the route's own handler."""
        inner = super().get_route_handler()
        takes_body = self.body_field is not None

        async def handle(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            if takes_body:
                # Strangers are turned away before their body is read, and a broken body is told in our words.
                await authenticate(request)
                kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
                if kind != "application/json":
                    raise InvalidRequest(
                        "The body must be JSON.",
                        code="unsupported_media_type",
                        fix="Send Content-Type: application/json.",
                    )
                await strict.json()
            return await inner(strict)

        return handle

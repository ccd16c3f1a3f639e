"""The application of the E2B listener: one address for the control plane and for every sandbox."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crank.api.e2b import code, control, files, filesystem, process, replies
from crank.api.e2b.peer import Gate
from crank.api.peer import Gate as KeyGate
from crank.controller.boxes import Boxes
from crank.domain.quantity import MIB
from crank.domain.rules.access import E2B_KINDS

DRAIN_BYTES_MAX = 64 * MIB
DRAIN_SEC = 10.0


def build_e2b(boxes: Boxes) -> Starlette:
    """Return the ASGI application."""
    gate = Gate(boxes.desk, boxes, KeyGate(boxes.desk, E2B_KINDS))

    async def health(request: Request) -> Response:
        try:
            await gate.box(request)
        except Exception as fault:  # noqa: BLE001 - told in the protocol's own words
            return replies.plain_fault(fault)
        return Response(status_code=204)

    routes = [
        Route("/health", health, methods=["GET"]),
        *control.routes(gate),
        *control.not_offered(gate),
        *files.routes(gate),
        *filesystem.routes(gate),
        *process.routes(gate),
        *code.routes(gate),
    ]
    application = Starlette(
        middleware=[Middleware(Drained)],
        routes=routes,
        exception_handlers={HTTPException: _unknown, Exception: _defect},
    )
    application.router.redirect_slashes = False
    return application


class Drained:
    """Reads what is left of a body before a refusal is sent.

    A server that closes a connection with bytes unread makes the kernel reset it, and the client then never reads why.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        ended = False

        async def taken() -> Message:
            nonlocal ended
            message = await receive()
            ended = ended or not message.get("more_body", False)
            return message

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400 and not ended:
                with suppress(TimeoutError):
                    async with asyncio.timeout(DRAIN_SEC):
                        await _drain(taken, lambda: ended)
            await send(message)

        await self._app(scope, taken, answered)


async def _drain(receive: Receive, is_over: Callable[[], bool]) -> None:
    size = 0
    while not is_over() and size < DRAIN_BYTES_MAX:
        size += len((await receive()).get("body", b""))


async def _unknown(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, HTTPException)
    if fault.status_code == 404:
        return replies.plain(404, f"There is nothing at {request.url.path[:200]} here.")
    response = replies.plain(fault.status_code, str(fault.detail))
    for name, text in (fault.headers or {}).items():
        response.headers[name] = text
    return response


async def _defect(_: Request, __: Exception) -> Response:
    return replies.plain(500, "The node failed; its log says how.")

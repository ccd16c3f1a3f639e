"""The address /mcp: who asks, by which name, and with what body; then the SDK, which is loaded when it is needed.

The SDK takes half a second to import. It is imported in a thread: when the first request comes, or a few seconds
after the node is ready, whichever is first. Starting a node never waits for it.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import structlog
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from crank.api.mcp.errands import Errands
from crank.api.mcp.seats import Seats, opens_session
from crank.api.peer import Gate
from crank.api.problem import place_of, problem_response, status_of
from crank.api.strict import StrictRequest
from crank.controller.desk import Desk
from crank.domain.json import dumps
from crank.domain.rules import doorway
from crank.errors import CrankError, InvalidRequest, NotAllowed, NotAuthenticated, Unavailable

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

WARM_AFTER_SEC = 5.0
# Streams that a client of the older era keeps open count too; uvicorn bounds connections a little above.
REQUESTS_MAX = 1_500
_CLOSE_SEC = 2.0
_SESSION = "mcp-session-id"
_PARSE_ERROR, _INVALID_REQUEST = -32700, -32600
_log = structlog.get_logger(__name__)


class Door:
    """An ASGI application for one address."""

    def __init__(self, desk: Desk, gate: Gate, *, version: str, names: Iterable[str]) -> None:
        self._desk = desk
        self._gate = gate
        self._version = version
        self._names = frozenset(names)
        self._errands = Errands()
        self._seats = Seats(desk.clock)
        self._opening = asyncio.Lock()
        self._manager: StreamableHTTPSessionManager | None = None
        self._serving: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = StrictRequest(scope, receive)
        try:
            refused = doorway.refusal(request.headers.get("host"), request.headers.get("origin"), self._names)
            if refused is not None:
                kind = NotAllowed if refused.code == "wrong_origin" else InvalidRequest
                raise kind(refused.message, code=refused.code, field=refused.constraint, fix=refused.fix)
            caller = await self._gate.admit(request)
            _check_form(request)
            if self._inside >= REQUESTS_MAX:
                raise Unavailable("Too many requests are being answered now.", code="mcp_busy")
        except CrankError as fault:
            await problem_response(fault, place=place_of(request))(scope, receive, send)
            return
        self._inside += 1
        try:
            arriving = await _arriving(request, receive) if request.method == "POST" else receive
            manager = await self._open()
            from crank.api.mcp.server import user_of

            scope["user"] = user_of(caller)
            scope.setdefault("state", {})["caller"] = caller
            await self._seated(manager, request, caller.credential.credential_id, arriving, send)
        except CrankError as fault:
            await _rejection(fault)(scope, receive, send)
        finally:
            self._inside -= 1

    async def _seated(
        self, manager: "StreamableHTTPSessionManager", request: Request, owner: str, arriving: Receive, send: Send
    ) -> None:
        """Hand a request on, and keep count of the sessions of the older era. Raises Unavailable (`mcp_sessions_full`)."""

        async def end(session_id: str) -> None:
            await asyncio.shield(self._errands.send(_end(manager, request.scope, session_id)))

        if not opens_session(request.headers):
            with self._seats.using(request.headers.get(_SESSION, ""), owner, request.method):
                await manager.handle_request(request.scope, arriving, send)
            return
        async with self._seats.opening(owner, end) as note:

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start" and message["status"] < 400:
                    opened = Headers(raw=message["headers"]).get(_SESSION)
                    if opened is not None:
                        note(opened)
                await send(message)

            await manager.handle_request(request.scope, arriving, noting)

    async def warm(self) -> None:
        """Load the SDK once the node has had time to do what it was started for."""
        await asyncio.sleep(WARM_AFTER_SEC)
        with contextlib.suppress(CrankError):
            await self._open()

    async def close(self) -> None:
        """Let every waiting call answer as things stand, then end what is open. Jobs go on. Safe to call again."""
        self._errands.closing.set()
        until_sec = self._desk.clock.monotonic_sec() + _CLOSE_SEC
        while self._errands.calls and self._desk.clock.monotonic_sec() < until_sec:
            await asyncio.sleep(0.02)
        self._over.set()
        if self._serving is not None:
            await asyncio.gather(self._serving, return_exceptions=True)
        await self._errands.finish()

    async def _open(self) -> "StreamableHTTPSessionManager":
        """Return what serves; load and start it first when nobody did. Raises Unavailable when the node stops."""
        async with self._opening:
            if self._errands.closing.is_set():
                raise Unavailable("The node is stopping.", code="node_stopping", fix="Try again when it runs.")
            if self._manager is None or self._serving is None or self._serving.done():
                begun_sec = self._desk.clock.monotonic_sec()
                self._manager = await asyncio.to_thread(self._load)
                running = asyncio.get_running_loop().create_future()
                self._serving = asyncio.create_task(self._serve(self._manager, running), name="mcp")
                await running
                _log.info("mcp_open", took_sec=round(self._desk.clock.monotonic_sec() - begun_sec, 3))
            return self._manager

    def _load(self) -> "StreamableHTTPSessionManager":
        from crank.api.mcp.server import build_manager, build_server

        return build_manager(build_server(self._errands, version=self._version))

    async def _serve(self, manager: "StreamableHTTPSessionManager", running: "asyncio.Future[None]") -> None:
        # One task enters and leaves: the SDK's sessions live in between.
        async with manager.run():
            running.set_result(None)
            await self._over.wait()


async def _end(manager: "StreamableHTTPSessionManager", scope: Scope, session_id: str) -> None:
    """End a session of the one who asks now, as their client would."""

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    async def unheard(_message: Message) -> None:
        pass

    ending = {**scope, "method": "DELETE", "headers": [(_SESSION.encode(), session_id.encode())]}
    await manager.handle_request(ending, nothing, unheard)


def _check_form(request: Request) -> None:
    if request.method not in ("GET", "POST", "DELETE"):
        raise InvalidRequest("MCP is spoken with POST, GET and DELETE.", code="method_not_allowed", field="method")
    if request.method != "POST":
        return
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise InvalidRequest(
            "The body is not declared as JSON.", code="unsupported_media_type", field="content-type",
            fix="Send 'Content-Type: application/json'.",
        )  # fmt: skip
    ranges = {part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "*/*").split(",")}
    if not ({"*/*"} & ranges or {"application/json", "text/event-stream"} <= ranges):
        raise InvalidRequest(
            "MCP answers with JSON or with a stream of events.", code="not_acceptable", field="accept",
            fix="Send 'Accept: application/json, text/event-stream'.",
        )  # fmt: skip


async def _arriving(request: StrictRequest, receive: Receive) -> Receive:
    """Read the body by the one strict reader, and hand it on as it came. Raises InvalidRequest, TooLarge."""
    octets = await request.body()
    await request.json()
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": octets, "more_body": False}

    return replay


def _rejection(fault: CrankError) -> Response:
    """Return a refusal of a body in the protocol's own form, which has an id only where one could be read."""
    if isinstance(fault, NotAuthenticated | Unavailable):
        return problem_response(fault)
    code = _PARSE_ERROR if fault.error_code == "malformed_json" else _INVALID_REQUEST
    told = {"code": fault.error_code, "fix": fault.fix}
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": fault.message, "data": told}}
    return Response(dumps(body), status_of(fault), {"cache-control": "no-store"}, "application/json")

"""The workers' listener: one WebSocket a worker, and blobs beside it. Only a certificate opens it."""

import asyncio
import contextlib
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response, WebSocket
from starlette.responses import StreamingResponse
from starlette.websockets import WebSocketDisconnect, WebSocketState

from crank.api import problem
from crank.api.files import read_chunks, receive_blob
from crank.api.peer import desk_of
from crank.controller import artifacts
from crank.controller.desk import Desk
from crank.controller.enroll import enroll, leave
from crank.controller.report import receive
from crank.domain.identity import SpiffeId
from crank.domain.ids import parse_digest
from crank.errors import CrankError, NotAllowed, ProtocolError, Unavailable
from crank.wire import Hello, Message, Rejected, decode, encode

HELLO_SEC = 10.0
# A worker that reads slower than it is written to is cut off, not buffered for without end.
SEND_SEC = 20.0
CLOSE_REFUSED = 4403
CLOSE_PROTOCOL = 4400
CLOSE_TOLD = 4410
_log = structlog.get_logger(__name__)


class SocketLink:
    """A `WorkerLink` over one WebSocket."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._turn = asyncio.Lock()

    async def send(self, message: Message) -> None:
        """Send one message. Raises Unavailable when the connection is gone or stuck."""
        text = encode(message)
        try:
            async with asyncio.timeout(SEND_SEC), self._turn:
                if self._socket.application_state is not WebSocketState.CONNECTED:
                    raise Unavailable("The worker's connection is closed.", code="link_lost")
                await self._socket.send_text(text)
        except (WebSocketDisconnect, RuntimeError, TimeoutError, OSError) as fault:
            raise Unavailable("The worker's connection is gone.", code="link_lost", detail=repr(fault)) from fault

    async def close(self, code: str, message: str) -> None:
        """End the connection, telling why."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError, TimeoutError):
            async with asyncio.timeout(SEND_SEC):
                await self._socket.close(CLOSE_TOLD, f"{code}: {message}"[:120])


def peer_of(scope: Any) -> SpiffeId:
    """Return who the TLS handshake proved. Raises NotAllowed; headers never count."""
    peer = scope.get("state", {}).get("peer")
    if not isinstance(peer, SpiffeId) or peer.kind != "worker":
        raise NotAllowed("Only a worker with its certificate may connect here.", code="not_a_worker")
    return peer


async def serve_worker(socket: WebSocket) -> None:
    """Carry one worker's link from hello to its end."""
    desk: Desk = socket.app.state.desk
    await socket.accept()
    link = SocketLink(socket)
    try:
        peer = peer_of(socket.scope)
        async with asyncio.timeout(HELLO_SEC):
            hello = decode(await socket.receive_text())
        if not isinstance(hello, Hello):
            raise ProtocolError("The first message of a worker is hello.")
        worker = await enroll(desk, hello=hello, peer=peer, link=link)
    except (WebSocketDisconnect, TimeoutError, Unavailable):
        await link.close("no_hello", "No hello arrived in time.")
        return
    except (CrankError, KeyError) as fault:
        await _reject(link, socket, fault)
        return
    _log.info("worker_connected", worker=worker.known.worker_id, capabilities=len(worker.known.capabilities))
    try:
        while True:
            await receive(desk, worker=worker, message=decode(await socket.receive_text()))
    except (WebSocketDisconnect, RuntimeError, Unavailable) as fault:
        _log.info("worker_disconnected", worker=worker.known.worker_id, cause=str(fault))
    except (ProtocolError, KeyError) as fault:
        _log.warning("worker_broke_protocol", worker=worker.known.worker_id, message=str(fault))
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await socket.close(CLOSE_PROTOCOL, str(fault)[:120])
    finally:
        await leave(desk, worker=worker)


async def _reject(link: SocketLink, socket: WebSocket, fault: CrankError | KeyError) -> None:
    told = fault if isinstance(fault, CrankError) else ProtocolError("A message must be text.")
    _log.warning("worker_rejected", code=told.error_code, message=told.message)
    with contextlib.suppress(Unavailable, WebSocketDisconnect, RuntimeError):
        await link.send(Rejected(told.error_code, told.message, told.fix))
        await socket.close(CLOSE_REFUSED, told.error_code)


async def get_blob(request: Request, sha256: str) -> Response:
    """Send a blob to a worker."""
    peer_of(request.scope)
    source = await artifacts.open_blob(desk_of(request), digest=parse_digest(sha256))
    return StreamingResponse(read_chunks(source), media_type="application/octet-stream")


async def put_blob(request: Request, sha256: str) -> Response:
    """Take a blob from a worker."""
    peer_of(request.scope)
    return await receive_blob(request, desk_of(request), sha256)


def build_workers_app(desk: Desk) -> FastAPI:
    """Return the ASGI app of the workers' listener."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.state.desk = desk
    app.add_api_websocket_route("/v1/worker", serve_worker)
    app.add_api_route("/v1/blobs/{sha256}", get_blob, methods=["GET"], response_model=None)
    app.add_api_route("/v1/blobs/{sha256}", put_blob, methods=["PUT"], response_model=None)
    problem.install(app, known_fields=())
    return app

"""The application that workers reach: one WebSocket, and blobs beside it. Who they are comes from TLS alone."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketState

from crank.api.files import Octets, blob_head, pieces, receive_blob
from crank.api.link import SocketLink
from crank.api.problem import on_defect, problem_response
from crank.api.renewal import RENEWING, ReadRequest, read_trust, renew_identity
from crank.api.server import PEER_SESSION
from crank.controller import artifacts
from crank.controller.desk import Desk
from crank.controller.enroll import enroll, leave
from crank.controller.report import receive
from crank.controller.roster import LiveWorker
from crank.domain.identity import SpiffeId, WorkloadKind, parse_workload_path
from crank.domain.ids import LOCAL_TENANT, Digest, WorkerId, parse_digest
from crank.domain.rules.enrolment import certificate_refusal
from crank.domain.trust import Peer
from crank.errors import CrankError, InvalidRequest, NotAllowed, NotFound, ProtocolError, UntrustedPeer
from crank.wire import Hello, Message, Rejected, decode

HELLO_SEC_MAX = 10.0
# How long a worker may take to answer that it heard that the link is over.
CLOSE_SEC_MAX = 5.0
# Who the other side of a TLS session proved to be. Raises UntrustedPeer.
Identify = Callable[[Any], Peer]
_log = structlog.get_logger(__name__)


class WorkerGate:
    """Proves peers: what they showed in TLS must be a worker's of this trust domain, whatever TLS itself believed."""

    def __init__(self, desk: Desk, identify: Identify) -> None:
        self._desk = desk
        self._identify = identify
        self._trust_domain = desk.policy.trust_domain

    def admit(
        self, connection: HTTPConnection, kinds: Collection[WorkloadKind] = (WorkloadKind.WORKER,)
    ) -> Peer:
        """Return the peer, at every request anew: what TLS proved once may have ended since.

        Raises UntrustedPeer, NotAllowed (`identity_mismatch`, `identity_revoked`, `identity_expired`).
        """
        peer = self.known(connection, kinds)
        refused = certificate_refusal(peer, parse_workload_path(peer.spiffe_id).kind)
        if refused is not None:
            raise NotAllowed(refused.message, code=refused.code, field=refused.constraint, fix=refused.fix)
        return peer

    def known(
        self, connection: HTTPConnection, kinds: Collection[WorkloadKind] = (WorkloadKind.WORKER,)
    ) -> Peer:
        """Return a peer of such a name, for a link: whether its certificate fits is looked at with its hello, and recorded.

        Raises UntrustedPeer, NotAllowed (`identity_revoked`, `identity_expired`).
        """
        session = connection.scope.get("state", {}).get(PEER_SESSION)
        if session is None:
            raise UntrustedPeer("The connection carries no certificate.")
        peer = self._identify(session)
        named = peer.spiffe_id
        if named.trust_domain != self._trust_domain or not _is_one_of(kinds, named):
            raise UntrustedPeer(f"{named} is not a {' or '.join(kinds)} of {self._trust_domain}.")
        self.still(peer)
        return peer

    def still(self, peer: Peer) -> None:
        """Let a peer go on that was admitted before. Raises NotAllowed (`identity_revoked`, `identity_expired`)."""
        self._desk.standing.check(peer, self._desk.clock.now_us())


def _is_one_of(kinds: Collection[WorkloadKind], named: SpiffeId) -> bool:
    try:
        return parse_workload_path(named).kind in kinds
    except InvalidRequest:
        return False


def build_workers_app(desk: Desk, *, identify: Identify, read_request: ReadRequest) -> Starlette:
    """Return the ASGI application of the worker listener.

    identify  proves who the other side of a TLS session is (`crank.security.Verifier.peer`)
    read_request  reads a request for a certificate (`crank.adapters.certificate_request`)
    """
    gate = WorkerGate(desk, identify)

    async def link(socket: WebSocket) -> None:
        await _serve(desk, gate, socket, hello_sec_max=HELLO_SEC_MAX)

    async def blob(request: Request) -> Response:
        return await _blob(desk, gate, request)

    async def renew(request: Request) -> Response:
        return await renew_identity(desk, gate.admit(request, RENEWING), request, read_request)

    async def trust(request: Request) -> Response:
        # The machine's own certificate alone: its worker cannot answer for it.
        return await read_trust(desk, gate.admit(request, (WorkloadKind.NODE,)), request)

    return Starlette(
        routes=[
            WebSocketRoute("/v1/worker", link),
            Route("/v1/blobs/{sha256}", blob, methods=["GET", "HEAD", "PUT"]),
            Route("/v1/identity", renew, methods=["POST"]),
            Route("/v1/trust", trust, methods=["GET"]),
        ],
        exception_handlers={CrankError: _on_fault, Exception: on_defect},
    )


async def _on_fault(_request: Request, fault: Exception) -> Response:
    assert isinstance(fault, CrankError), "registered for CrankError alone"
    return problem_response(fault)


# --- blobs -----------------------------------------------------------------------------------


async def _blob(desk: Desk, gate: WorkerGate, request: Request) -> Response:
    peer = gate.admit(request)
    worker_id = WorkerId(peer.spiffe_id.name)
    digest = parse_digest(request.path_params["sha256"])
    if request.method == "PUT":
        size_bytes = await receive_blob(desk, request, digest)
        gate.still(peer)
        desk.roster.brought(worker_id, digest)
        return JSONResponse({"sha256": digest, "size_bytes": size_bytes}, 201)
    own = request.method == "HEAD" and desk.roster.has_brought(worker_id, digest)
    if not own and not await _may_read(desk, worker_id, digest):
        raise NotFound("There is no blob with this SHA-256.", code="blob_not_found", field="sha256")
    head = await blob_head(desk, digest)
    if request.method == "HEAD":
        return head
    source = await artifacts.open_blob(desk, digest=digest)
    return Octets(_while_believed(gate, peer, pieces(source)), headers=dict(head.headers))


async def _while_believed(gate: WorkerGate, peer: Peer, octets: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Stop in the middle when the peer is revoked or its certificate ends: the connection breaks, whatever was sent."""
    async for piece in octets:
        gate.still(peer)
        yield piece


async def _may_read(desk: Desk, worker_id: WorkerId, digest: Digest) -> bool:
    """Tell whether a job that this worker holds, or a call that it answers, uses the blob; it needs no other."""
    worker = desk.roster.find(worker_id)
    if worker is not None and digest in worker.lent:
        return True
    held = list(worker.leases) if worker is not None else []
    return await desk.store.read(
        lambda tx: any(tx.registry.job_refers(LOCAL_TENANT, job_id, digest) for job_id in held)
    )


# --- the link --------------------------------------------------------------------------------


async def _serve(desk: Desk, gate: WorkerGate, socket: WebSocket, *, hello_sec_max: float) -> None:
    try:
        peer = gate.known(socket)
    except UntrustedPeer as fault:
        _log.warning("worker_refused", code=fault.error_code, reason=fault.message, detail=fault.detail)
        # Before accept this is a plain 403: a stranger learns nothing.
        await socket.close()
        return
    except NotAllowed as fault:
        _log.warning("worker_refused", code=fault.error_code, reason=fault.message)
        # One whom this authority knew is told why.
        await socket.send_denial_response(problem_response(fault))
        return
    await socket.accept()
    link = SocketLink(socket)
    entered: list[LiveWorker] = []
    try:
        reading = asyncio.ensure_future(_converse(desk, socket, link, peer, entered, hello_sec_max))
        try:
            # A worker that does not read ends its link; then nothing more is read from it either.
            await asyncio.wait({reading, link.writer}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await link.finish()
                await asyncio.wait({reading}, timeout=CLOSE_SEC_MAX)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    finally:
        # Stopping cancels this; what was enrolled is still noted as gone.
        await asyncio.shield(_farewell(desk, link, entered))


async def _converse(
    desk: Desk, socket: WebSocket, link: SocketLink, peer: Peer, entered: list[LiveWorker], hello_sec_max: float
) -> None:
    try:
        hello = await _hello(socket, hello_sec_max)
        worker = await enroll(desk, hello=hello, peer=peer.spiffe_id, link=link, shown=peer)
        entered.append(worker)
        _log.info("worker_enrolled", worker=peer.spiffe_id.name, software=hello.software[:80], renews=hello.renews)
        while (message := await _next(socket)) is not None:
            await receive(desk, worker=worker, message=message)
    except CrankError as fault:
        _log.warning("worker_dropped", worker=peer.spiffe_id.name, code=fault.error_code, reason=fault.message)
        await _part(link, fault, enrolled=bool(entered))


async def _part(link: SocketLink, fault: CrankError, *, enrolled: bool) -> None:
    if not enrolled:
        await link.refuse(Rejected(fault.error_code, fault.message, fault.fix))
    await link.close(fault.error_code, fault.message)


async def _farewell(desk: Desk, link: SocketLink, entered: list[LiveWorker]) -> None:
    await link.finish()
    for worker in entered:
        await leave(desk, worker=worker)


async def _hello(socket: WebSocket, sec_max: float) -> Hello:
    try:
        message = await asyncio.wait_for(_next(socket), timeout=sec_max)
    except TimeoutError as fault:
        raise ProtocolError(f"No hello came for {sec_max:g} s.", code="slow_hello") from fault
    if not isinstance(message, Hello):
        raise ProtocolError("The first message must be a hello.")
    return message


async def _next(socket: WebSocket) -> Message | None:
    """Return the next message, or None when the connection ended. Raises ProtocolError."""
    if socket.client_state is not WebSocketState.CONNECTED:
        return None
    event = await socket.receive()
    if event["type"] != "websocket.receive":
        return None
    text = event.get("text")
    if text is None:
        raise ProtocolError("Messages are text.")
    return decode(text)

"""Runs all listeners in one loop, as a rule over TLS, and tells applications who the other side proved to be."""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from crank.errors import ConfigurationError
from crank.wire import MESSAGE_BYTES_MAX

# Request line and headers together.
HEAD_BYTES_MAX = 32 * 1024
HEAD_SEC_MAX = 10.0
# Until its end a handshake holds a descriptor and a TLS session, and anybody may begin one.
HANDSHAKE_SEC_MAX = 10.0
KEEP_ALIVE_SEC = 30
GRACE_SEC = 3
CONNECTIONS_MAX = 2_000
# A kept connection ends with the first answer after that: certificates live for minutes, connections could for days.
CONNECTION_SEC_MAX = 900.0
# Keys in scope["state"]; set from the TLS session alone, so no header can forge them. The session is there for
# whoever checks the whole chain.
PEER_CERTIFICATE = "peer_certificate"
PEER_SESSION = "peer_session"
CONNECTED_AT = "connected_at"


@dataclass(frozen=True, slots=True)
class Listener:
    """One port: port 0 takes any that is free. Without `tls` it speaks plainly, which is for loopback alone.

    age_sec_max  how long a connection is kept for further requests
    """

    app: ASGIApp
    host: str
    port: int
    tls: ssl.SSLContext | None
    name: str
    age_sec_max: float = CONNECTION_SEC_MAX


class _Aging:
    """Says `Connection: close` with an answer on a connection that is old: the caller opens another, and proves itself."""

    def __init__(self, app: ASGIApp, age_sec_max: float) -> None:
        self._app = app
        self._age_sec_max = age_sec_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = scope.get("state", {}).get(CONNECTED_AT)
        if scope["type"] != "http" or began is None or asyncio.get_running_loop().time() - began < self._age_sec_max:
            await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, lambda message: send(_closing(message)))


def _closing(message: Message) -> Message:
    if message["type"] != "http.response.start":
        return message
    return {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}


class PeerProtocol(H11Protocol):
    """HTTP/1.1 that knows the peer's certificate and does not wait for ever for a request's head."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note the certificate that TLS verified; WebSockets get the same state."""
        session = transport.get_extra_info("ssl_object")
        certificate = session.getpeercert(binary_form=True) if session is not None else None
        self.app_state = {
            **self.app_state,
            PEER_CERTIFICATE: certificate,
            PEER_SESSION: session,
            CONNECTED_AT: self.loop.time(),
        }
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Feed the parser and watch how long a head takes."""
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        self._stop_watching()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Stop watching: another protocol owns the connection from here."""
        self._stop_watching()
        super().handle_websocket_upgrade(event)

    def _watch_head(self) -> None:
        upgraded = self.transport.get_protocol() is not self and self.scope is not None
        if upgraded or self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._stop_watching()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SEC_MAX, self._head_is_late)

    def _stop_watching(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """A server that leaves signals to its owner and says when it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept on these sockets. Uvicorn's own way leaves a handshake a whole minute."""
        config, loop = self.config, asyncio.get_running_loop()
        limit_sec = HANDSHAKE_SEC_MAX if config.ssl is not None else None

        def speak() -> asyncio.Protocol:
            return PeerProtocol(config, self.server_state, app_state={})

        self.servers = [
            await loop.create_server(
                speak,
                sock=taken,
                ssl=config.ssl,
                backlog=config.backlog,
                ssl_handshake_timeout=limit_sec,
                ssl_shutdown_timeout=limit_sec,
            )
            for taken in sockets or ()
        ]
        self.started = True
        self.accepting.set()


def bind(listener: Listener) -> socket.socket:
    """Take the port. Raises ConfigurationError (`port_taken`, `bind_failed`) that names it."""
    family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; left on, each answer waits 40 ms.
    taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((listener.host, listener.port))
        taken.listen(1024)
        taken.setblocking(False)
    except OSError as fault:
        taken.close()
        in_use = fault.errno == errno.EADDRINUSE
        cause = "another program has it" if in_use else fault.strerror
        raise ConfigurationError(
            f"The port {listener.port} on {listener.host} for {listener.name} cannot be used: {cause}.",
            code="port_taken" if in_use else "bind_failed",
            field=listener.name,
            fix=f"Stop the other program, or set CRANK_{listener.name.upper()} to another port; 0 takes any that is free.",
        ) from fault
    return taken


def _config(listener: Listener) -> uvicorn.Config:
    options: dict[str, Any] = {
        "http": PeerProtocol,
        "ws": "websockets-sansio",
        "ws_max_size": MESSAGE_BYTES_MAX,
        "ws_per_message_deflate": False,
        "lifespan": "off",
        "log_config": None,
        "access_log": False,
        # A forwarded header never says who somebody is.
        "proxy_headers": False,
        "server_header": False,
        "h11_max_incomplete_event_size": HEAD_BYTES_MAX,
        "limit_concurrency": CONNECTIONS_MAX,
        "timeout_keep_alive": KEEP_ALIVE_SEC,
        "timeout_graceful_shutdown": GRACE_SEC,
    }
    app = _Aging(listener.app, listener.age_sec_max)
    if listener.tls is None:
        return uvicorn.Config(app, **options)
    tls = listener.tls
    return uvicorn.Config(app, ssl_context_factory=lambda _config, _default: tls, **options)


async def serve(
    *,
    api: Listener,
    workers: Listener,
    started: Callable[..., None],
    stop: asyncio.Event,
    more: Sequence[Listener] = (),
) -> None:
    """Serve all until `stop` is set; then finish what is begun, at most a few seconds.

    started  called once with the real ports (API, workers, more) when all accept connections
    Raises ConfigurationError when a port cannot be taken.
    """
    listeners = (api, workers, *more)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(contextlib.closing(bind(listener))) for listener in listeners]
        ports = [taken.getsockname()[1] for taken in sockets]
        servers = [_Server(_config(listener)) for listener in listeners]
        async with asyncio.TaskGroup() as group:
            for server, taken in zip(servers, sockets, strict=True):
                group.create_task(server.serve(sockets=[taken]))
            for server in servers:
                await server.accepting.wait()
            started(*ports)
            await stop.wait()
            for server in servers:
                server.should_exit = True

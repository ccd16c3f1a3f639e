"""Two TLS listeners in one event loop, each with the proven peer in the scope."""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from crank.domain.identity import SpiffeId
from crank.errors import ConfigurationError, CrankError
from crank.wire import MESSAGE_BYTES_MAX

HEADER_BYTES_MAX = 32 * 1024
KEEP_ALIVE_SEC = 75
STOP_SEC = 5
BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Listener:
    """One address, the app behind it, and its TLS.

    read_peer  turns the peer's certificate (DER) into an identity; None where callers have none
    """

    app: Any
    host: str
    port: int
    tls: ssl.SSLContext
    read_peer: Callable[[bytes], SpiffeId] | None = None


class _TlsConfig(uvicorn.Config):
    """A configuration whose TLS context is made elsewhere."""

    def __init__(self, listener: Listener, **more: Any) -> None:
        super().__init__(listener.app, **more)
        self._tls = listener.tls

    def load(self) -> None:
        super().load()
        self.ssl = self._tls


class _Server(uvicorn.Server):
    """A server that leaves signals to the process that owns it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _protocol(read_peer: Callable[[bytes], SpiffeId] | None) -> type[H11Protocol]:
    class PeerProtocol(H11Protocol):
        """Puts who the handshake proved into the scope's state, where no header can reach."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.app_state = {**self.app_state, "peer": None}
            session = transport.get_extra_info("ssl_object")
            certificate = session.getpeercert(binary_form=True) if session is not None else None
            if read_peer is None or certificate is None:
                return
            # An identity that breaks the rules stays None, and the app refuses the caller.
            with contextlib.suppress(CrankError):
                self.app_state["peer"] = read_peer(certificate)

    return PeerProtocol


def bind(host: str, port: int) -> socket.socket:
    """Listen on an address. Raises ConfigurationError (`port_taken`, `address_unusable`)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as fault:
        listening.close()
        taken = fault.errno == errno.EADDRINUSE
        raise ConfigurationError(
            f"Port {port} on {host} is taken." if taken else f"{host}:{port} cannot be used: {fault.strerror}.",
            code="port_taken" if taken else "address_unusable",
            fix="Stop the program that holds it, or choose another port (0 takes any free one).",
        ) from fault
    listening.setblocking(False)
    return listening


class Listeners:
    """The node's listeners: bound at once, served until stopped. Stopping twice is legal."""

    def __init__(self, listeners: list[Listener]) -> None:
        self._listeners = listeners
        self._sockets: list[socket.socket] = []
        self._servers: list[_Server] = []
        self._running: list[asyncio.Task[None]] = []

    async def start(self) -> list[int]:
        """Bind and serve; return the ports in order. Raises ConfigurationError, and then nothing is bound."""
        try:
            for listener in self._listeners:
                self._sockets.append(bind(listener.host, listener.port))
        except ConfigurationError:
            self._close_sockets()
            raise
        for listener, listening in zip(self._listeners, self._sockets, strict=True):
            server = _Server(_config(listener))
            self._servers.append(server)
            self._running.append(asyncio.create_task(server.serve(sockets=[listening])))
        while not all(server.started for server in self._servers):
            for running in self._running:
                if running.done():
                    running.result()
            await asyncio.sleep(0.005)
        return [int(listening.getsockname()[1]) for listening in self._sockets]

    async def stop(self) -> None:
        """Stop taking connections, give open ones a few seconds, and end."""
        for server in self._servers:
            server.should_exit = True
        await asyncio.gather(*self._running, return_exceptions=True)
        self._running = []
        self._servers = []
        self._close_sockets()

    def _close_sockets(self) -> None:
        for listening in self._sockets:
            listening.close()
        self._sockets = []


def _config(listener: Listener) -> uvicorn.Config:
    return _TlsConfig(
        listener,
        http=_protocol(listener.read_peer),
        ws="websockets-sansio",
        ws_max_size=MESSAGE_BYTES_MAX,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=HEADER_BYTES_MAX,
        timeout_keep_alive=KEEP_ALIVE_SEC,
        timeout_graceful_shutdown=STOP_SEC,
    )

"""Accepts local processes and gives each connection its own services, so that no call can be another caller's."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from grpclib.config import Configuration
from grpclib.const import Cardinality, Status
from grpclib.const import Handler as Call
from grpclib.events import _DispatchServerEvents
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol
from grpclib.protocol import Stream as H2Stream
from grpclib.server import Handler
from h2.config import H2Configuration

from crank.api.spiffe.reflection import Reflection
from crank.api.spiffe.seat import LOOKERS_MAX, Crowd, Seat
from crank.api.spiffe.secrets import SecretDiscovery
from crank.api.spiffe.speech import BoundedBuffer, Codec
from crank.api.spiffe.workload_api import WorkloadApi
from crank.controller.svids import Svids
from crank.errors import CrankError
from crank.ports import CallerWitness

CONNECTIONS_MAX = 2048
# Answers to frames that ask for one (pings, settings), when nobody reads them.
UNREAD_BYTES_MAX = 1 << 20
# Calls that were opened and taken back; honest clients do so seldom.
RESETS_MAX = 1000
# No account may hold every place.
_SHARE = 2
_BUSY_SEC = 0.1
_WINDOW_BYTES = 256 * 1024
_log = structlog.get_logger(__name__)


class _Known(dict[str, Call]):
    """Calls by their paths. The library refuses an unknown one in a way that some clients cannot read."""

    def get(self, path: str, otherwise: Any = None) -> Any:
        """Return what answers a path; for an unknown one, what says so."""
        return super().get(path, _UNKNOWN)


async def _unknown(_stream: Any) -> None:
    raise GRPCError(Status.UNIMPLEMENTED, "This call is not served here.")


_UNKNOWN = Call(_unknown, Cardinality.STREAM_STREAM, AnyMessage, AnyMessage)


class _Calls(Handler):
    """grpclib's dispatch, over streams whose messages are bounded."""

    def accept(self, stream: H2Stream, headers: Any, release_stream: Callable[[], Any]) -> None:
        """Begin a call."""
        assert stream.id is not None, "a stream that came in has a number"
        stream.buffer = BoundedBuffer(stream.connection, stream.id)
        # Binary metadata is read by nobody here, and the library stumbles over some that is none.
        plain = [(name, value) for name, value in headers if not name.endswith("-bin")]
        super().accept(stream, plain, release_stream)


class _Connection(H2Protocol):
    """HTTP/2 that ends with whoever abuses it, and says when it ended."""

    _transport: asyncio.Transport

    def __init__(self, handler: Handler, config: Configuration, h2_config: H2Configuration, lost: Callable[[], None]) -> None:
        super().__init__(handler, config, h2_config)
        self._lost = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport), "a socket's"
        self._transport = transport
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Take what arrived; frames that make no sense end the connection."""
        try:
            super().data_received(data)
        except Exception as fault:  # noqa: BLE001 - whatever a stranger's frames do to the parser, it is their end
            _log.debug("spiffe_frames_refused", cause=repr(fault)[:200])
            self.end()
            return
        unread = self._transport.get_write_buffer_size()
        if unread > UNREAD_BYTES_MAX or self.connection.streams_failed > RESETS_MAX:
            self.end()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End every call."""
        try:
            super().connection_lost(exc)
        finally:
            self._lost()

    def end(self) -> None:
        """Close at once."""
        self._transport.abort()


class Door:
    """The socket, open."""

    def __init__(self, svids: Svids, witness: CallerWitness, listening: socket.socket) -> None:
        self._svids = svids
        self._witness = witness
        self._listening = listening
        self._crowd = Crowd()
        self._lookers = ThreadPoolExecutor(LOOKERS_MAX, thread_name_prefix="caller")
        self._config = Configuration(
            http2_connection_window_size=_WINDOW_BYTES, http2_stream_window_size=_WINDOW_BYTES
        ).__for_server__()
        self._h2_config = H2Configuration(
            client_side=False, header_encoding="ascii", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self._connections: dict[_Connection, int] = {}
        self._calls: set[_Calls] = set()
        self._admitting: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to accept."""
        self._accepting = asyncio.create_task(self._accept(), name="spiffe")

    async def close(self) -> None:
        """End every connection. Safe to call twice."""
        for each in (self._accepting, *self._admitting):
            if each is not None:
                each.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await each
        self._listening.close()
        calls = list(self._calls)
        for connection in list(self._connections):
            connection.end()
        for each_calls in calls:
            each_calls.close()
            await each_calls.wait_closed()
        self._lookers.shutdown(wait=False, cancel_futures=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listening)
            except OSError as fault:
                # Out of descriptors: those that wait are taken when some are free.
                _log.warning("spiffe_accept_failed", cause=str(fault))
                await asyncio.sleep(_BUSY_SEC)
                continue
            if len(self._connections) + len(self._admitting) >= CONNECTIONS_MAX:
                connection.close()
                continue
            admitting = asyncio.create_task(self._admit(connection))
            self._admitting.add(admitting)
            admitting.add_done_callback(self._admitting.discard)

    async def _admit(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            tied, caller = await loop.run_in_executor(self._lookers, self._witness.receive, connection)
        except CrankError as fault:
            _log.debug("spiffe_caller_refused", code=fault.error_code)
            return
        held = sum(uid == caller.uid for uid in self._connections.values())
        if held >= CONNECTIONS_MAX // _SHARE:
            tied.close()
            return
        seat = Seat(caller, self._svids, self._crowd, self._lookers)
        calls = self._services(seat)

        def begin() -> _Connection:
            made = _Connection(calls, self._config, self._h2_config, lambda: self._forget(made, calls))
            self._connections[made] = caller.uid
            self._calls.add(calls)
            return made

        await loop.connect_accepted_socket(begin, tied)

    def _forget(self, connection: _Connection, calls: _Calls) -> None:
        self._connections.pop(connection, None)
        self._calls.discard(calls)

    def _services(self, seat: Seat) -> _Calls:
        mapping = _Known()
        workloads = WorkloadApi(seat)
        for service in (workloads, SecretDiscovery(seat), Reflection(seat, workloads)):
            mapping.update(service.__mapping__())
        return _Calls(mapping, Codec(), None, _DispatchServerEvents())

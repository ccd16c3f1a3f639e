"""The worker's way to its controller: one WebSocket over mutual TLS, and blobs by HTTPS beside it.

TLS checks the chain; then `identify` checks it again and says who it is: a controller of this trust domain, by
the URI in its subject alternative name (SPIFFE X.509-SVID, section 5), never by a host name.
"""

import asyncio
import hashlib
import http.client
import logging
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus, InvalidURI

from crank.domain.identity import SpiffeId, WorkloadKind, parse_workload_path
from crank.domain.ids import Digest
from crank.domain.json import JsonObject, loads_strict
from crank.domain.quantity import BLOB_BYTES_MAX, KIB
from crank.domain.rules.standing import IDENTITY_EXPIRED, IDENTITY_NOT_ACCEPTED, IDENTITY_REVOKED
from crank.domain.trust import Peer
from crank.errors import (
    CrankError,
    InvalidRequest,
    NotAllowed,
    NotFound,
    ProtocolError,
    TooLarge,
    Unavailable,
    UntrustedPeer,
)
from crank.wire import MESSAGE_BYTES_MAX, Message, Trust, decode, encode

T = TypeVar("T")
# Makes a TCP connection to the controller.
Dial = Callable[[], socket.socket]
# What a connection is made with: asked for each one, because certificates are renewed.
Tls = Callable[[], ssl.SSLContext]
# Who the other side of a TLS session proved to be. Raises UntrustedPeer.
Identify = Callable[[Any], Peer]

OPEN_SEC = 10.0
PING_SEC = 5.0
PONG_SEC = 10.0
BLOB_SEC = 60.0
# Blobs on their way at once in one direction, of all attempts together.
_AT_ONCE_MAX = 8
# So long an idle connection is kept; the controller ends it later than this.
_IDLE_SEC = 4.0
_CHUNK_BYTES = 256 * 1024
_IDENTITY = "/v1/identity"
_REQUEST_TYPE = {"Content-Type": "application/pkcs10"}
_ANSWER_BYTES_MAX = 64 * KIB
# Words at the end of a link that say that this worker's identity is why it ended.
PARTING_CODES = frozenset({IDENTITY_REVOKED, IDENTITY_EXPIRED})
# The library tells of every frame; the worker tells what matters in its own words.
_quiet = logging.getLogger("crank.websockets")
_quiet.setLevel(logging.CRITICAL)


class WebSocketConnector:
    """The Connector port. `url` is `wss://host:port/v1/worker`; the context, or what returns the one of the moment,
    carries this worker's certificate and trusts one authority alone; `identify` proves who answered (`crank.security.Verifier.peer`). `dial` makes a
    TCP connection to that host and port, where this process has no network of its own; it blocks, and raises
    Unavailable."""

    def __init__(
        self,
        url: str,
        ssl_context: ssl.SSLContext | Tls,
        trust_domain: str,
        dial: Dial | None = None,
        *,
        identify: Identify,
    ) -> None:
        self._url = url
        self._tls: Tls = (lambda: ssl_context) if isinstance(ssl_context, ssl.SSLContext) else ssl_context
        self._check = partial(_check_controller, identify=identify, trust_domain=trust_domain)
        self._dial = dial
        # Of their own, so that whatever waits for a slow controller keeps no thread from the rest of the worker.
        self._threads = _Threads()

    async def connect(self) -> "WebSocketLink":
        """Open a mutually authenticated link. Raises Unavailable, UntrustedPeer."""
        dialed = await asyncio.to_thread(self._dial) if self._dial is not None else None
        try:
            opened = await connect(
                self._url,
                sock=dialed,
                ssl=self._tls(),
                proxy=None,
                compression=None,
                max_size=MESSAGE_BYTES_MAX,
                open_timeout=OPEN_SEC,
                ping_interval=PING_SEC,
                ping_timeout=PONG_SEC,
                close_timeout=2.0,
                logger=_quiet,
            )
        except ssl.SSLCertVerificationError as fault:
            raise _not_verified(fault) from fault
        except InvalidStatus as fault:
            raise _turned_away(fault.response.status_code, bytes(fault.response.body or b"")) from fault
        except (InvalidMessage, ssl.SSLError) as fault:
            raise await asyncio.to_thread(self._why_no_answer) from fault
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI) as fault:
            raise self._silent(fault) from fault
        try:
            self._check(opened.transport.get_extra_info("ssl_object"))
        except UntrustedPeer:
            await opened.close()
            raise
        blobs = _Blobs(self._url, self._tls, self._check, self._dial)
        return WebSocketLink(opened, blobs, self._threads)

    def _silent(self, fault: Exception) -> Unavailable:
        return Unavailable(f"The controller at {self._url} does not answer.", detail=str(fault))

    def _why_no_answer(self) -> CrankError:
        """Ask once more, in a way that tells a certificate that is not accepted from a controller that is not there."""
        try:
            with self._asking("HEAD", _IDENTITY) as answer:
                return Unavailable(f"The controller answered with no WebSocket (status {answer.status}).")
        except CrankError as fault:
            return fault

    def ask_identity(self, request: bytes) -> JsonObject:
        """Hand a request for the next certificate to the controller, and return its answer; blocking.

        Raises Unavailable, UntrustedPeer, NotAllowed, InvalidRequest, ProtocolError.
        """
        with self._asking("POST", _IDENTITY, request) as answer:
            status, body = answer.status, answer.read(_ANSWER_BYTES_MAX)
        if status != 200:
            raise _turned_away(status, body)
        found = _json(body)
        if found is None:
            raise ProtocolError("The controller answered a renewal with something else.")
        return found

    def ask_trust(self, has: int) -> Trust:
        """Ask by what this machine's peers are checked now, with the machine's own certificate; blocking.

        has  the sequence of what lies in its files; 0 for not known
        Raises as `ask_identity`.
        """
        with self._asking("GET", f"/v1/trust?has={has}") as answer:
            status, body = answer.status, answer.read(MESSAGE_BYTES_MAX + 1)
        if status != 200:
            raise _turned_away(status, body)
        found = decode(body)
        if not isinstance(found, Trust):
            raise ProtocolError("The controller was asked for its roots and answered with something else.")
        return found

    @contextmanager
    def _asking(self, method: str, path: str, body: bytes | None = None) -> Iterator[http.client.HTTPResponse]:
        parts = urlsplit(self._url)
        tls, proven = self._tls(), False
        with closing(_Connection(parts.hostname or "", parts.port or 443, context=tls, timeout=OPEN_SEC)) as connection:
            try:
                connection.reach(self._dial, tls)
                self._check(connection.sock)
                proven = True
                connection.request(method, path, body=body, headers={} if body is None else _REQUEST_TYPE)
                with closing(connection.getresponse()) as answer:
                    yield answer
            except ssl.SSLCertVerificationError as fault:
                raise _not_verified(fault) from fault
            except ssl.SSLError as fault:
                raise _alerted(fault) if proven else _tls_ended(fault) from fault
            except http.client.RemoteDisconnected as fault:
                raise _not_accepted(fault) from fault
            except (OSError, http.client.HTTPException) as fault:
                raise self._silent(fault) from fault


class _Threads:
    """Threads for blobs, apart by direction, so that no job's start waits for what another leaves."""

    def __init__(self) -> None:
        self.fetching = ThreadPoolExecutor(_AT_ONCE_MAX, thread_name_prefix="fetch")
        self.sending = ThreadPoolExecutor(_AT_ONCE_MAX, thread_name_prefix="send")


class WebSocketLink:
    """The ControllerLink port on an open WebSocket."""

    def __init__(self, socket: ClientConnection, blobs: "_Blobs", threads: "_Threads") -> None:
        self._socket = socket
        self._blobs = blobs
        self._threads = threads

    async def send(self, message: Message) -> None:
        """Send one message. Raises Unavailable when the connection is gone."""
        try:
            await self._socket.send(encode(message))
        except ConnectionClosed as fault:
            raise Unavailable(
                "The connection to the controller is gone.", code="link_lost", detail=str(fault)
            ) from fault

    async def messages(self) -> AsyncIterator[Message]:
        """Yield messages until the connection ends. Raises ProtocolError, Unavailable when the identity is why."""
        try:
            async for raw in self._socket:
                yield decode(raw)
        except ConnectionClosed:
            pass
        code, _, message = (self._socket.close_reason or "").partition(": ")
        if code in PARTING_CODES:
            raise Unavailable(message or "The controller does not believe this worker any more.", code=code)

    async def fetch_blob(self, digest: Digest, target: BinaryIO) -> None:
        """Copy a blob into `target` and check it. Raises NotFound, Unavailable."""
        await _in_thread(self._threads.fetching, lambda: self._blobs.fetch(digest, target))

    async def has_blob(self, digest: Digest) -> bool:
        """Tell whether the controller has a blob of this worker's own. Raises Unavailable."""
        return await _in_thread(self._threads.sending, lambda: self._blobs.has(digest))

    async def send_blob(self, digest: Digest, source: BinaryIO, size_bytes: int) -> None:
        """Copy a blob to the controller. Raises Unavailable, TooLarge, InvalidRequest."""
        await _in_thread(self._threads.sending, lambda: self._blobs.send(digest, source, size_bytes))

    async def close(self) -> None:
        """End the connection."""
        self._blobs.close()
        await self._socket.close()


async def _in_thread(pool: Executor, work: Callable[[], T]) -> T:
    submitted = pool.submit(work)
    running = asyncio.wrap_future(submitted)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if not submitted.cancel():
            # The thread still reads or writes the caller's file; its socket has a deadline of its own.
            await asyncio.wait([running])
            running.exception()
        raise


def _untrusted(cause: str) -> UntrustedPeer:
    return UntrustedPeer(f"The controller cannot prove who it is: {cause}")


_CLOCKS = "Compare the clocks of both machines ('timedatectl'); if they agree, let the worker join again."
# What OpenSSL says of a certificate that is good but for the time (X509_V_ERR_…).
_TIMES = {9: ("identity_not_yet_valid", "is not valid yet"), 10: (IDENTITY_EXPIRED, "has expired")}
def _not_verified(fault: ssl.SSLCertVerificationError) -> UntrustedPeer:
    if fault.verify_code not in _TIMES:
        return _untrusted(f"its certificate is not from this worker's authority ({fault.verify_message}).")
    code, said = _TIMES[fault.verify_code]
    message = f"The controller cannot prove who it is: by this machine's clock its certificate {said}."
    return UntrustedPeer(message, code=code, fix=_CLOCKS)


def _alerted(fault: ssl.SSLError) -> CrankError:
    """Return what the alert of a controller means that had proved who it is: anybody between can say what comes before."""
    reason = fault.reason or ""
    if reason.endswith("ALERT_CERTIFICATE_REVOKED"):
        return NotAllowed(
            "The controller turned this worker away: its certificate was revoked by the owner of the node.",
            code=IDENTITY_REVOKED,
            fix="If that was a mistake, its owner lifts it: crank identity list, then crank identity allow SPIFFE_ID",
            detail=reason,
        )
    return _not_accepted(fault) if "_ALERT_" in reason else _tls_ended(fault)


def _not_accepted(fault: Exception) -> Unavailable:
    # In TLS 1.3 a client is done before the server has looked at its certificate; its alert, or its end, comes after.
    return Unavailable(
        "The controller hung up once it saw this worker's certificate, as it does with one that has expired or is not "
        "valid yet by its clock, or is not of its authority.",
        code=IDENTITY_NOT_ACCEPTED,
        fix=_CLOCKS,
        detail=str(fault),
    )


def _tls_ended(fault: ssl.SSLError) -> Unavailable:
    return Unavailable(f"The controller ended the TLS session: {fault.reason}.", detail=str(fault))


def _json(body: bytes) -> JsonObject | None:
    try:
        found = loads_strict(body)
    except InvalidRequest:
        return None
    return found if isinstance(found, dict) else None


def _turned_away(status: int, body: bytes) -> CrankError:
    """Return the fault that a controller's refusal tells of."""
    told = _json(body) or {}
    code, message = str(told.get("code", "unavailable"))[:80], str(told.get("detail", f"Status {status}."))[:500]
    said = f"The controller turned this worker away: {message}"
    if code in PARTING_CODES:
        return NotAllowed(said, code=code, fix=str(told.get("fix", ""))[:300] or None)
    if status in (401, 403):
        return NotAllowed(said, code=code if code != "unavailable" else None)
    if status in (400, 413, 422):
        return InvalidRequest(said, code=code)
    return Unavailable(said, code=code)


def _check_controller(tls: Any, identify: Identify, trust_domain: str) -> SpiffeId:
    """Return the controller's identity. Raises UntrustedPeer."""
    if tls is None:
        raise _untrusted("it showed no certificate.")
    try:
        identity = identify(tls).spiffe_id
        is_controller = parse_workload_path(identity).kind is WorkloadKind.CONTROLLER
    except (UntrustedPeer, InvalidRequest) as fault:
        raise _untrusted(fault.message) from fault
    if identity.trust_domain != trust_domain or not is_controller:
        raise _untrusted(f"it is {identity}, not a controller of {trust_domain}.")
    return identity


class _Connection(http.client.HTTPSConnection):
    """HTTPS on a connection that somebody else may have made."""

    def reach(self, dial: Dial | None, tls: ssl.SSLContext) -> None:
        """Connect, by `dial` where there is one. Raises OSError, Unavailable."""
        if dial is None:
            self.connect()
            return
        plain = dial()
        plain.settimeout(BLOB_SEC)
        self.sock = tls.wrap_socket(plain, server_hostname=self.host)


class _Blobs:
    """Blobs over HTTPS, on connections that are kept for a moment, since most come in rows; blocking, safe in threads."""

    def __init__(
        self, url: str, tls: Tls, check: Callable[[Any], SpiffeId], dial: Dial | None
    ) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or 443
        self._tls = tls
        self._check = check
        self._dial = dial
        self._idle: deque[tuple[float, _Connection]] = deque()
        self._closed = False

    def close(self) -> None:
        """Close what is idle; what is under way is closed at its end."""
        self._closed = True
        while self._idle:
            self._idle.pop()[1].close()

    def fetch(self, digest: Digest, target: BinaryIO) -> None:
        """Copy a blob into `target`."""
        hasher = hashlib.sha256()
        total = 0
        with self._exchange("GET", digest) as answer:
            _check_status(answer, digest)
            while chunk := answer.read(_CHUNK_BYTES):
                total += len(chunk)
                if total > BLOB_BYTES_MAX:
                    raise Unavailable(f"The blob {digest} is larger than a blob may be.", code="blob_too_large")
                hasher.update(chunk)
                target.write(chunk)
        if hasher.hexdigest() != digest:
            raise Unavailable(f"The blob {digest} came with other bytes.", code="digest_mismatch")

    def has(self, digest: Digest) -> bool:
        """Tell whether the controller has a blob of this worker's own."""
        with self._exchange("HEAD", digest) as answer:
            if answer.status != 404:
                _check_status(answer, digest)
            return answer.status != 404

    def send(self, digest: Digest, source: BinaryIO, size_bytes: int) -> None:
        """Copy a blob to the controller."""
        with self._exchange("PUT", digest, source, size_bytes) as answer:
            _check_status(answer, digest)

    def _connected(self) -> _Connection:
        """Return a connection that was kept and still stands, or a new one. Raises OSError, Unavailable, UntrustedPeer."""
        oldest_sec = time.monotonic() - _IDLE_SEC
        with suppress(IndexError):
            while True:
                since_sec, connection = self._idle.pop()
                if since_sec > oldest_sec and not _has_ended(connection):
                    return connection
                # Too old, or its end has been told.
                connection.close()
        tls = self._tls()
        connection = _Connection(self._host, self._port, context=tls, timeout=BLOB_SEC)
        try:
            connection.reach(self._dial, tls)
            self._check(connection.sock)
        except BaseException:
            connection.close()
            raise
        return connection

    def _keep(self, connection: _Connection) -> bool:
        if self._closed or len(self._idle) >= _AT_ONCE_MAX:
            return False
        self._idle.append((time.monotonic(), connection))
        return True

    @contextmanager
    def _exchange(
        self, method: str, digest: Digest, source: BinaryIO | None = None, size_bytes: int = 0
    ) -> Iterator[http.client.HTTPResponse]:
        headers = {"Content-Length": str(size_bytes)} if source is not None else {}
        kept = False
        try:
            connection = self._connected()
            try:
                connection.request(method, f"/v1/blobs/{digest}", body=source, headers=headers)
                # The answer holds the socket too, so it is closed whether or not it was read.
                with closing(connection.getresponse()) as answer:
                    yield answer
                    answer.read(_CHUNK_BYTES)
                    kept = answer.isclosed() and not answer.will_close and self._keep(connection)
            finally:
                if not kept:
                    connection.close()
        except UntrustedPeer as fault:
            raise Unavailable(fault.message, code=fault.error_code, fix=fault.fix) from fault
        except (OSError, http.client.HTTPException) as fault:
            raise _cut(fault) from fault


def _has_ended(connection: _Connection) -> bool:
    """Tell whether the other side has said something unasked on an idle connection: that is its end."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _check_status(answer: http.client.HTTPResponse, digest: Digest) -> None:
    if answer.status in (200, 201, 204):
        return
    if answer.status == 404:
        raise NotFound(f"The controller has no blob {digest}.")
    if answer.status == 413:
        raise TooLarge(f"The controller takes no blob as large as {digest}.")
    if answer.status in (400, 422):
        raise InvalidRequest(f"The controller does not take the blob {digest} (status {answer.status}).")
    if answer.status in (401, 403):
        raise ProtocolError(f"The controller lets this worker not reach blobs (status {answer.status}).")
    raise Unavailable(f"The controller cannot serve the blob {digest} now (status {answer.status}).")


def _cut(fault: Exception) -> Unavailable:
    return Unavailable("The transfer of a blob was cut.", code="blob_cut", detail=str(fault))

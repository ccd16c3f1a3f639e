"""A bridge for hosts that speak MCP over stdin and stdout: lines in, requests to the node's /mcp, lines out.

It holds no state of the work. When the node starts anew, the bridge finds it again by itself: what could not have
reached the node, or only looks, is sent again; what may have done something is not, and the host is told.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import httpx2

from crank.client.link import ClientOptions, fault_of, read_secret, tls_context, transport_fault
from crank.client.mcp_messages import (
    INVALID_REQUEST,
    MESSAGE_BYTES_MAX,
    PARSE_ERROR,
    Envelope,
    RequestId,
    error,
    read_envelope,
    renamed,
)
from crank.domain.json import JsonValue, dumps, loads_strict
from crank.errors import CrankError, InvalidRequest, ProtocolError, TooLarge, Unavailable, UntrustedPeer

RETRY_SEC = 20.0
# After the host closed stdin: time for what is nearly done; a pipe ends before its last answer comes.
FAREWELL_SEC = 5.0
# Less than hosts wait before they kill.
_LEAVE_SEC = 1.5
IN_FLIGHT_MAX = 256
ANSWER_DEPTH_MAX = 128
_DELAY_SEC = 0.2
# Longer than the node's longest call, and than its sign of life on a stream.
_QUIET_SEC = 60.0
_ACCEPT = "application/json, text/event-stream"
_SESSION = "mcp-session-id"

# Where the node is now; it may start one. Raises CrankError.
Locate: TypeAlias = Callable[[], Awaitable[ClientOptions]]
Put: TypeAlias = Callable[[bytes], Awaitable[None]]


class _Restarted(Exception):
    """The session of the older era is gone with the node that held it."""


class Bridge:
    """Serves one host. `locate` finds the node; `put` writes one line to the host."""

    def __init__(self, locate: Locate, put: Put) -> None:
        self._locate = locate
        self._put = put
        self._node: tuple[ClientOptions, httpx2.AsyncClient] | None = None
        self._finding = asyncio.Lock()
        self._flying: dict[RequestId, asyncio.Task[None]] = {}
        # Of the older era: what opened the session, its name, and the version that was agreed on.
        self._opening: Envelope | None = None
        self._session: str | None = None
        self._version: str | None = None
        self._reopening = asyncio.Lock()

    async def serve(self, lines: AsyncIterator[bytes | None]) -> None:
        """Serve until the host closes its end. A line that is None was longer than messages may be."""
        try:
            async for line in lines:
                await self._take(line)
            if self._flying:
                await asyncio.wait(self._flying.values(), timeout=FAREWELL_SEC)
        finally:
            await self._leave()

    async def _leave(self) -> None:
        flying = list(self._flying.values())
        for task in flying:
            task.cancel()
        await asyncio.gather(*flying, return_exceptions=True)
        if self._node is None:
            return
        options, http = self._node
        if self._session is not None:
            # What still runs for this host in the older era ends with its session.
            with contextlib.suppress(httpx2.HTTPError, TimeoutError):
                async with asyncio.timeout(_LEAVE_SEC):
                    await http.delete(f"{options.api}/mcp", headers=self._older())
        await http.aclose()

    async def _take(self, line: bytes | None) -> None:
        if line is None:
            await self._put(error(None, TooLarge(f"A message has at most {MESSAGE_BYTES_MAX} bytes."), code=INVALID_REQUEST))
            return
        if not line.strip():
            return
        try:
            envelope = read_envelope(line.strip())
        except InvalidRequest as fault:
            broken = fault.error_code == "malformed_json"
            await self._put(error(None, fault, code=PARSE_ERROR if broken else INVALID_REQUEST))
            return
        if envelope.kind == "request":
            await self._request(envelope)
        elif envelope.kind == "notification":
            await self._notice(envelope)
        # A response answers a question of the node, and this node asks none.

    async def _request(self, envelope: Envelope) -> None:
        request_id = envelope.request_id
        assert request_id is not None, "a request has an id"
        if request_id in self._flying or len(self._flying) >= IN_FLIGHT_MAX:
            cause = "This id is in use." if request_id in self._flying else "Too many requests are under way."
            await self._put(error(request_id, InvalidRequest(cause, code="request_refused"), code=INVALID_REQUEST))
            return
        task = asyncio.create_task(self._answer(envelope, request_id))
        self._flying[request_id] = task
        task.add_done_callback(lambda _: self._flying.pop(request_id, None))
        if envelope.method == "initialize":
            # What follows needs the session that this opens.
            await asyncio.wait({task})

    async def _notice(self, envelope: Envelope) -> None:
        cancelled = envelope.cancels
        task = self._flying.get(cancelled) if cancelled is not None else None
        if self._version is not None:
            # The older era: the message itself is the sign. In the newer one closing the stream is.
            with contextlib.suppress(CrankError):
                await self._exchange(envelope, None)
        if task is not None:
            task.cancel()

    async def _answer(self, envelope: Envelope, request_id: RequestId) -> None:
        try:
            await self._exchange(envelope, request_id)
        except CrankError as fault:
            await self._put(error(request_id, fault))
        except httpx2.HTTPError as silence:
            await self._put(error(request_id, ProtocolError(f"The node's answer cannot be read: {silence!r}"[:400])))

    async def _exchange(self, envelope: Envelope, request_id: RequestId | None) -> None:
        """Send a message until it has arrived, once. Raises the fault that kept it from that."""
        until_sec = time.monotonic() + RETRY_SEC
        while True:
            options, http = await self._reach()
            sent = _Sent()
            try:
                await self._send(options, http, envelope, request_id, sent)
                return
            except _Restarted:
                await self._open_again(options, http)
            except httpx2.TransportError as silence:
                await self._forget(http)
                fault = transport_fault(silence, options.api)
                if isinstance(fault, UntrustedPeer):
                    raise fault from silence
                if sent.answered or not (_never_left(silence) or envelope.method != "tools/call"):
                    raise _cut_off() from silence
                if time.monotonic() > until_sec:
                    raise fault from silence
            except CrankError as fault:
                if fault.error_code != "not_authenticated" or time.monotonic() > until_sec:
                    raise
                # The node's owner may have another secret by now.
                await self._forget(http)
                until_sec = 0.0
            await asyncio.sleep(_DELAY_SEC)

    async def _send(
        self, options: ClientOptions, http: httpx2.AsyncClient, envelope: Envelope, request_id: RequestId | None, sent: "_Sent"
    ) -> None:
        older = envelope.version is None
        headers = {"accept": _ACCEPT, "content-type": "application/json", **envelope.headers()}
        if older and envelope.method != "initialize":
            headers |= self._older()
        async with http.stream("POST", f"{options.api}/mcp", content=envelope.raw, headers=headers) as answer:
            if older and envelope.method == "initialize" and answer.is_success:
                self._opening, self._session = envelope, answer.headers.get(_SESSION)
            if answer.status_code == 404 and older and self._session is not None and self._opening is not None:
                raise _Restarted
            if request_id is None:
                return
            kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind == "text/event-stream":
                await self._hand_on(answer, envelope, request_id, sent)
            else:
                await self._hand_back(answer, envelope, request_id)

    async def _hand_on(
        self, answer: httpx2.Response, envelope: Envelope, request_id: RequestId, sent: "_Sent"
    ) -> None:
        """Write every message of a stream to the host as it comes."""
        async for event in httpx2.EventSource(answer, max_event_size=MESSAGE_BYTES_MAX):
            if not event.data:
                continue
            sent.answered = True
            message = _read(event.data.encode())
            final = isinstance(message, dict) and message.get("id") == request_id and "method" not in message
            self._note_version(envelope, message if final else None)
            await self._put(dumps(message).encode())
            if final:
                return
        raise _cut_off()

    async def _hand_back(self, answer: httpx2.Response, envelope: Envelope, request_id: RequestId) -> None:
        octets = await answer.aread()
        if len(octets) > MESSAGE_BYTES_MAX:
            raise TooLarge("The node's answer is larger than messages may be.")
        message = _read(octets) if octets else None
        line = renamed(message, request_id)
        if line is None:
            raise fault_of(answer.status_code, message)
        self._note_version(envelope, message)
        await self._put(line)

    def _note_version(self, envelope: Envelope, message: JsonValue) -> None:
        if envelope.method == "initialize" and isinstance(message, dict):
            agreed = (message.get("result") or {}).get("protocolVersion")
            self._version = agreed if isinstance(agreed, str) else None

    def _older(self) -> dict[str, str]:
        named = {_SESSION: self._session, "mcp-protocol-version": self._version}
        return {name: value for name, value in named.items() if value is not None}

    async def _open_again(self, options: ClientOptions, http: httpx2.AsyncClient) -> None:
        """Open a session as the host opened its first; the host need not know."""
        lost = self._session
        async with self._reopening:
            if self._session != lost or self._opening is None:
                return
            headers = {"accept": _ACCEPT, "content-type": "application/json"}
            url = f"{options.api}/mcp"
            answer = await http.post(url, content=self._opening.raw, headers=headers)
            if not answer.is_success or _SESSION not in answer.headers:
                raise Unavailable("The node does not open a session again.", code="node_unreachable")
            self._session = answer.headers[_SESSION]
            begun = dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}).encode()
            await http.post(url, content=begun, headers={**headers, **self._older()})

    async def _reach(self) -> tuple[ClientOptions, httpx2.AsyncClient]:
        """Return a way to the node. Raises what `locate` raises."""
        async with self._finding:
            if self._node is None:
                options = await self._locate()
                http = httpx2.AsyncClient(
                    verify=tls_context(options.ca_file),
                    headers={"Authorization": f"Bearer {read_secret(options.token_file)}"},
                    timeout=httpx2.Timeout(_QUIET_SEC, connect=5.0, pool=None),
                    limits=httpx2.Limits(max_connections=IN_FLIGHT_MAX + 1, max_keepalive_connections=8),
                    trust_env=False,
                )
                self._node = (options, http)
            return self._node

    async def _forget(self, http: httpx2.AsyncClient) -> None:
        """Look for the node anew before the next message."""
        if self._node is not None and self._node[1] is http:
            self._node = None
            await http.aclose()


class _Sent:
    """Whether anything of an answer came."""

    answered = False


def _never_left(silence: httpx2.TransportError) -> bool:
    return isinstance(silence, httpx2.ConnectError | httpx2.ConnectTimeout)


def _cut_off() -> Unavailable:
    return Unavailable(
        "The node stopped while it answered; what it had accepted goes on when it runs again.",
        code="node_gone",
        fix="Ask again; with an idempotency_key nothing is done twice.",
    )


def _read(octets: bytes) -> JsonValue:
    try:
        return loads_strict(octets, depth_max=ANSWER_DEPTH_MAX)
    except InvalidRequest as fault:
        raise ProtocolError("The node answered something that is not JSON.") from fault

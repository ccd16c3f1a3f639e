"""One TLS connection pool to a node, and how its refusals and its silence become faults of Crank.

Requests that change something carry an Idempotency-Key, so that a lost answer can be asked for again.
"""

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from crank.client.fault import fault_of, job_id_of
from crank.client.proof import ProofKey
from crank.client.renewal import GivenToken, RenewedToken
from crank.client.token_forms import TokenWanted, is_token
from crank.errors import ConfigurationError, CrankError, ProtocolError, Unavailable, UntrustedPeer

__all__ = ["ClientOptions", "Link", "fault_of", "job_id_of", "read_secret", "tls_context", "transport_fault"]

RETRY_STATUSES = frozenset({502, 503, 504})
EVENT_BYTES_MAX = 64 * 1024 * 1024
_CONNECT_SEC = 10.0
# Longer than the longest `Prefer: wait`.
_READ_SEC = 60.0
_DELAY_MAX_SEC = 3.0


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Where a node is and how to prove oneself to it.

    api         `https://127.0.0.1:7443`
    ca_file     certificates that prove the node, read anew when they change; token_file the caller's secret
    retry_sec   how long a safe request is repeated while the node does not answer
    token       a token or a key's secret, in place of that in token_file
    proof_key   the key that the token is bound to, or that tokens shall be bound to
    exchange    exchange the secret for short tokens that renew themselves, each allowing what is said here;
                None: the secret itself is sent
    """

    api: str
    ca_file: str
    token_file: str
    retry_sec: float = 30.0
    token: str | None = field(default=None, repr=False)
    proof_key: ProofKey | None = None
    exchange: TokenWanted | None = None


def read_secret(path: str) -> str:
    """Return the caller's secret. Raises ConfigurationError."""
    try:
        return Path(path).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigurationError(
            f"The token file {path} cannot be read: {fault}",
            code="token_unreadable",
            fix="Start the node with 'crank up', or name its token file.",
        ) from fault


def tls_context(ca_file: str) -> ssl.SSLContext:
    """Return what verifies a node by its own authority. Raises ConfigurationError."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as fault:
        raise _ca_unreadable(ca_file, fault) from fault
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _proof(ca_file: str) -> bytes:
    """Return what the file holds, which is small. Raises ConfigurationError."""
    try:
        return Path(ca_file).read_bytes()
    except OSError as fault:
        raise _ca_unreadable(ca_file, fault) from fault


def _ca_unreadable(ca_file: str, fault: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"The certificate file {ca_file} cannot be used: {fault}",
        code="ca_unreadable",
        fix="Start the node with 'crank up', or name its CA file.",
    )


def _auth(options: ClientOptions) -> httpx2.Auth:
    secret = options.token if options.token is not None else read_secret(options.token_file)
    if options.exchange is not None:
        return RenewedToken(options.api, secret, options.proof_key or ProofKey(), options.exchange)
    return GivenToken(secret, options.proof_key if is_token(secret) else None)


class Link:
    """Requests to one node. Belongs to one event loop."""

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        self._proof = _proof(options.ca_file)
        self._http = self._connect(tls_context(options.ca_file), _auth(options))
        self._earlier: list[httpx2.AsyncClient] = []

    def _connect(self, context: ssl.SSLContext, auth: httpx2.Auth | None) -> httpx2.AsyncClient:
        # trust_env off: a proxy or another CA from the environment must not come between.
        return httpx2.AsyncClient(
            base_url=self.options.api,
            verify=context,
            auth=auth,
            timeout=httpx2.Timeout(_READ_SEC, connect=_CONNECT_SEC),
            trust_env=False,
        )

    def _current(self) -> httpx2.AsyncClient:
        """Return the pool whose connections are proven by what the file holds now: the node may have changed its root."""
        with contextlib.suppress(ConfigurationError):
            proof = _proof(self.options.ca_file)
            if proof != self._proof:
                now = self._connect(tls_context(self.options.ca_file), self._http.auth)
                # What is under way on the earlier one goes on.
                self._earlier.append(self._http)
                self._http, self._proof = now, proof
        return self._http

    async def close(self) -> None:
        """Close every connection."""
        for http in (*self._earlier, self._http):
            await http.aclose()

    async def ask(self, method: str, path: str, *, retry: bool = True, **parts: Any) -> tuple[int, Any]:
        """Send a request and return (status, JSON body).

        retry  the request may be repeated: it only reads, or carries a key
        Raises the fault that the node tells of, Unavailable when it stays silent, UntrustedPeer when
        it cannot prove who it is.
        """
        until = time.monotonic() + (self.options.retry_sec if retry else 0.0)
        delay_sec = 0.1
        while True:
            try:
                answer = await self._current().request(method, path, **parts)
                fault = None if answer.is_success else fault_of(answer.status_code, _json_or_none(answer))
                if fault is None:
                    return answer.status_code, _json(answer)
                again = answer.status_code in RETRY_STATUSES or fault.error_code == "idempotency_in_flight"
            except httpx2.TransportError as silence:
                fault, again = transport_fault(silence, self.options.api), True
            if not again or isinstance(fault, UntrustedPeer) or time.monotonic() + delay_sec > until:
                raise fault
            await asyncio.sleep(delay_sec * (0.5 + random.random() / 2))
            delay_sec = min(delay_sec * 2, _DELAY_MAX_SEC)

    @asynccontextmanager
    async def stream(self, method: str, path: str, **parts: Any) -> AsyncIterator[httpx2.Response]:
        """Open a streamed answer. Raises as `ask`, without repeating."""
        try:
            async with self._current().stream(method, path, **parts) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise fault_of(answer.status_code, _json_or_none(answer))
                yield answer
        except httpx2.TransportError as silence:
            raise transport_fault(silence, self.options.api) from silence


def transport_fault(silence: httpx2.TransportError, api: str) -> CrankError:
    """Return what a failure of the connection means."""
    cause: BaseException | None = silence
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return UntrustedPeer(
                f"The node at {api} could not prove who it is: {cause.verify_message}.",
                fix="Use the ca_file of this very node; 'crank node info --json' names it.",
            )
        cause = cause.__cause__ or cause.__context__
    return Unavailable(
        f"The node at {api} does not answer.",
        code="node_unreachable",
        fix="Start it with 'crank up'; 'crank doctor' tells what is wrong.",
        detail=repr(silence),
    )


def _json_or_none(answer: httpx2.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _json(answer: httpx2.Response) -> Any:
    if not answer.content:
        return None
    try:
        return answer.json()
    except ValueError as fault:
        raise ProtocolError("The node answered something that is not JSON.") from fault

"""One TLS connection pool to a node, and how its refusals and its silence become faults of Crank.

Requests that change something carry an Idempotency-Key, so that a lost answer can be asked for again.
"""

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from crank import errors
from crank.errors import ConfigurationError, CrankError, Problem, ProtocolError, Unavailable, UntrustedPeer

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
    ca_file     certificate that proves the node; token_file the caller's secret
    retry_sec   how long a safe request is repeated while the node does not answer
    """

    api: str
    ca_file: str
    token_file: str
    retry_sec: float = 30.0


_BY_STATUS: Mapping[int, type[CrankError]] = {
    400: errors.InvalidRequest,
    401: errors.NotAuthenticated,
    403: errors.NotAllowed,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.TooLarge,
    422: errors.InvalidRequest,
    429: errors.Unavailable,
    503: errors.Unavailable,
}
_BY_CODE: Mapping[str, type[CrankError]] = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CrankError)
}


def fault_of(status: int, body: Any) -> CrankError:
    """Return the fault that a problem document (RFC 9457) tells of."""
    document = body if isinstance(body, dict) else {}
    code = str(document.get("code") or "")
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status) or (CrankError if status >= 500 else errors.InvalidRequest)
    message = str(document.get("detail") or document.get("title") or f"The node answered with status {status}.")
    fix = document.get("fix") or None
    if issubclass(kind, Unavailable):
        return kind(message, code=code or None, fix=fix)
    problems = tuple(
        Problem(str(entry.get("field", "")), str(entry.get("cause", "")), str(entry.get("fix", "")))
        for entry in document.get("problems") or ()
        if isinstance(entry, dict)
    )
    fault = kind(message, code=code or None, field=document.get("field") or None, fix=fix, problems=problems)
    if document.get("job_id"):
        fault.add_note(f"job_id={document['job_id']}")
    return fault


def job_id_of(fault: CrankError) -> str | None:
    """Return the job that a fault is about, when the node named one."""
    for note in getattr(fault, "__notes__", ()):
        if note.startswith("job_id="):
            return str(note.removeprefix("job_id="))
    return None


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
        raise ConfigurationError(
            f"The certificate file {ca_file} cannot be used: {fault}",
            code="ca_unreadable",
            fix="Start the node with 'crank up', or name its CA file.",
        ) from fault
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


class Link:
    """Requests to one node. Belongs to one event loop."""

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        # trust_env off: a proxy or another CA from the environment must not come between.
        self._http = httpx2.AsyncClient(
            base_url=options.api,
            verify=tls_context(options.ca_file),
            headers={"Authorization": f"Bearer {read_secret(options.token_file)}"},
            timeout=httpx2.Timeout(_READ_SEC, connect=_CONNECT_SEC),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

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
                answer = await self._http.request(method, path, **parts)
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
            async with self._http.stream(method, path, **parts) as answer:
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

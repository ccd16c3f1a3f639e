"""Fetches one file over https from a public address, and cannot be led anywhere else.

The name is resolved once and every address it has must be public; the connection goes to an address that was
checked, so that a name which changes its mind (DNS rebinding) gains nothing. No redirect, no proxy, no cookie.
"""

import asyncio
import ssl
from collections.abc import Callable

import h11

from crank.adapters.https_download.addresses import FETCHES_MAX, PORT, Resolve, is_public, resolve
from crank.adapters.https_download.exchange import exchange
from crank.domain.rules.file_links import host_and_target
from crank.errors import NotAllowed, TooLarge, Unavailable

CONNECT_SEC = 5.0
class HttpsDownloads:
    """See `crank.ports.Downloads`."""

    def __init__(
        self,
        *,
        trust: ssl.SSLContext | None = None,
        resolve: Resolve = resolve,
        allows: Callable[[str], bool] = is_public,
        port: int = PORT,
    ) -> None:
        """Take what a test replaces: whose certificates are believed, how names are found, which addresses may be asked."""
        self._trust = trust
        self._resolve = resolve
        self._allows = allows
        self._port = port
        self._gate = asyncio.Semaphore(FETCHES_MAX)

    async def fetch(self, url: str, *, bytes_max: int) -> bytes:
        """Return the file. See the port for what it raises."""
        async with self._gate:
            return await self._fetch(url, bytes_max)

    async def _fetch(self, url: str, bytes_max: int) -> bytes:
        host, target = host_and_target(url)
        if self._trust is None:
            # Read once: the system's authorities are some hundred certificates.
            self._trust = await asyncio.to_thread(ssl.create_default_context)
        try:
            address = await self._address(host)
            async with asyncio.timeout(CONNECT_SEC):
                reader, writer = await asyncio.open_connection(
                    address, self._port, ssl=self._trust, server_hostname=host
                )
        except (OSError, TimeoutError) as fault:
            raise _failed("the host cannot be reached, or cannot prove its name", fault) from fault
        try:
            return await exchange(
                (reader, writer), host, target, bytes_max=bytes_max,
                check=lambda answer: _check(answer, bytes_max), too_large=lambda: _too_large(bytes_max),
            )  # fmt: skip
        except (OSError, h11.RemoteProtocolError, EOFError) as fault:
            raise _failed("the answer broke off", fault) from fault
        finally:
            writer.transport.abort()

    async def _address(self, host: str) -> str:
        addresses = await self._resolve(host)
        if not addresses or not all(self._allows(address) for address in addresses):
            raise NotAllowed(
                "The file's host has an address that is not public.",
                code="file_link_refused",
                field="openaiFileIdRefs",
                fix="Hand over a file of the conversation.",
            )
        return addresses[0]


def _check(answer: h11.Response, bytes_max: int) -> None:
    headers = {name: value for name, value in answer.headers}  # noqa: C416 - h11 gives its own kind of sequence
    if 300 <= answer.status_code < 400:
        raise NotAllowed("The link leads elsewhere.", code="file_link_refused", field="openaiFileIdRefs")
    if answer.status_code != 200:
        raise _failed(f"the host answered {answer.status_code}", None)
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise _failed("the host sends it packed", None)
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length[:20]) > bytes_max:
        raise _too_large(bytes_max)


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"A file is larger than {bytes_max} bytes.", code="files_too_large", field="openaiFileIdRefs")


def _failed(cause: str, fault: BaseException | None) -> Unavailable:
    return Unavailable(
        f"A file could not be fetched: {cause}.", code="file_link_failed", detail=str(fault) if fault else None
    )

"""Fetches one file over https from a public address, and cannot be led anywhere else.

The name is resolved once and every address it has must be public; the connection goes to an address that was
checked, so that a name which changes its mind (DNS rebinding) gains nothing. No redirect, no proxy, no cookie.
"""

import asyncio
import concurrent.futures
import functools
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence

import h11

from crank.domain.rules.file_links import host_and_target
from crank.errors import NotAllowed, TooLarge, Unavailable

PORT = 443
CONNECT_SEC = 5.0
PIECE_BYTES = 64 * 1024
# At once: each may hold a whole file in memory.
FETCHES_MAX = 4
# Of version 6 only this is the public internet: what hides another address in front of zeros, what is translated,
# site-local and segment routing all lie outside.
_UNICAST = ipaddress.ip_network("2000::/3")
# What lies inside of the public ranges and yet leads to a relay, a translator, an example or whoever is near.
_SPECIAL = tuple(
    ipaddress.ip_network(each)
    for each in (
        "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
        "192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.175.48.0/24",
    )
)  # fmt: skip
Resolve = Callable[[str], Awaitable[Sequence[str]]]


def is_public(address: str) -> bool:
    """Tell whether an address lies in the public internet: not here, not in a private network, not reserved."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if parsed.version == 6 and parsed not in _UNICAST:
        return False
    return parsed.is_global and not parsed.is_multicast and not any(parsed in each for each in _SPECIAL)


# Threads of their own: a name that is never answered must not hold those that the store and the blobs need.
_RESOLVING = concurrent.futures.ThreadPoolExecutor(max_workers=FETCHES_MAX, thread_name_prefix="resolve")


async def resolve(host: str) -> Sequence[str]:
    """Return the addresses of a name. Raises OSError."""
    found = await asyncio.get_running_loop().run_in_executor(
        _RESOLVING, functools.partial(socket.getaddrinfo, host, PORT, type=socket.SOCK_STREAM)
    )
    return [str(entry[4][0]) for entry in found]


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
            return await _ask(reader, writer, host, target, bytes_max)
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


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, target: str, bytes_max: int
) -> bytes:
    talk = h11.Connection(h11.CLIENT, max_incomplete_event_size=32 * 1024)
    headers = [("Host", host), ("Accept", "*/*"), ("Accept-Encoding", "identity"), ("Connection", "close")]
    asked = talk.send(h11.Request(method="GET", target=target, headers=headers))
    assert asked is not None, "a request has bytes"
    writer.write(asked + (talk.send(h11.EndOfMessage()) or b""))
    await writer.drain()
    content = bytearray()
    while True:
        event = talk.next_event()
        if event is h11.NEED_DATA:
            talk.receive_data(await reader.read(PIECE_BYTES))
        elif isinstance(event, h11.Response):
            _check(event, bytes_max)
        elif isinstance(event, h11.Data):
            content += event.data
            if len(content) > bytes_max:
                raise _too_large(bytes_max)
        elif isinstance(event, h11.EndOfMessage):
            return bytes(content)
        elif not isinstance(event, h11.InformationalResponse):
            raise _failed("the answer broke off", None)


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

"""Fetching a file of a stranger: bounded, from public addresses alone, and never led elsewhere."""

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator, Sequence

import pytest

from crank.adapters.https_download import HttpsDownloads, is_public
from crank.errors import CrankError, NotAllowed, TooLarge, Unavailable
from tests.support.certificates import Authority

HOST = "files.example.org"
URL = f"https://{HOST}/a?b"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False), ("10.1.2.3", False), ("172.16.0.1", False), ("192.168.1.1", False), ("169.254.169.254", False),
        ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False), ("198.18.0.1", False),
        ("::1", False), ("::", False), ("fe80::1%eth0", False), ("fd00::1", False), ("ff02::1", False),
        ("::ffff:127.0.0.1", False), ("::ffff:8.8.8.8", False), ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False),
        ("8.8.8.8", True), ("2a00:1450:4001:800::200e", True), ("2001:4860:4860::8888", True), ("2600::", True),
        ("::127.0.0.1", False), ("::8.8.8.8", False), ("::ffff:0:127.0.0.1", False), ("64:ff9b::8.8.8.8", False),
        ("64:ff9b:1::7f00:1", False), ("fec0::1", False), ("100::1", False), ("5f00::1", False), ("4000::1", False), ("c000::1", False),
        ("2001::1", False), ("2001:0:7f00:1::", False), ("2001:2::1", False), ("2001:10::1", False), ("2001:20::1", False),
        ("2001:1ff:ffff::1", False), ("2001:db8::1", False), ("2002:808:808::", False), ("2620:4f:8000::1", False),
        ("3fff::1", False), ("3fff:fff:ffff::1", False), ("192.88.99.1", False), ("192.0.0.9", False), ("192.0.0.170", False),
        ("192.0.2.1", False), ("198.51.100.1", False), ("203.0.113.1", False), ("192.31.196.1", False), ("192.52.193.1", False),
        ("192.175.48.1", False), ("198.19.255.255", False), ("240.0.0.1", False), ("239.255.255.250", False),
    ],
)  # fmt: skip
def test_only_public_addresses_count(address: str, public: bool) -> None:
    """Loopback, private, link-local, site-local, shared, reserved, relayed, translated and example addresses are all refused."""
    assert is_public(address) is public


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254"])
def test_no_way_to_write_an_address_in_another_makes_it_public(address: str) -> None:
    """Whatever known prefix hides an address of version 4, it is refused for it."""
    octets = ipaddress.IPv4Address(address).packed
    for prefix, at in (("::", 12), ("::ffff:0:0", 12), ("::ffff:0:0:0", 12), ("64:ff9b::", 12), ("2002::", 2), ("2001::", 4)):
        hidden = bytearray(ipaddress.IPv6Address(prefix).packed)
        hidden[at : at + 4] = octets
        assert not is_public(str(ipaddress.IPv6Address(bytes(hidden)))), prefix


class Server:
    """One https server that answers every request with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.asked: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        with contextlib.suppress(OSError, EOFError):
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            await writer.drain()
            writer.close()


@contextlib.asynccontextmanager
async def serving(tmp_path, answer: bytes, *, name: str = HOST) -> AsyncIterator[tuple[HttpsDownloads, Server]]:
    """Give a fetcher that finds every name on a local server, whose certificate it believes."""
    authority = Authority(tmp_path, "files")
    certificate, key = authority.server_files(name)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server = Server(answer)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    port = listening.sockets[0].getsockname()[1]

    async def here(_host: str) -> Sequence[str]:
        return ["127.0.0.1"]

    trust = ssl.create_default_context(cafile=authority.file)
    try:
        yield HttpsDownloads(trust=trust, resolve=here, allows=lambda _: True, port=port), server
    finally:
        listening.close()
        await listening.wait_closed()


async def test_a_file_is_fetched_as_it_is(tmp_path) -> None:
    """One plain request, without a credential or a cookie, and the bytes of the answer."""
    async with serving(tmp_path, OK) as (downloads, server):
        assert await downloads.fetch(URL, bytes_max=5) == b"hello"
    assert server.asked[0].startswith(b"GET /a?b HTTP/1.1\r\n")
    assert b"host: files.example.org\r\n" in server.asked[0].lower()
    assert b"authorization" not in server.asked[0].lower()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1/\r\n\r\n", NotAllowed),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Unavailable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhelloo", TooLarge),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhelloo\r\n0\r\n\r\n", TooLarge),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000, TooLarge),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", Unavailable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", Unavailable),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, Unavailable),
        (b"SSH-2.0-OpenSSH\r\n", Unavailable),
        (b"", Unavailable),
    ],
)  # fmt: skip
async def test_every_other_answer_is_refused(tmp_path, answer: bytes, kind: type[CrankError]) -> None:
    """A redirect, an error, too many bytes however they are counted, packed, broken and foreign answers."""
    async with serving(tmp_path, answer) as (downloads, _):
        with pytest.raises(kind):
            await downloads.fetch(URL, bytes_max=5)


async def test_a_wrong_certificate_gets_nothing(tmp_path) -> None:
    """A server that cannot prove the name is not asked."""
    async with serving(tmp_path, OK, name="other.example.org") as (downloads, server):
        with pytest.raises(Unavailable):
            await downloads.fetch(URL, bytes_max=5)
    assert server.asked == []


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], []])
async def test_a_name_with_any_private_address_is_refused(addresses: list[str]) -> None:
    """One public address beside a private one does not help, and no connection is tried."""

    async def found(_host: str) -> Sequence[str]:
        return addresses

    with pytest.raises(NotAllowed) as caught:
        await HttpsDownloads(resolve=found).fetch(URL, bytes_max=5)
    assert caught.value.error_code == "file_link_refused"


async def test_a_name_that_is_not_found_is_a_refusal() -> None:
    """What the resolver says is no defect of ours."""

    async def nowhere(_host: str) -> Sequence[str]:
        raise OSError("no such name")

    with pytest.raises(Unavailable):
        await HttpsDownloads(resolve=nowhere).fetch(URL, bytes_max=5)

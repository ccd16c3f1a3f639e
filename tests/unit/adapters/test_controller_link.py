"""The worker's link refuses whoever cannot prove to be its controller, and whatever comes spoiled."""

import hashlib
import io
import ssl
from pathlib import Path

import pytest

from crank.adapters.controller_link import WebSocketConnector
from crank.domain.ids import Digest
from crank.errors import Unavailable, UntrustedPeer
from tests.support.certificates import Authority
from tests.support.controller_side import TRUST_DOMAIN, TlsController

CONTROLLER = f"spiffe://{TRUST_DOMAIN}/controller/c1"
WORKER = f"spiffe://{TRUST_DOMAIN}/worker/w1"


def client(authority: Authority) -> ssl.SSLContext:
    """Return the context of a worker."""
    return authority.context(WORKER, server=False)


def connector(url: str, authority: Authority, tls: ssl.SSLContext | None = None) -> WebSocketConnector:
    """Return the connector of a worker who believes this authority."""
    identify = authority.verifier(TRUST_DOMAIN).peer
    return WebSocketConnector(url, tls or client(authority), TRUST_DOMAIN, identify=identify)


async def test_a_controller_of_another_authority_is_untrusted(tmp_path: Path) -> None:
    """The right name signed by the wrong authority is refused, and the sentence says so."""
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    async with TlsController(theirs.context(CONTROLLER, server=True)).open() as controller:
        with pytest.raises(UntrustedPeer, match="not from this worker's authority"):
            await connector(controller.url, ours).connect()


@pytest.mark.parametrize(
    "uris",
    [
        [WORKER],
        ["spiffe://other.internal/controller/c1"],
        [f"spiffe://{TRUST_DOMAIN}/controller"],
        ["https://test.internal/controller/c1"],
        [CONTROLLER, f"spiffe://{TRUST_DOMAIN}/controller/c2"],
        [],
    ],
)
async def test_only_a_controller_of_the_trust_domain_is_trusted(tmp_path: Path, uris: list[str]) -> None:
    """A worker, another domain, no name, two names: the authority's signature alone does not make a controller."""
    authority = Authority(tmp_path, "ours")
    async with TlsController(authority.context(*uris, server=True)).open() as controller:
        with pytest.raises(UntrustedPeer, match="cannot prove who it is"):
            await connector(controller.url, authority).connect()


async def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    """A closed port may open later, so it is not a matter of trust."""
    authority = Authority(tmp_path, "ours")
    async with TlsController(authority.context(CONTROLLER, server=True)).open() as controller:
        url = controller.url
    with pytest.raises(Unavailable, match="does not answer"):
        await connector(url, authority).connect()


async def test_a_controller_that_refuses_this_worker_is_unavailable(tmp_path: Path) -> None:
    """A worker that the controller does not know gets a fault of the link, not a hang or a traceback."""
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    stranger = theirs.context(WORKER, server=False, trusts=ours)
    async with TlsController(ours.context(CONTROLLER, server=True)).open() as controller:
        with pytest.raises(Unavailable):
            await connector(controller.url, ours, stranger).connect()


async def test_a_spoiled_blob_is_noticed(tmp_path: Path) -> None:
    """Bytes that do not have the name they were asked by are refused."""
    authority = Authority(tmp_path, "ours")
    async with TlsController(authority.context(CONTROLLER, server=True)).open() as controller:
        link = await connector(controller.url, authority).connect()
        digest = Digest(hashlib.sha256(b"abc").hexdigest())
        await link.send_blob(digest, io.BytesIO(b"abc"), 3)
        controller.spoil_blobs = True
        with pytest.raises(Unavailable, match="other bytes"):
            await link.fetch_blob(digest, io.BytesIO())
        await link.close()


async def test_blobs_in_a_row_share_a_connection(tmp_path: Path) -> None:
    """One handshake serves what comes one after the other, a blob that is missing too; one that was ended is replaced."""
    authority = Authority(tmp_path, "ours")
    async with TlsController(authority.context(CONTROLLER, server=True)).open() as controller:
        link = await connector(controller.url, authority).connect()
        controller.keep_alive = True
        digest = Digest("0" * 64)
        for number in range(5):
            content = b"%d" % number
            digest = Digest(hashlib.sha256(content).hexdigest())
            assert not await link.has_blob(digest)
            await link.send_blob(digest, io.BytesIO(content), 1)
            target = io.BytesIO()
            await link.fetch_blob(digest, target)
            assert target.getvalue() == content
        assert controller.blob_connections == 1
        controller.keep_alive = False
        for _ in range(3):
            # The first is answered and then ended by the other side; the next ones find that out for themselves.
            assert await link.has_blob(digest)
        assert controller.blob_connections == 3
        await link.close()

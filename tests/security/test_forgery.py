"""A federated domain's authority mints our identities: refused at every door, even where TLS itself would believe it.

TLS is made to trust both domains here, as a library that pools bundles would; what is left is Crank's own verifier.
"""

import datetime as dt
import ssl

import httpx2
import pytest
import websockets
from websockets.asyncio.client import connect

from crank.adapters.certificate_request import read_request
from crank.adapters.controller_link import WebSocketConnector
from crank.api.app import build_api
from crank.api.server import Listener
from crank.api.workers import build_workers_app
from crank.bootstrap.federation import verifier_of
from crank.controller.federate import trust_of
from crank.domain.trust import TrustBundle
from crank.errors import UntrustedPeer
from tests.support.controller_side import TlsController
from tests.support.desk import TRUST_DOMAIN, open_desk
from tests.support.listeners import serving
from tests.support.publisher import tls_of
from tests.support.svids import Issuer, Wish, authority_wish, root, self_signed

LATELY = (dt.datetime.now(dt.UTC) - dt.timedelta(hours=1), dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
THEIRS = "two.test"
WORKER, CONTROLLER = f"spiffe://{TRUST_DOMAIN}/worker/w1", f"spiffe://{TRUST_DOMAIN}/controller/c1"
OURS = root(TRUST_DOMAIN, begins=LATELY[0], ends=LATELY[1])
FOREIGN = root(THEIRS, begins=LATELY[0], ends=LATELY[1])


def leaf(issuer: Issuer, uri: str) -> Issuer:
    """Issue an identity that is valid now."""
    return issuer.issue(Wish(uris=(uri,), begins=LATELY[0], ends=LATELY[1]))


# What a foreign domain may show, for a name of ours.
FORGED = {
    "by their root": lambda uri: leaf(FOREIGN, uri),
    "by an intermediate of theirs with our name": lambda uri: leaf(
        FOREIGN.issue(authority_wish(TRUST_DOMAIN, begins=LATELY[0], ends=LATELY[1])), uri
    ),
    "their own identity": lambda uri: leaf(FOREIGN, uri.replace(TRUST_DOMAIN, THEIRS)),
}


def pool(context: ssl.SSLContext) -> ssl.SSLContext:
    """Let TLS trust both domains and look at no host name, as whoever pools bundles does."""
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=OURS.der + FOREIGN.der)
    return context


def client(shown: Issuer, folder) -> ssl.SSLContext:
    """Return what connects with this identity."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    tls_of(shown, folder)
    context.load_cert_chain(folder / f"{shown.certificate.serial_number:x}.pem")
    return pool(context)


@pytest.fixture
async def desk(tmp_path):
    """Give a desk that believes OURS for its own domain and is federated with the foreign one."""
    async with open_desk(tmp_path) as opened:
        own = TrustBundle(TRUST_DOMAIN, 1, 60, (OURS.der,))
        trust = trust_of(opened)
        trust.authority.bundle = lambda: own  # type: ignore[method-assign]
        trust.bundles.put(TrustBundle(THEIRS, 1, 60, (FOREIGN.der,)), 2**62)
        yield opened


@pytest.fixture
async def port(desk, tmp_path):
    """Give the port of a workers' listener whose TLS believes too much."""
    tls = pool(tls_of(leaf(OURS, CONTROLLER), tmp_path / "server"))
    app = build_workers_app(desk, identify=verifier_of(desk).peer, read_request=read_request)
    workers = Listener(app, "127.0.0.1", 0, tls, "workers")
    api = Listener(build_api(desk, version="0"), "127.0.0.1", 0, tls_of(leaf(OURS, CONTROLLER), tmp_path / "server"), "api")
    async with serving(api, workers) as (_, workers_port):
        yield workers_port


async def test_our_own_worker_comes_in(desk, port, tmp_path):
    """The same listener lets our own authority's worker in: what refuses the others is who vouches for them."""
    async with connect(f"wss://127.0.0.1:{port}/v1/worker", ssl=client(leaf(OURS, WORKER), tmp_path / "w")):
        pass


@pytest.mark.must("Forgery 1", "Federation 7.3/1")
@pytest.mark.parametrize("how", FORGED)
async def test_a_forged_worker_is_refused_at_the_listener(desk, port, tmp_path, how):
    """Trust Domain and Bundle 6, Federation 7.3: TLS believed it, and the gate answers 403 to link and blobs alike."""
    tls = client(FORGED[how](WORKER), tmp_path / "w")
    with pytest.raises(websockets.InvalidStatus) as caught:
        await connect(f"wss://127.0.0.1:{port}/v1/worker", ssl=tls)
    assert caught.value.response.status_code == 403
    async with httpx2.AsyncClient(verify=tls) as caller:
        blob = await caller.put(f"https://127.0.0.1:{port}/v1/blobs/{'0' * 64}", content=b"x")
    assert (blob.status_code, blob.json()["code"]) == (403, "untrusted_peer")


@pytest.mark.must("Forgery 1", "Federation 7.3/1")
@pytest.mark.parametrize("how", FORGED)
async def test_a_forged_controller_is_refused_by_a_worker(desk, tmp_path, how):
    """The worker's link asks the same verifier, and says nothing to a controller that another domain made up."""
    async with TlsController(pool(tls_of(FORGED[how](CONTROLLER), tmp_path / "c"))).open() as controller:
        link = WebSocketConnector(
            controller.url, client(leaf(OURS, WORKER), tmp_path / "w"), TRUST_DOMAIN, identify=verifier_of(desk).peer
        )
        with pytest.raises(UntrustedPeer, match="cannot prove who it is"):
            await link.connect()


def test_whoever_vouches_for_itself_is_nobody(desk):
    """A stranger's own root with our name in it is no authority of ours."""
    impostor = self_signed(authority_wish(TRUST_DOMAIN, begins=LATELY[0], ends=LATELY[1]))
    with pytest.raises(UntrustedPeer):
        verifier_of(desk).verify(leaf(impostor, WORKER).chain)

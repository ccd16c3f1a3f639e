"""Two nodes of two trust domains, federated with each other in both ways, as their owners would do it."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crank.adapters.clock import SystemClock
from crank.domain.trust import TrustBundle
from crank.errors import UntrustedPeer
from crank.security import MutualTls, Verifier
from crank.security.bundles import read_bundle
from tests.support.node import Node

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("federation")]

ONE, TWO = "one.internal", "two.internal"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    """Give two nodes, each with an authority of its own."""
    folder = tmp_path_factory.mktemp("federation")
    both = [
        Node(folder / name / "home", {"CRANK_TRUST_DOMAIN": domain})
        for name, domain in (("one", ONE), ("two", TWO))
    ]
    with ThreadPoolExecutor() as pool:
        try:
            list(pool.map(Node.start, both))
            yield both[0], both[1]
        finally:
            list(pool.map(Node.stop, both))


def _crank(node: Node, *argv: str) -> str:
    done = node.crank(*argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _own_bundle(node: Node) -> TrustBundle:
    domain = node.environment["CRANK_TRUST_DOMAIN"]
    return read_bundle(domain, node.client().http.get("/trust-bundle").content)


@pytest.mark.must(
    "Federation 5/1", "Federation 5/2", "Federation 5.2.1.3/1", "Federation 5.2.1.3/2", "Federation 5.2.2.3/1", "Federation 5.2.2.3/2"
)
def test_two_nodes_federate_both_ways(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    """One takes the other's bundle by its SPIFFE ID, the other one's by its address; each sees the other's authorities."""
    one, two = nodes
    brought = tmp_path / "two.json"
    brought.write_text(_crank(two, "federation", "show"))
    spiffe_id = json.loads(_crank(two, "node", "info", "--json"))["spiffe_id"]
    url = f"{two.info()['api']}/trust-bundle"
    refused = one.crank("federation", "add", TWO, url, "--endpoint-id", spiffe_id, "--bundle", str(brought), "--json")
    assert json.loads(refused.stdout)["error"]["code"] == "bundle_url_refused"
    _crank(one, "federation", "add", TWO, url, "--endpoint-id", spiffe_id, "--bundle", str(brought), "--private")
    url = f"{one.info()['api']}/trust-bundle"
    _crank(two, "federation", "add", ONE, url, "--ca", one.info()["ca_file"], "--private")
    for node, other, domain in ((one, two, TWO), (two, one, ONE)):
        (listed,) = json.loads(_crank(node, "federation", "list", "--json"))["federation"]
        assert (listed["trust_domain"], listed["believed"], listed["failure"]) == (domain, True, None)
        shown = read_bundle(domain, _crank(node, "federation", "show", domain, "--bundle").encode())
        assert shown == _own_bundle(other)
        _crank(node, "federation", "refresh", domain)


@pytest.mark.must("Trust Domain and Bundle 3/1")
def test_neither_speaks_for_the_other(nodes: tuple[Node, Node]) -> None:
    """What each node learned proves the other's worker, and its own worker only by its own bundle."""
    one, two = nodes
    bundles = {ONE: _own_bundle(one), TWO: _own_bundle(two)}
    swapped = {ONE: TrustBundle(ONE, 1, 60, bundles[TWO].x509_authorities)}
    mine = MutualTls(one.home / "worker" / "main" / "identity")
    chain = _chain(one)
    assert Verifier(bundles.get, now_us=SystemClock().now_us).verify(chain).spiffe_id == mine.spiffe_id
    with pytest.raises(UntrustedPeer):
        Verifier(swapped.get, now_us=SystemClock().now_us).verify(chain)


def _chain(node: Node) -> list[bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    pem = (node.home / "worker" / "main" / "identity" / "cert.pem").read_bytes()
    return [each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(pem)]


def test_a_federation_ends(nodes: tuple[Node, Node]) -> None:
    """Removed, it is listed no more, and cannot be removed again."""
    one, _ = nodes
    _crank(one, "federation", "remove", TWO)
    assert json.loads(_crank(one, "federation", "list", "--json")) == {"federation": []}
    gone = one.crank("federation", "remove", TWO, "--json")
    assert (gone.returncode, json.loads(gone.stdout)["error"]["code"]) == (5, "federation_not_found")

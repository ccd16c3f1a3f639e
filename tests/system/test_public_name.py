"""A node with a certificate of its owner's: others see that one, this machine the node's own, and the doctor tells."""

import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.node import Node, running_node

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("public")]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give an authority that stands for those that the world trusts."""
    return Authority(tmp_path_factory.mktemp("world"), "world")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Node]:
    """Give a running node whose public name is localhost; `SSL_CERT_FILE` makes the test's authority the world's."""
    certificate, key = authority.server_files("localhost", "*.crank.test")
    environment = {"CRANK_TLS_CERT": str(certificate), "CRANK_TLS_KEY": str(key), "SSL_CERT_FILE": str(authority.file)}
    with running_node(tmp_path_factory.mktemp("public") / "home", environment) as node:
        yield node


def port_of(node: Node) -> int:
    """Return the port of the API."""
    return int(node.info()["api"].rpartition(":")[2])


def shown(node: Node, name: str | None) -> bytes:
    """Return the certificate that the node shows to who asks for a name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port_of(node))) as line,
        context.wrap_socket(line, server_hostname=name) as proven,
    ):
        found = proven.getpeercert(binary_form=True)
        assert found is not None
        return found


def test_each_caller_sees_the_certificate_that_it_can_prove(node: Node) -> None:
    """By its public names the node shows the owner's certificate; by address or any other name its own."""
    public = ssl.PEM_cert_to_DER_cert(Path(node.environment["CRANK_TLS_CERT"]).read_text())
    assert shown(node, "localhost") == public
    assert shown(node, "a.crank.test") == public
    own = shown(node, None)
    assert own != public
    assert shown(node, "other.test") == shown(node, "a.b.crank.test") == shown(node, "crank.test") == own
    assert node.client().ready()["ready"]
    assert node.crank("job", "list").returncode == 0


def findings(node: Node, *argv: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Return the doctor's exit code, and its findings by name."""
    done = node.crank("doctor", "--json", *argv)
    found = json.loads(done.stdout)["findings"]
    return done.returncode, {each["name"]: (each["state"], each["cause"]) for each in found}


def test_the_doctor_proves_a_public_address(node: Node) -> None:
    """Name, certificate, document and credential are tried from outside; loopback and another port are only warned of."""
    code, found = findings(node, "--public", f"https://localhost:{port_of(node)}")
    assert code == 0, found
    states = {name: state for name, (state, _) in found.items()}
    assert states == {
        "public name": "warn", "public port": "warn", "public TLS": "ok", "public certificate": "warn", "public answer": "ok",
        "GPT Actions document": "ok", "public credential": "ok",
    }  # fmt: skip
    assert "TLSv1.3" in found["public TLS"][1]


def test_the_doctor_tells_whom_nobody_would_trust(node: Node) -> None:
    """A name that the certificate is not for fails, and the secret is never sent there."""
    code, found = findings(node, "--public", f"https://127.0.0.1:{port_of(node)}")
    assert code == 1
    assert found["public certificate"][0] == "fail"
    assert "public credential" not in found
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        code, found = findings(node, "--public", f"https://localhost:{free.getsockname()[1]}")
    assert (code, found["public connection"][0]) == (1, "fail")


@pytest.mark.parametrize("url", ["http://localhost", "https://localhost/x", "localhost", "https://a@b", "https://h:0", "https://h:99999"])
def test_what_is_no_address_is_usage(node: Node, url: str) -> None:
    """A slip is told as one, before anything is asked."""
    done = node.crank("doctor", "--json", "--public", url)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "invalid_url")


def test_a_key_that_does_not_fit_keeps_the_node_from_starting(tmp_path: Path, authority: Authority) -> None:
    """The cause and the fix are told at the start, not to the first caller."""
    certificate, _ = authority.server_files("localhost")
    _, key = authority.server_files("localhost")
    done = Node(tmp_path / "home").crank("up", "--detach", "--json", "--tls-cert", str(certificate), "--tls-key", str(key))
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (3, "tls_unusable")

"""The public face of mutual TLS: contexts that always verify, and a strict reading of who the peer is."""

import contextlib
import inspect
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from crank import security
from crank.domain.identity import make_spiffe_id, parse_spiffe_id
from crank.errors import ConfigurationError, UntrustedPeer
from tests.support.listeners import authority

GOOD = "spiffe://test.internal/worker/w1"


def leaf(*uris: str, ca: bool = False, usage: bool = True, signs: bool = False) -> bytes:
    """Make a certificate that claims what a test wants."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    if usage:
        flags = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign",
             "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        builder = builder.add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=signs, **flags), critical=True
        )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_a_plain_leaf_is_read():
    """One URI name that is a SPIFFE ID is who the peer is."""
    assert security.peer_identity(leaf(GOOD)) == make_spiffe_id("test.internal", "worker", "w1")


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"noise",
        leaf(),
        leaf(GOOD, GOOD.replace("w1", "w2")),
        leaf(GOOD, "https://test.internal/"),
        leaf("https://test.internal/worker/w1"),
        leaf("spiffe://test.internal"),
        leaf("spiffe://test.internal/worker/../controller/c1"),
        leaf(GOOD, ca=True),
        leaf(GOOD, signs=True),
        leaf(GOOD, usage=False),
    ],
)
def test_what_is_no_identity_is_refused(der):
    """No, several or strange names, an authority's certificate, and noise are all refused."""
    with pytest.raises(UntrustedPeer):
        security.peer_identity(der)


def test_contexts_always_verify(tmp_path):
    """TLS 1.3 alone, certificates required, names checked, no tickets, and no parameter against it."""
    own = authority(tmp_path / "authority").issue_controller("c1")
    files = {"certificate_file": own.certificate_file, "key_file": own.key_file}
    server = security.server_context(**files, ca_file=own.ca_file)
    client = security.client_context(**files, ca_file=own.ca_file)
    for context in (server, client):
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert client.check_hostname
    assert server.num_tickets == 0
    for make in (security.server_context, security.client_context):
        assert set(inspect.signature(make).parameters) == {"certificate_file", "key_file", "ca_file"}


def test_missing_files_are_named(tmp_path):
    """An identity that is not there is a clear mistake, not a traceback of the TLS library."""
    with pytest.raises(ConfigurationError) as caught:
        security.bearer_server_context(certificate_file=tmp_path / "cert.pem", key_file=tmp_path / "key.pem")
    assert str(tmp_path) in caught.value.message


@pytest.fixture
def folders(tmp_path):
    """Give the folders of two workers of one authority, and of a stranger of another with the same names."""
    ours, theirs = authority(tmp_path / "authority"), authority(tmp_path / "stranger")
    return {
        "one": ours.issue_worker("one", tmp_path / "one").folder,
        "two": ours.issue_worker("two", tmp_path / "two").folder,
        "stranger": theirs.issue_worker("two", tmp_path / "impostor").folder,
    }


class Ear(threading.Thread):
    """Accepts one connection and says who came."""

    def __init__(self, mine: security.MutualTls, expect) -> None:
        super().__init__()
        self._mine = mine
        self._expect = expect
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.outcome: object = None
        self.start()

    def run(self) -> None:
        plain, _ = self._listening.accept()
        try:
            with self._mine.accept(plain, expect=self._expect) as link:
                self.outcome = self._mine.peer(link).spiffe_id
                link.sendall(b"hello")
        except (UntrustedPeer, OSError) as fault:
            self.outcome = fault
        finally:
            self._listening.close()


ONE, TWO = "spiffe://test.internal/worker/one", "spiffe://test.internal/worker/two"


def test_two_workers_talk_in_three_lines(folders):
    """Each side proves itself to the other, by name; nobody's host name matters."""
    ear = Ear(security.MutualTls(folders["one"]), TWO)
    mine = security.MutualTls(folders["two"])
    with mine.connect("127.0.0.1", ear.port, expect=ONE) as link:
        assert link.recv(100) == b"hello"
        assert mine.peer(link).spiffe_id == parse_spiffe_id(ONE)
    ear.join(10)
    assert ear.outcome == mine.spiffe_id


@pytest.mark.parametrize(
    ("caller", "expects", "expected"),
    [
        ("two", TWO, lambda _peer: True),
        ("two", lambda peer: peer.kind == "controller", lambda _peer: True),
        ("stranger", ONE, lambda _peer: True),
    ],
    ids=["another-name", "another-kind", "another-authority"],
)
def test_the_wrong_peer_gets_no_connection(folders, caller, expects, expected):
    """A peer of another name, another kind or another authority is refused, and the connection closed."""
    ear = Ear(security.MutualTls(folders["one"]), expected)
    with pytest.raises(UntrustedPeer):
        security.MutualTls(folders[caller]).connect("127.0.0.1", ear.port, expect=expects)
    ear.join(10)
    assert not ear.is_alive()


def test_a_caller_who_is_not_expected_is_turned_away(folders):
    """The side that listens decides as well, after TLS has believed the chain."""
    ear = Ear(security.MutualTls(folders["one"]), "spiffe://test.internal/worker/three")
    mine = security.MutualTls(folders["two"])
    # In TLS 1.3 the client is through before the other side has judged.
    with mine.connect("127.0.0.1", ear.port, expect=ONE) as link, contextlib.suppress(OSError):
        assert link.recv(100) == b""
    ear.join(10)
    assert isinstance(ear.outcome, UntrustedPeer)


def test_what_is_taken_from_the_file_of_authorities_is_no_longer_believed(folders):
    """The folder is read anew for each connection."""
    mine = security.MutualTls(folders["two"])
    ca = folders["two"] / "ca.pem"
    ca.write_bytes((folders["stranger"] / "ca.pem").read_bytes())
    ear = Ear(security.MutualTls(folders["one"]), TWO)
    with pytest.raises(UntrustedPeer):
        mine.connect("127.0.0.1", ear.port, expect=ONE)
    ear.join(10)


def test_a_folder_without_an_identity_is_named(tmp_path, folders):
    """Missing and foreign files are a mistake of the configuration, told with their path."""
    with pytest.raises(ConfigurationError, match=r"cert\.pem"):
        security.MutualTls(tmp_path / "nowhere")
    (folders["one"] / "cert.pem").write_bytes((folders["one"] / "ca.pem").read_bytes())
    with pytest.raises(ConfigurationError, match="no identity"):
        security.MutualTls(folders["one"])
    (folders["two"] / "ca.pem").write_bytes(b"nothing")
    with pytest.raises(ConfigurationError):
        security.MutualTls(folders["two"]).connect("127.0.0.1", 1, expect=ONE)

"""The public face of mutual TLS: contexts that always verify, and a strict reading of who the peer is."""

import contextlib
import inspect
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from crank import security
from crank.domain.identity import make_spiffe_id, parse_spiffe_id
from crank.errors import ConfigurationError, UntrustedPeer
from crank.security import author
from tests.support import svids
from tests.support.listeners import authority
from tests.support.publisher import pem_of, tls_of

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


# --- what was revoked ------------------------------------------------------------------------------


@pytest.fixture
def listed(folders, tmp_path):
    """Give a function that writes what is revoked into both folders: serials, and for how long the list is to be believed."""
    ours = authority(tmp_path / "authority")

    def write(*serials: str, next_update_sec: float = 60.0) -> None:
        lists = ours.sign_revocations([(one, 0) for one in serials], number=1, next_update_sec=next_update_sec)
        for name in ("one", "two"):
            (folders[name] / "crl.pem").write_bytes(in_pem(lists.all))

    return write


def in_pem(lists) -> bytes:
    """Return lists as a file has them."""
    return b"".join(x509.load_der_x509_crl(der).public_bytes(Encoding.PEM) for der in lists)


def serial_in(folder) -> str:
    """Return the serial of the certificate in a folder."""
    return f"{x509.load_pem_x509_certificate((folder / 'cert.pem').read_bytes()).serial_number:x}"


def test_a_revoked_peer_gets_no_connection(folders, listed):
    """Who stands on the list is refused by either side; others are not, and an open connection hears of it when it asks."""
    mine = security.MutualTls(folders["two"])
    listed()
    ear = Ear(security.MutualTls(folders["one"]), TWO)
    with mine.connect("127.0.0.1", ear.port, expect=ONE) as link:
        assert mine.peer(link).spiffe_id == parse_spiffe_id(ONE)
        # The other side has looked at its own list by then.
        assert link.recv(100) == b"hello"
        listed(serial_in(folders["one"]))
        with pytest.raises(UntrustedPeer) as caught:
            mine.peer(link)
    assert caught.value.error_code == "identity_revoked"
    ear.join(10)
    ear = Ear(security.MutualTls(folders["one"]), TWO)
    with pytest.raises(UntrustedPeer) as caught:
        mine.connect("127.0.0.1", ear.port, expect=ONE)
    assert caught.value.error_code == "identity_revoked"
    ear.join(10)
    listed(serial_in(folders["two"]))
    ear = Ear(security.MutualTls(folders["one"]), TWO)
    with contextlib.suppress(OSError):
        mine.connect("127.0.0.1", ear.port, expect=ONE).close()
    ear.join(10)
    assert isinstance(ear.outcome, UntrustedPeer)
    assert ear.outcome.error_code == "identity_revoked"


def test_a_revoked_authority_below_the_root_is_heeded(folders, listed):
    """The list of the issuer speaks of issuing certificates as well."""
    chain = x509.load_pem_x509_certificates((folders["one"] / "cert.pem").read_bytes())
    listed(f"{chain[1].serial_number:x}")
    assert refusal_of(folders) == "identity_revoked"


def refusal_of(folders) -> str:
    """Return the code with which two refuses one."""
    ear = Ear(security.MutualTls(folders["one"]), TWO)
    with pytest.raises((UntrustedPeer, ConfigurationError)) as caught:
        security.MutualTls(folders["two"]).connect("127.0.0.1", ear.port, expect=ONE)
    ear.join(10)
    return caught.value.error_code


@pytest.mark.parametrize("what", ["stale", "of a stranger", "of the root alone", "altered"])
def test_without_a_list_that_counts_nobody_is_believed(folders, listed, tmp_path, monkeypatch, what):
    """A list past its time, by another authority, or that was changed says nothing of anybody: the peer is refused."""
    listed(next_update_sec=3600)
    path = folders["two"] / "crl.pem"
    if what == "stale":
        listed(next_update_sec=1)
        later_us = time.time_ns() // 1000 + 2_000_000
        # The certificate lives for an hour.
        monkeypatch.setattr(author, "_now_us", lambda: later_us)
    elif what == "of a stranger":
        path.write_bytes(in_pem(authority(tmp_path / "stranger").sign_revocations([], number=1, next_update_sec=60.0).all))
    elif what == "of the root alone":
        path.write_bytes(in_pem(authority(tmp_path / "authority").sign_revocations([], number=1, next_update_sec=60.0).by_roots))
    else:
        der = bytearray(x509.load_pem_x509_crl(path.read_bytes()).public_bytes(Encoding.DER))
        der[-1] ^= 1
        path.write_bytes(in_pem([bytes(der)]))
    assert refusal_of(folders) == "revocations_unknown"


@pytest.mark.parametrize("content", [b"", b"noise", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"])
def test_a_file_of_lists_that_holds_none_is_named(folders, content):
    """What is damaged is a mistake of the configuration, and lets nobody in."""
    (folders["two"] / "crl.pem").write_bytes(content)
    assert refusal_of(folders) == "identity_unusable"


# --- other trust domains ---------------------------------------------------------------------------

THEIRS = "other.example"


@pytest.fixture
def foreign(folders, tmp_path):
    """Give a folder of another domain's workload, and one of its authority that claims a name of ours; both sides have the bundles."""
    now = datetime.now(UTC)
    lives: dict[str, Any] = {"begins": now - timedelta(hours=1), "ends": now + timedelta(hours=1)}
    top = svids.root(THEIRS, **lives)
    made = {}
    for name, uri in (("friend", f"spiffe://{THEIRS}/agent/friend"), ("forger", ONE)):
        folder = tmp_path / name
        tls_of(top.issue(svids.Wish(uris=(uri,), **lives)), folder)
        (file,) = folder.iterdir()
        key, mark, certificate = file.read_text().partition("-----BEGIN CERTIFICATE-----")
        (folder / "key.pem").write_text(key)
        (folder / "cert.pem").write_text(mark + certificate)
        (folder / "ca.pem").write_text(pem_of(top))
        (folder / "bundle.test.internal.pem").write_bytes((folders["one"] / "ca.pem").read_bytes())
        made[name] = folder
    (folders["two"] / f"bundle.{THEIRS}.pem").write_text(pem_of(top))
    return made


def test_a_federated_peer_is_believed_by_its_own_bundle(folders, foreign, listed):
    """Where both name the other's domain they talk; lists of ours say nothing of theirs."""
    listed()
    ear = Ear(security.MutualTls(foreign["friend"], domains=["test.internal"]), TWO)
    mine = security.MutualTls(folders["two"], domains=[THEIRS])
    with mine.connect("127.0.0.1", ear.port, expect=f"spiffe://{THEIRS}/agent/friend") as link:
        assert link.recv(100) == b"hello"
    ear.join(10)
    assert ear.outcome == mine.spiffe_id


@pytest.mark.parametrize(
    ("who", "domains"), [("friend", []), ("friend", ["third.example"]), ("forger", [THEIRS])],
    ids=["not asked for", "another asked for", "a name of ours"],
)  # fmt: skip
def test_a_foreign_authority_speaks_for_nobody_else(folders, foreign, who, domains):
    """Without the author's word its bundle counts nothing, and a certificate that it signed with a name of ours never does."""
    side = security.MutualTls(foreign["friend"], domains=["test.internal"])
    side._folder = foreign[who]
    ear = Ear(side, TWO)
    mine = security.MutualTls(folders["two"], domains=domains)
    with pytest.raises(UntrustedPeer):
        mine.connect("127.0.0.1", ear.port, expect=lambda _peer: True)
    ear.join(10)


def test_a_federation_that_ended_is_heeded_from_the_next_connection_on(folders, foreign):
    """The operator ends it, the file goes, and the author's word alone lets nobody in."""
    (folders["two"] / f"bundle.{THEIRS}.pem").unlink()
    ear = Ear(security.MutualTls(foreign["friend"], domains=["test.internal"]), TWO)
    mine = security.MutualTls(folders["two"], domains=[THEIRS])
    with pytest.raises(UntrustedPeer):
        mine.connect("127.0.0.1", ear.port, expect=lambda _peer: True)
    ear.join(10)

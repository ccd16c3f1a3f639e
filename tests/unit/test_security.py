"""The public face of mutual TLS: contexts that always verify, and a strict reading of who the peer is."""

import inspect
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from crank import security
from crank.domain.identity import make_spiffe_id
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
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
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

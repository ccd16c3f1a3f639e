"""What our own authority gives out, read as a stranger reads it, and held against the X509-SVID standard.

The linter inside of the authority is tested beside it; here nothing asks it.
"""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from crank.security import peer_identity
from crank.testing.contracts_authority import WORKER, WORKLOAD, public_key
from tests.support.listeners import authority

OWN = f"spiffe://{WORKER.trust_domain}"


@pytest.fixture
def issued(tmp_path):
    """Give a leaf, and everything above it, the root last."""
    made = authority(tmp_path / "authority", trust_domain=WORKER.trust_domain)
    key = public_key()
    svid = made.issue(WORKER, WORKLOAD, key, hosts=["localhost", "192.0.2.7"])
    chain = [x509.load_der_x509_certificate(der) for der in (*svid.chain, *made.bundle().x509_authorities)]
    for lower, upper in zip(chain, chain[1:] + chain[-1:], strict=True):
        lower.verify_directly_issued_by(upper)
    return key, chain[0], chain[1:]


def uris(certificate: x509.Certificate) -> list[str]:
    """Return the URI names of a certificate."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


@pytest.mark.must(
    "SPIFFE-ID 3.1/1", "SPIFFE-ID 3.1/2", "X509-SVID 2/1", "X509-SVID 3.2/1", "X509-SVID 4.1/1", "X509-SVID 4.3/1",
    "X509-SVID 4.3/2", "X509-SVID 4.3/3",
)  # fmt: skip
def test_what_signs_says_so_and_bears_the_name_of_the_domain(issued):
    """X509-SVID 3.2, 4.1, 4.3: from the issuing key to the root, which signs itself, each is an authority of this domain."""
    _, _, above = issued
    assert len(above) == 3
    for each in above:
        assert uris(each) == [OWN]
        assert each.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        usage = each.extensions.get_extension_for_class(x509.KeyUsage)
        assert (usage.critical, usage.value.key_cert_sign) == (True, True)


@pytest.mark.must(
    "SPIFFE-ID 3.2/1", "X509-SVID 2/1", "X509-SVID 3.1/1", "X509-SVID 4.1/2", "X509-SVID 4.3/1", "X509-SVID 4.3/2", "X509-SVID 4.3/4",
    "X509-SVID 4.3/5", "X509-SVID 4.4/1",
)  # fmt: skip
def test_a_leaf_has_what_the_standard_asks(issued):
    """X509-SVID 2, 3.1, 4.1 to 4.4: one URI beside other names, a path, no authority, signatures alone, both ends of TLS."""
    key, leaf, _ = issued
    assert uris(leaf) == [f"{OWN}/worker/w1"]
    assert leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == key
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.digital_signature, usage.value.key_cert_sign, usage.value.crl_sign) == (True, False, False)
    purposes = set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= purposes
    assert peer_identity(leaf.public_bytes(Encoding.DER)) == WORKER

"""The linter of certificates: each rule of the X.509-SVID standard, broken one at a time."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from crank.adapters.authority.linter import lint_chain, lint_leaf, lint_signing
from crank.adapters.authority.shapes import Shapes, Signer, names_of
from crank.domain.workload_codec import WORKLOAD_OID, encode_workload
from crank.errors import CrankError
from crank.testing.contracts_authority import DOMAIN, WORKER, WORKLOAD
from crank.testing.fakes import FakeClock, FakeIdSource
from tests.support.musts import breaking

SHAPES = Shapes(DOMAIN, FakeClock(), FakeIdSource())
KEY = ec.generate_private_key(ec.SECP256R1())
ROOT_KEY = ec.generate_private_key(ec.SECP256R1())
ROOT = Signer(ROOT_KEY, SHAPES.root(ROOT_KEY))
OTHER = Signer(KEY, SHAPES.root(KEY))
URI = x509.UniformResourceIdentifier(str(WORKER))
OID = x509.ObjectIdentifier(WORKLOAD_OID)
BOTH = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]


def usage(**changed):
    """Return the key usage of a leaf with some bits changed."""
    words = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    more = ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{**dict.fromkeys((*words, *more), False), "digital_signature": True, **changed})


def parts(**changed):
    """Return what a right leaf is made of, by the name of each part, with some changed; None leaves one out."""
    issuer = ROOT.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    right = {
        "subject": x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Crank")]),
        "issuer": ROOT.certificate.subject,
        "serial": 77,
        "ends": dt.timedelta(hours=1),
        "key": KEY,
        "constraints": (x509.BasicConstraints(ca=False, path_length=None), True),
        "usage": (usage(), True),
        "purposes": (x509.ExtendedKeyUsage(BOTH), False),
        "issued_by": (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), False),
        "names": (x509.SubjectAlternativeName([URI]), False),
        "workload": (x509.UnrecognizedExtension(OID, encode_workload(WORKLOAD)), False),
    }
    return {**right, **changed}


def leaf(**changed):
    """Sign a leaf."""
    made = parts(**changed)
    builder = (
        x509.CertificateBuilder()
        .subject_name(made["subject"])
        .issuer_name(made["issuer"])
        .serial_number(made["serial"])
        .not_valid_before(SHAPES.now())
        .not_valid_after(SHAPES.now() + made["ends"])
        .public_key(made["key"].public_key())
    )
    for name in ("constraints", "usage", "purposes", "issued_by", "names", "workload"):
        if made[name] is not None:
            builder = builder.add_extension(made[name][0], critical=made[name][1])
    return builder.sign(ROOT.key, hashes.SHA256())


def uris(*texts):
    """Return names of these URIs."""
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(text) for text in texts]), False


def test_a_right_leaf_passes():
    """What the vectors below are made from breaks nothing, with names of hosts beside the URI as well."""
    lint_leaf(leaf(), ROOT.certificate, DOMAIN)
    hosts = names_of(WORKER, ["localhost", "127.0.0.1"])
    lint_leaf(leaf(names=(hosts, False)), ROOT.certificate, DOMAIN)
    lint_leaf(leaf(subject=x509.Name([]), names=(hosts, True)), ROOT.certificate, DOMAIN)


@pytest.mark.parametrize(
    ("broken", "changed", "rule"),
    breaking([
        ("X509-SVID 2/1", {"names": uris(str(WORKER), f"spiffe://{DOMAIN}/worker/w2")}, "exactly one URI"),
        ("X509-SVID 2/1", {"names": (x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)}, "exactly one URI"),
        ("X509-SVID 2/1", {"names": None}, "exactly one URI"),
        ("ours", {"names": uris("spiffe://other.test/worker/w1")}, "of this trust domain"),
        ("X509-SVID 3.1/1", {"names": uris(f"spiffe://{DOMAIN}")}, "with a path"),
        ("SPIFFE-ID 2.2/1", {"names": uris(f"spiffe://{DOMAIN}/worker/%77")}, "SPIFFE ID"),
        ("SPIFFE-ID 2.2/2", {"names": uris(f"spiffe://{DOMAIN}/worker/../w1")}, "SPIFFE ID"),
        ("SPIFFE-ID 2/1", {"names": uris(f"Spiffe://{DOMAIN}/worker/w1")}, "SPIFFE ID"),
        ("SPIFFE-ID 2/1", {"names": uris(f"https://{DOMAIN}/worker/w1")}, "SPIFFE ID"),
        ("X509-SVID 3.1/2", {"subject": x509.Name([])}, "alternative name is critical"),
        ("X509-SVID 4.1/2", {"constraints": (x509.BasicConstraints(ca=True, path_length=0), True)}, "no certificates below"),
        ("X509-SVID 4.1/2", {"constraints": None}, "no certificates below"),
        ("X509-SVID 4.3/1", {"usage": None}, "key usage is critical"),
        ("X509-SVID 4.3/2", {"usage": (usage(), False)}, "key usage is critical"),
        ("X509-SVID 4.3/4", {"usage": (usage(digital_signature=False), True)}, "the key signs"),
        ("X509-SVID 4.3/5", {"usage": (usage(key_cert_sign=True), True)}, "no certificates or lists"),
        ("X509-SVID 4.3/5", {"usage": (usage(crl_sign=True), True)}, "no certificates or lists"),
        ("ours", {"purposes": None}, "for servers and for clients"),
        ("X509-SVID 4.4/1", {"purposes": (x509.ExtendedKeyUsage(BOTH[:1]), False)}, "for servers and for clients"),
        ("X509-SVID 4.4/1", {"purposes": (x509.ExtendedKeyUsage(BOTH[1:]), False)}, "for servers and for clients"),
        ("ours", {"workload": None}, "workload-type"),
        ("ours", {"workload": (x509.UnrecognizedExtension(OID, encode_workload(WORKLOAD)), True)}, "workload-type"),
        ("ours", {"workload": (x509.UnrecognizedExtension(OID, b"\x30\x00"), False)}, "workload-type"),
        ("ours", {"issuer": OTHER.certificate.subject}, "issuer's name"),
        ("ours", {"issued_by": (x509.AuthorityKeyIdentifier.from_issuer_public_key(KEY.public_key()), False)}, "key identifier"),
        ("ours", {"issued_by": None}, "key identifier"),
        ("ours", {"ends": dt.timedelta(days=4000)}, "no later than its issuer"),
        ("ours", {"key": ec.generate_private_key(ec.SECP384R1())}, "P-256"),
    ]),
)  # fmt: skip
def test_a_bad_leaf_does_not_get_out(broken, changed, rule):
    """One rule is broken, and it is named."""
    with pytest.raises(CrankError) as caught:
        lint_leaf(leaf(**changed), ROOT.certificate, DOMAIN)
    assert caught.value.error_code == "certificate_not_fit", broken
    assert rule in caught.value.message


SIGNS = {"digital_signature": False, "key_cert_sign": True}
AUTHORITY = {
    "names": uris(f"spiffe://{DOMAIN}"),
    "constraints": (x509.BasicConstraints(ca=True, path_length=0), True),
    "usage": (usage(**SIGNS), True),
    "purposes": None,
    "workload": None,
}


@pytest.mark.parametrize(
    ("broken", "changed", "rule"),
    breaking([
        ("X509-SVID 3.2/1", {"names": uris(f"spiffe://{DOMAIN}/issuing")}, "without a path"),
        ("X509-SVID 3.2/1", {"names": uris(f"spiffe://{DOMAIN}/")}, "without a path"),
        ("SPIFFE-ID 3.1/2", {"names": None}, "its own name"),
        ("X509-SVID 2/1", {"names": uris(f"spiffe://{DOMAIN}", "spiffe://other.test")}, "its own name"),
        ("X509-SVID 4.1/1", {"constraints": None}, "certificates below it"),
        ("X509-SVID 4.1/1", {"constraints": (x509.BasicConstraints(ca=False, path_length=None), True)}, "certificates below it"),
        ("ours", {"constraints": (x509.BasicConstraints(ca=True, path_length=0), False)}, "basic constraints are critical"),
        ("X509-SVID 4.3/1", {"usage": None}, "key usage is critical"),
        ("X509-SVID 4.3/2", {"usage": (usage(**SIGNS), False)}, "key usage is critical"),
        ("X509-SVID 4.3/3", {"usage": (usage(digital_signature=False, crl_sign=True), True)}, "it signs certificates"),
        ("X509-SVID 3.2/2", {"usage": (usage(key_cert_sign=True), True)}, "never used to authenticate"),
    ]),
)  # fmt: skip
def test_a_bad_authority_does_not_get_out(broken, changed, rule):
    """Of what signs, too: one rule is broken, and it is named; with none broken it passes."""
    lint_signing(leaf(**AUTHORITY), ROOT.certificate, DOMAIN)
    with pytest.raises(CrankError) as caught:
        lint_signing(leaf(**{**AUTHORITY, **changed}), ROOT.certificate, DOMAIN)
    assert caught.value.error_code == "certificate_not_fit", broken
    assert rule in caught.value.message


def test_a_leaf_is_no_authority():
    """A leaf does not pass for a certificate that signs, nor an authority of another domain."""
    with pytest.raises(CrankError, match="certificates below it"):
        lint_signing(leaf(), ROOT.certificate, DOMAIN)
    with pytest.raises(CrankError, match="trust domain"):
        lint_signing(ROOT.certificate, ROOT.certificate, "other.test")
    lint_signing(ROOT.certificate, ROOT.certificate, DOMAIN)


def test_a_chain_holds_together():
    """A certificate that the next one did not sign breaks the chain, also under the right name."""
    lint_chain((leaf(), ROOT.certificate))
    with pytest.raises(CrankError, match="signed by the next"):
        lint_chain((leaf(), OTHER.certificate))

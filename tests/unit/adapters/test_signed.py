"""What nodes and workers sign: it reads back as it was, and nothing else is read at all."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from crank.adapters.signed import (
    EVIDENCE_CHARS_MAX,
    MANIFEST_CHARS_MAX,
    FileManifestSigner,
    JwsAppraiser,
    jkt,
    jkt_of_certificate,
    own_certificate,
    sign_evidence,
    sign_manifest,
    signing_request,
    spki,
    thumbprint_of,
)
from crank.domain.enrolment import Manifest
from crank.domain.ids import Digest
from crank.errors import ConfigurationError, InvalidRequest, NotAllowed, TooLarge
from tests.support.signing import OwnKey

NOW_US = 1_790_000_000_000_000
ROOT = Digest("a" * 64)
MANIFEST = Manifest("m", "w", "i", "n", 5, ({"name": "a.b", "ü": [1, None]},))


def key() -> ec.EllipticCurvePrivateKey:
    """Make a key."""
    return ec.generate_private_key(ec.SECP256R1())


def evidence(node: ec.EllipticCurvePrivateKey, worker: ec.EllipticCurvePrivateKey, **changed: Any) -> str:
    """Make evidence of two keys."""
    options: dict[str, Any] = {"request": signing_request(worker), "audience": (ROOT,), "machine": {"host": "h"}}
    return sign_evidence(node, own_certificate(node, NOW_US), **{**options, **changed})


def b64(document: object) -> str:
    """Write a part."""
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


def test_evidence_reads_back() -> None:
    """Both keys, the certificate's SHA-256, the audience and the machine's facts are what was signed."""
    node, worker = key(), key()
    certificate = own_certificate(node, NOW_US)
    signed = sign_evidence(node, certificate, request=signing_request(worker), audience=(ROOT,), machine={"host": "h"})
    read = JwsAppraiser().read_evidence(signed)
    assert (read.node_key, read.worker_key) == (spki(node.public_key()), spki(worker.public_key()))
    assert (read.audience, read.machine) == ((ROOT,), {"host": "h"})
    assert read.thumbprint == thumbprint_of(certificate)


def test_a_manifest_reads_back_with_its_signer() -> None:
    """What the worker says, and the thumbprint of the key that said it."""
    own = OwnKey()
    assert JwsAppraiser().read_manifest(own.sign_manifest(MANIFEST)) == (MANIFEST, own.jkt)
    assert jkt_of_certificate(own.certificate) == own.jkt
    assert OwnKey().jkt != own.jkt


def test_thumbprints_are_those_of_the_standard() -> None:
    """RFC 7638, section 3, over the members crv, kty, x and y of the point that RFC 7515, appendix A.3, uses."""
    x, y = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
    numbers = [int.from_bytes(base64.urlsafe_b64decode(text + "=="), "big") for text in (x, y)]
    public = ec.EllipticCurvePublicNumbers(numbers[0], numbers[1], ec.SECP256R1()).public_key()
    text = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'
    digest = hashes.Hash(hashes.SHA256())
    digest.update(text.encode())
    assert jkt(public) == base64.urlsafe_b64encode(digest.finalize()).rstrip(b"=").decode()


def test_the_worker_signs_with_what_lies_in_its_folder(tmp_path: Path) -> None:
    """The identity is read anew each time; one that cannot be read is a fault, never an unsigned manifest."""
    signer = FileManifestSigner(tmp_path)
    with pytest.raises(ConfigurationError):
        signer.sign_manifest(MANIFEST)
    for _ in range(2):
        own = OwnKey()
        form = serialization.PrivateFormat.PKCS8
        private = own.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        (tmp_path / "key.pem").write_bytes(private)
        certificate = x509.load_der_x509_certificate(own.certificate)
        (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        assert JwsAppraiser().read_manifest(signer.sign_manifest(MANIFEST)) == (MANIFEST, own.jkt)


def test_one_kind_is_never_taken_for_another() -> None:
    """Evidence is no manifest and a manifest no evidence, whoever signed them."""
    own = OwnKey()
    with pytest.raises(NotAllowed):
        JwsAppraiser().read_manifest(evidence(key(), key()))
    with pytest.raises(InvalidRequest):
        JwsAppraiser().read_evidence(own.sign_manifest(MANIFEST))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"}, {"alg": "HS256"}, {"alg": "ES384"}, {"typ": "JWT"}, {"typ": None}, {"kid": "x"}, {"jwk": {}},
        {"crit": []}, {"x5c": []}, {"x5c": "x"}, {"x5c": [1]}, {"x5c": ["!"]}, {"x5c": ["AAAA"]}, {"x5c": ["AAAA"] * 5},
    ],
)  # fmt: skip
def test_another_header_is_refused(header: dict[str, Any]) -> None:
    """No other algorithm, type, key or member, though the signature be good for that very header."""
    own = OwnKey()
    head, body, mark = own.sign_manifest(MANIFEST).split(".")
    given = json.loads(base64.urlsafe_b64decode(head + "=="))
    with pytest.raises(NotAllowed) as caught:
        JwsAppraiser().read_manifest(f"{b64({**given, **header})}.{body}.{mark}")
    assert caught.value.error_code == "manifest_not_believed"


def test_a_signature_holds_for_its_own_text_and_key() -> None:
    """Another payload, another certificate, a flipped bit, an empty or a long signature are refused."""
    own, other = OwnKey(), OwnKey()
    good = own.sign_manifest(MANIFEST)
    head, body, mark = good.split(".")
    stolen = sign_manifest(own.key, (other.certificate,), MANIFEST)
    more = other.sign_manifest(replace(MANIFEST, capabilities=())).split(".")[1]
    flipped = ("A" if mark[0] != "A" else "B") + mark[1:]
    zeros = "A" * 86
    bad = [stolen, f"{head}.{more}.{mark}", f"{head}.{body}.{flipped}", f"{head}.{body}.", f"{head}.{body}.{mark}AA"]
    bad += [f"{head}.{body}.{zeros}", f"{good}.", f" {good}", f"{good}\n", good.replace(".", "=."), "", "..", "é.é.é"]
    for text in bad:
        with pytest.raises(NotAllowed):
            JwsAppraiser().read_manifest(text)


def test_both_keys_must_be_held_and_be_two() -> None:
    """A request of somebody else's key without that key, one key for both, and keys of another kind are refused."""
    node, worker = key(), key()
    request = bytearray(signing_request(worker))
    request[-1] ^= 1
    large = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    foreign = builder.sign(large, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    curve = builder.sign(ec.generate_private_key(ec.SECP384R1()), hashes.SHA256())
    other = curve.public_bytes(serialization.Encoding.DER)
    for bad in (bytes(request), foreign, other, b"", b"x" * 500):
        with pytest.raises(InvalidRequest) as caught:
            JwsAppraiser().read_evidence(evidence(node, worker, request=bad))
        assert caught.value.error_code == "invalid_evidence"
    with pytest.raises(InvalidRequest):
        JwsAppraiser().read_evidence(evidence(node, node))


@pytest.mark.parametrize("audience", [(), ("x",), ("A" * 64,), (1,), ("a" * 64,) * 5])
def test_evidence_names_its_verifier(audience: tuple[Any, ...]) -> None:
    """By one to four SHA-256, nothing else."""
    with pytest.raises(InvalidRequest):
        JwsAppraiser().read_evidence(evidence(key(), key(), audience=audience))


def test_what_is_too_long_is_not_read() -> None:
    """Before anything of it is parsed."""
    with pytest.raises(InvalidRequest):
        JwsAppraiser().read_evidence("a" * (EVIDENCE_CHARS_MAX + 1))
    with pytest.raises(TooLarge):
        JwsAppraiser().read_manifest("a" * (MANIFEST_CHARS_MAX + 1))


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: ".".join([b64(raw.hex())] * 3)))
def test_noise_is_refused_by_one_fault_each(noise: str) -> None:
    """Whatever a stranger sends, only these two faults come of it."""
    with pytest.raises(InvalidRequest):
        JwsAppraiser().read_evidence(noise)
    with pytest.raises(NotAllowed):
        JwsAppraiser().read_manifest(noise)


@pytest.mark.parametrize(
    "change",
    [{"iat": True}, {"iat": 1.5}, {"iat": "5"}, {"capabilities": {}}, {"capabilities": [1]}, {"jti": 1}, {"more": 1}],
)
def test_a_manifest_has_its_members_and_no_other(change: dict[str, Any]) -> None:
    """Signed by the right key, and still refused."""
    own = OwnKey()
    head, body, _ = own.sign_manifest(MANIFEST).split(".")
    changed = b64({**json.loads(base64.urlsafe_b64decode(body + "==")), **change})
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    r, s = decode_dss_signature(own.key.sign(f"{head}.{changed}".encode(), ec.ECDSA(hashes.SHA256())))
    mark = base64.urlsafe_b64encode(r.to_bytes(32, "big") + s.to_bytes(32, "big")).rstrip(b"=").decode()
    with pytest.raises(NotAllowed):
        JwsAppraiser().read_manifest(f"{head}.{changed}.{mark}")

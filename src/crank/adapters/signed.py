"""What attesters sign, as compact JWS (RFC 7515) with ES256 and the signer's certificates in the header.

Three kinds, each with a `typ` of its own, so that one is never taken for another. Reading is strict: exactly the header
that this file writes, one algorithm, P-256 alone. Which signer is believed is decided by who reads the answer.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.x509.oid import NameOID

from crank.domain.enrolment import Evidence, Manifest
from crank.domain.ids import Digest, parse_digest
from crank.domain.json import JsonObject, canonical, loads_strict
from crank.domain.quantity import MIB
from crank.errors import ConfigurationError, CrankError, InvalidRequest, NotAllowed, TooLarge

EVIDENCE_TYP = "crank-evidence+jws"
MANIFEST_TYP = "crank-manifest+jws"
EVIDENCE_CHARS_MAX = 32 * 1024
# It travels in one message of the wire, beside little else.
MANIFEST_CHARS_MAX = 3 * MIB
_CERTIFICATES_MAX = 4
_HEADER_CHARS_MAX = 16 * 1024
_NUMBER_BYTES = 32
_SIGNED = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}")
# RFC 5280 section 4.1.2.5: a certificate without a planned end. Its holder's operator takes it back by thumbprint.
_NO_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


class _Unbelievable(Exception):
    """Why a text is not what it should be; for the log."""


# --- keys and certificates ------------------------------------------------------------------------


def spki(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a public key as DER SubjectPublicKeyInfo."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def jkt(key: ec.EllipticCurvePublicKey) -> str:
    """Return the RFC 7638 SHA-256 thumbprint of a P-256 key."""
    numbers = key.public_numbers()
    x, y = (_b64(number.to_bytes(_NUMBER_BYTES, "big")) for number in (numbers.x, numbers.y))
    return _b64(hashlib.sha256(canonical({"crv": "P-256", "kty": "EC", "x": x, "y": y})).digest())


def jkt_of_certificate(certificate: bytes) -> str:
    """Return the thumbprint of the key of a DER certificate. Raises NotAllowed."""
    try:
        return jkt(_p256(x509.load_der_x509_certificate(certificate)))
    except (_Unbelievable, ValueError, UnsupportedAlgorithm) as fault:
        raise NotAllowed("The certificate holds no P-256 key.", code="manifest_not_believed", detail=str(fault)) from fault


def own_certificate(key: ec.EllipticCurvePrivateKey, now_us: int) -> bytes:
    """Return a certificate that a node makes for itself (DER), by whose SHA-256 it can be known."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Crank node")])
    begin = datetime.fromtimestamp(now_us // 1_000_000, UTC) - timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(_NO_END)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.DER)


def signing_request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a CSR (PKCS #10, DER) that proves possession of a key. It names nobody: names are the authority's to give."""
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.DER)


def thumbprint_of(certificate: bytes) -> Digest:
    """Return the SHA-256 of a DER certificate."""
    return Digest(hashlib.sha256(certificate).hexdigest())


def _p256(holder: x509.Certificate | x509.CertificateSigningRequest) -> ec.EllipticCurvePublicKey:
    key = holder.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _Unbelievable("a key is not on the curve P-256")
    return key


# --- writing --------------------------------------------------------------------------------------


def sign_evidence(
    key: ec.EllipticCurvePrivateKey, certificate: bytes, *, request: bytes, audience: tuple[Digest, ...], machine: JsonObject
) -> str:
    """Return a node's evidence, signed with its own key.

    certificate  the node's own; request  the CSR of its worker's key
    """
    payload = {"aud": list(audience), "csr": base64.b64encode(request).decode(), "machine": machine}
    return _sign(key, EVIDENCE_TYP, (certificate,), payload)


class FileManifestSigner:
    """Implements `ports.ManifestSigner` with the identity in a folder, read anew each time: it is renewed in place."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def sign_manifest(self, manifest: Manifest) -> str:
        """Return the manifest as a compact JWS. Raises ConfigurationError when the identity cannot be read."""
        try:
            key = serialization.load_pem_private_key((self._folder / "key.pem").read_bytes(), password=None)
            chain = x509.load_pem_x509_certificates((self._folder / "cert.pem").read_bytes())
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as fault:
            raise ConfigurationError(f"The identity in {self._folder} cannot be read.", code="identity_unusable") from fault
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigurationError(f"The key in {self._folder} is not one on P-256.", code="identity_unusable")
        ders = tuple(one.public_bytes(serialization.Encoding.DER) for one in chain[:_CERTIFICATES_MAX])
        return sign_manifest(key, ders, manifest)


def sign_manifest(key: ec.EllipticCurvePrivateKey, chain: tuple[bytes, ...], manifest: Manifest) -> str:
    """Return a worker's manifest, signed with the key of the first certificate of the chain."""
    fields = asdict(manifest)
    payload = {
        "jti": fields["manifest_id"],
        "worker_id": fields["worker_id"],
        "instance_id": fields["instance_id"],
        "node_id": fields["node_id"],
        "iat": fields["signed_sec"],
        "capabilities": list(fields["capabilities"]),
    }
    return _sign(key, MANIFEST_TYP, chain, payload)


def _sign(key: ec.EllipticCurvePrivateKey, typ: str, chain: tuple[bytes, ...], payload: JsonObject) -> str:
    header = {"alg": "ES256", "typ": typ, "x5c": [base64.b64encode(one).decode() for one in chain]}
    signed = f"{_b64(canonical(header))}.{_b64(canonical(payload))}"
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{_b64(r.to_bytes(_NUMBER_BYTES, 'big') + s.to_bytes(_NUMBER_BYTES, 'big'))}"


# --- reading --------------------------------------------------------------------------------------


class JwsAppraiser:
    """Implements `ports.Appraiser`."""

    def read_evidence(self, signed: str) -> Evidence:
        """Read what a node signed. Raises InvalidRequest (`invalid_evidence`)."""
        try:
            if len(signed) > EVIDENCE_CHARS_MAX:
                raise _Unbelievable("it is too long")
            certificate, payload = _read(signed, EVIDENCE_TYP)
            return _evidence(certificate, payload)
        except (_Unbelievable, CrankError, ValueError, UnsupportedAlgorithm) as fault:
            raise InvalidRequest(
                "The evidence is damaged, or was not signed by the keys that it names.",
                code="invalid_evidence",
                field="evidence",
                fix="Let 'crank node join' of the same version make it.",
                detail=str(fault),
            ) from fault

    def read_manifest(self, signed: str) -> tuple[Manifest, str]:
        """Read what a worker signed, and the thumbprint of the key. Raises NotAllowed (`manifest_not_believed`), TooLarge."""
        if len(signed) > MANIFEST_CHARS_MAX:
            raise TooLarge(f"A manifest has at most {MANIFEST_CHARS_MAX} characters.", field="manifest")
        try:
            certificate, payload = _read(signed, MANIFEST_TYP)
            return _manifest(payload), jkt(_p256(certificate))
        except (_Unbelievable, CrankError, ValueError, UnsupportedAlgorithm) as fault:
            raise NotAllowed(
                "The worker's manifest is damaged, or was not signed by the key that it names.",
                code="manifest_not_believed",
                fix="Let the worker start anew; if it stays so, join its machine again.",
                detail=str(fault),
            ) from fault


def _read(signed: str, typ: str) -> tuple[x509.Certificate, JsonObject]:
    """Return the signer's certificate and what it signed, once the signature holds."""
    if not signed.isascii() or not _SIGNED.fullmatch(signed):
        raise _Unbelievable("it is no compact JWS with a signature of ES256")
    head, body, mark = signed.split(".")
    if len(head) > _HEADER_CHARS_MAX:
        raise _Unbelievable("its header is too long")
    header = loads_strict(_unb64(head))
    if not isinstance(header, dict) or set(header) != {"alg", "typ", "x5c"}:
        raise _Unbelievable("its header has other members than alg, typ and x5c")
    if header["alg"] != "ES256" or header["typ"] != typ:
        raise _Unbelievable("its header names another algorithm or type")
    certificate = _first(header["x5c"])
    numbers = _unb64(mark)
    r, s = int.from_bytes(numbers[:_NUMBER_BYTES], "big"), int.from_bytes(numbers[_NUMBER_BYTES:], "big")
    try:
        _p256(certificate).verify(encode_dss_signature(r, s), f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise _Unbelievable("its signature does not hold") from None
    payload = loads_strict(_unb64(body))
    if not isinstance(payload, dict):
        raise _Unbelievable("it holds no object")
    return certificate, payload


def _first(chain: Any) -> x509.Certificate:
    if not isinstance(chain, list) or not 1 <= len(chain) <= _CERTIFICATES_MAX:
        raise _Unbelievable(f"x5c must hold 1 to {_CERTIFICATES_MAX} certificates")
    return x509.load_der_x509_certificate(_octets(chain[0]))


def _evidence(certificate: x509.Certificate, payload: JsonObject) -> Evidence:
    if set(payload) != {"aud", "csr", "machine"} or not isinstance(payload["machine"], dict):
        raise _Unbelievable("it has other members than aud, csr and machine")
    audience = payload["aud"]
    if not isinstance(audience, list) or not 1 <= len(audience) <= _CERTIFICATES_MAX:
        raise _Unbelievable("aud names no root")
    if not all(isinstance(one, str) for one in audience):
        raise _Unbelievable("aud holds something else than texts")
    request = x509.load_der_x509_csr(_octets(payload["csr"]))
    if not request.is_signature_valid:
        raise _Unbelievable("the sender does not hold the key of its request")
    node, worker = _p256(certificate), _p256(request)
    if node == worker:
        raise _Unbelievable("node and worker have one key")
    return Evidence(
        node_key=spki(node),
        worker_key=spki(worker),
        thumbprint=thumbprint_of(certificate.public_bytes(serialization.Encoding.DER)),
        audience=tuple(parse_digest(one) for one in audience),
        machine=payload["machine"],
    )


def _manifest(payload: JsonObject) -> Manifest:
    texts = ("jti", "worker_id", "instance_id", "node_id")
    if set(payload) != {*texts, "iat", "capabilities"} or not all(isinstance(payload[name], str) for name in texts):
        raise _Unbelievable("it has other members than a manifest has")
    if type(payload["iat"]) is not int or not isinstance(payload["capabilities"], list):
        raise _Unbelievable("iat or capabilities have another type")
    if not all(isinstance(each, dict) for each in payload["capabilities"]):
        raise _Unbelievable("a capability is no object")
    return Manifest(
        manifest_id=payload["jti"],
        worker_id=payload["worker_id"],
        instance_id=payload["instance_id"],
        node_id=payload["node_id"],
        signed_sec=payload["iat"],
        capabilities=tuple(payload["capabilities"]),
    )


def _b64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    # One text for each value: whoever remembers what was used compares texts.
    if _b64(octets) != text:
        raise _Unbelievable("it is not written in base64url the one right way")
    return octets


def _octets(text: Any) -> bytes:
    if not isinstance(text, str):
        raise _Unbelievable("a certificate or request is no text")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as fault:
        raise _Unbelievable("a certificate or request is not base64") from fault

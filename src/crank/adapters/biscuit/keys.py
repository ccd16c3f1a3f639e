"""P-256 keys as Biscuits, JWKs and PEM files write them."""

import base64
import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from crank.domain.json import JsonObject, canonical
from crank.errors import InvalidRequest

if TYPE_CHECKING:
    from biscuit_auth import PrivateKey, PublicKey

COORDINATE_BYTES: Final = 32
# Of holders and issuers that were seen lately: to know one again is quicker than to read it again.
KEYS_KNOWN_MAX: Final = 1024


class BadTokenError(Exception):
    """Bytes that are no token of ours; only this package sees it."""


def thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return the RFC 7638 SHA-256 thumbprint of a P-256 key."""
    return b64(hashlib.sha256(canonical(_jwk(key))).digest())


def published(key: ec.EllipticCurvePublicKey) -> JsonObject:
    """Return the public JWK of an issuer's key, with the 32 bits that a Biscuit has to name it by."""
    point = point_of(key)
    return {**_jwk(key), "kid": name_of(point), "use": "sig", "alg": "ES256", "root_key_id": number_of(point)}


@lru_cache(maxsize=KEYS_KNOWN_MAX)
def name_of(point: bytes) -> str:
    """Return the thumbprint of the key at a compressed point. Raises BadTokenError."""
    return thumbprint(key_at(point))


@lru_cache(maxsize=KEYS_KNOWN_MAX)
def number_of(point: bytes) -> int:
    """Return the 32 bits by which a Biscuit names the issuer's key at a compressed point."""
    return int.from_bytes(base64.urlsafe_b64decode(name_of(point) + "=")[:4], "big")


def key_at(point: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key of a compressed point. Raises BadTokenError."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError as fault:
        raise BadTokenError("it holds a key that is none") from fault


def point_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a key as a compressed point."""
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)


def public(point: bytes) -> "PublicKey":
    """Return a compressed point as the library's key. Raises ValueError."""
    import biscuit_auth

    key: PublicKey = biscuit_auth.PublicKey.from_bytes(point, biscuit_auth.Algorithm.Secp256r1)  # type: ignore[call-arg, attr-defined]
    return key


def secret(key: ec.EllipticCurvePrivateKey) -> "PrivateKey":
    """Return a private key as the library's."""
    import biscuit_auth

    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    made: PrivateKey = biscuit_auth.PrivateKey.from_der(der)  # type: ignore[attr-defined]
    return made


def read_private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Read a P-256 private key from PEM. Raises InvalidRequest (`invalid_key`)."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidRequest(
            "The holder's key is a P-256 private key in PEM, without a passphrase.",
            code="invalid_key",
            field="key",
            fix="Make one with 'crank token keygen'.",
        )
    return key


def read_public(pem: str) -> ec.EllipticCurvePublicKey | None:
    """Read a P-256 public key from PEM, or return None where it is none."""
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1) else None


def new_holder_key() -> tuple[bytes, bytes, str]:
    """Return a fresh P-256 key: the private and the public part in PEM, and the thumbprint."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public_part = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public_part, thumbprint(key.public_key())


def b64(raw: bytes) -> str:
    """Write bytes as base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _jwk(key: ec.EllipticCurvePublicKey) -> JsonObject:
    numbers = key.public_numbers()
    x, y = (b64(part.to_bytes(COORDINATE_BYTES, "big")) for part in (numbers.x, numbers.y))
    return {"crv": "P-256", "kty": "EC", "x": x, "y": y}

"""A caller's own key, in memory alone: it proves, request by request, who holds a token (RFC 9449)."""

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Mapping

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from crank.errors import InvalidRequest

_BYTES = 32


class ProofKey:
    """A P-256 key that never leaves this process. `jkt` is its thumbprint, by which others give it a token.

    pem  a private key to use instead of a fresh one. Raises InvalidRequest (`invalid_key`)
    """

    def __init__(self, pem: bytes | None = None) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1()) if pem is None else _read(pem)
        numbers = self._key.public_key().public_numbers()
        x, y = (_text(number.to_bytes(_BYTES, "big")) for number in (numbers.x, numbers.y))
        self._jwk = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
        written = json.dumps(self._jwk, sort_keys=True, separators=(",", ":"))
        self.jkt = _text(hashlib.sha256(written.encode()).digest())

    def prove(self, method: str, url: str, token: str | None = None) -> str:
        """Return a proof for one request: its method, its address without a query, and the token beside it."""
        claims = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": url.partition("#")[0].partition("?")[0],
            "iat": int(time.time()),
        }
        if token is not None:
            claims["ath"] = _text(hashlib.sha256(token.encode("ascii")).digest())
        header = {"alg": "ES256", "typ": "dpop+jwt", "jwk": self._jwk}
        signed = f"{_part(header)}.{_part(claims)}"
        first, second = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_text(first.to_bytes(_BYTES, 'big') + second.to_bytes(_BYTES, 'big'))}"


def _read(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidRequest(
            "That is no P-256 private key in PEM without a passphrase.",
            code="invalid_key",
            field="key",
            fix="Make one with 'crank token keygen'.",
        )
    return key


def _part(value: Mapping[str, object]) -> str:
    return _text(json.dumps(value, separators=(",", ":")).encode())


def _text(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")

"""JWT-SVIDs, read: the signature by joserfc, and before it everything that decides which key that is asked about.

Only the three header members of the standard are believed, only asymmetric algorithms, and only a key that the bundle of
the token's own trust domain holds for this use and under this name.
"""

import base64
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from crank.domain.json import JsonObject, loads_strict
from crank.errors import CrankError, InvalidRequest

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, RSAKey

# JWT-SVID standard, section 2.1: no symmetric one, and no EdDSA.
_OF_CURVE: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_OF_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_RSA_BITS_MIN = 2048
_TOKEN_CHARS_MAX = 16 * 1024
_DEPTH_MAX = 32
_HEADER_MEMBERS = {"alg", "kid", "typ"}
_TYPES = (None, "JWT", "JOSE")


class JoseSvidReader:
    """The JwtSvidReader port on joserfc."""

    def read(self, token: str, keys_of: Callable[[str], Sequence[JsonObject]]) -> JsonObject:
        """Return the claims of a token that a key of its subject's trust domain signed. Raises InvalidRequest."""
        header, claims = _parts(token)
        if not set(header) <= _HEADER_MEMBERS or header.get("typ") not in _TYPES:
            raise invalid("its header has members or a type that no JWT-SVID has")
        kid, subject = header.get("kid"), claims.get("sub")
        if not isinstance(kid, str) or not isinstance(subject, str):
            raise invalid("it has no kid or no sub")
        found = [key for key in keys_of(subject) if key.get("kid") == kid and key.get("use") == "jwt-svid"]
        if len(found) != 1:
            raise invalid("the bundle of its trust domain has no such key")
        _verify(token, header.get("alg"), found[0])
        return claims


def _verify(token: str, algorithm: Any, jwk: JsonObject) -> None:
    # Loaded with the first token: a node that sees none does not wait for it.
    from joserfc import jws
    from joserfc.errors import JoseError

    if not isinstance(algorithm, str):
        raise invalid("its algorithm is no text")
    registry = jws.JWSRegistry(algorithms=[algorithm])
    registry.max_payload_length = registry.max_header_length = _TOKEN_CHARS_MAX
    try:
        key = _key(jwk, algorithm)
        jws.deserialize_compact(token, key, algorithms=[algorithm], registry=registry)
    except (JoseError, ValueError, KeyError, TypeError) as fault:
        raise invalid("its signature does not hold") from fault


def _key(jwk: JsonObject, algorithm: Any) -> "ECKey | RSAKey":
    """Return a public key that fits the algorithm, so that neither can be taken for another kind."""
    from joserfc.jwk import ECKey, RSAKey

    if jwk["kty"] == "EC" and algorithm == _OF_CURVE[jwk["crv"]]:
        return ECKey.import_key({name: jwk[name] for name in ("kty", "crv", "x", "y")})
    if jwk["kty"] == "RSA" and algorithm in _OF_RSA:
        key = RSAKey.import_key({name: jwk[name] for name in ("kty", "n", "e")})
        if key.raw_value.key_size >= _RSA_BITS_MIN:
            return key
    raise invalid("its algorithm does not fit the key")


def _parts(token: str) -> tuple[JsonObject, JsonObject]:
    if not token.isascii() or len(token) > _TOKEN_CHARS_MAX:
        raise invalid("it is too long")
    segments = token.split(".")
    if len(segments) != 3 or not all(segments):
        raise invalid("it does not have three parts")
    header, claims = (_object(segment) for segment in segments[:2])
    return header, claims


def _object(segment: str) -> JsonObject:
    try:
        octets = base64.b64decode(segment + "=" * (-len(segment) % 4), b"-_", validate=True)
        found = loads_strict(octets, depth_max=_DEPTH_MAX)
    except (ValueError, CrankError) as fault:
        raise invalid("a part of it is no JSON in base64url") from fault
    if not isinstance(found, dict) or "=" in segment:
        raise invalid("a part of it is no JSON object in base64url")
    return found


def invalid(cause: str) -> InvalidRequest:
    """Return the refusal of a token."""
    return InvalidRequest(
        f"This is no valid JWT-SVID: {cause}.",
        code="invalid_jwt_svid",
        field="svid",
        fix="Ask whoever sent it for a fresh one.",
    )

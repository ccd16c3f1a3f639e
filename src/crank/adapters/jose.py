"""JOSE, held to one form: ES256 over P-256, a closed set of header members, one spelling of each token.

What the library checks is the signature. All that decides which key and which meaning a token has is checked here,
before it is asked: a header that names, brings or points at a key of its own, another algorithm or another `typ`
never reaches it. Keys are looked up by `kid` in the set that the caller of this adapter is for, and nowhere else.
"""

import base64
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from crank.domain.json import JsonObject, canonical, loads_strict
from crank.domain.rules.token import PROOF_CHARS_MAX, PROOF_TYPE, TOKEN_CHARS_MAX
from crank.errors import InvalidRequest, NotAuthenticated

if TYPE_CHECKING:
    from joserfc.jwk import ECKey

ALGORITHM: Final = "ES256"
_PART = re.compile(rb"[A-Za-z0-9_-]+")
_COORDINATE = re.compile(r"[A-Za-z0-9_-]{43}")
_HEADER_BYTES_MAX = 1024
_SIGNATURE_BYTES = 64
_DEPTH_MAX = 32
_KEYS_KNOWN_MAX = 32
_HEADER_OF_TOKEN = frozenset({"alg", "typ", "kid"})
_HEADER_OF_PROOF = frozenset({"alg", "typ", "jwk"})
# What a public P-256 key is; the rest of these says nothing about it and is allowed beside.
_KEY_MEMBERS = frozenset({"kty", "crv", "x", "y"})
_KEY_REMARKS = frozenset({"kid", "alg", "use"})


class JoseTokens:
    """Keeps the promises of `ports.TokenReader` for one set of keys.

    keys  returns the public JWKs of this kind of token, asked each time, so that a key that was withdrawn ends at once
    typ   the only media type that is believed
    """

    def __init__(self, keys: Callable[[], Sequence[JsonObject]], *, typ: str) -> None:
        self._keys = keys
        self._typ = typ
        self._known: dict[bytes, ECKey] = {}

    def read(self, token: str) -> JsonObject:
        """Return the claims of a token that a key of the set signed. Raises NotAuthenticated (`invalid_token`)."""
        header, claims, _ = _parts(token, chars_max=TOKEN_CHARS_MAX)
        _check_header(header, _HEADER_OF_TOKEN, self._typ)
        kid = header["kid"]
        if not isinstance(kid, str):
            raise _invalid("Its kid is no text.")
        _check_signature(token, self._key(kid))
        return claims

    def _key(self, kid: str) -> "ECKey":
        for jwk in self._keys():
            if jwk.get("kid") == kid and jwk.get("use") == "sig" and jwk.get("alg", ALGORITHM) == ALGORITHM:
                written = canonical(jwk)
                key = self._known.get(written)
                if key is None:
                    if len(self._known) >= _KEYS_KNOWN_MAX:
                        self._known.clear()
                    key = self._known[written] = _import(jwk)
                return key
        raise _invalid("No key of this node has its kid.")


class JoseProofs:
    """Keeps the promises of `ports.ProofReader`: DPoP proofs (RFC 9449), which bring the key that they prove."""

    def read(self, proof: str) -> tuple[JsonObject, str]:
        """Return a proof's claims and its key's RFC 7638 thumbprint. Raises NotAuthenticated (`invalid_dpop_proof`)."""
        try:
            header, claims, _ = _parts(proof, chars_max=PROOF_CHARS_MAX)
            _check_header(header, _HEADER_OF_PROOF, PROOF_TYPE)
            jwk = header["jwk"]
            if not isinstance(jwk, dict) or not _KEY_MEMBERS <= set(jwk) <= _KEY_MEMBERS | _KEY_REMARKS:
                raise _invalid("Its jwk is no public P-256 key, or says more than one should.")
            _check_signature(proof, _import(jwk))
        except NotAuthenticated as fault:
            raise NotAuthenticated(fault.message, code="invalid_dpop_proof", fix=_FIX_PROOF) from fault
        return claims, thumbprint(jwk)


_FIX_PROOF = "Send a fresh DPoP proof (RFC 9449) by the token's key, ES256, for this method and address."


def thumbprint(jwk: JsonObject) -> str:
    """Return the RFC 7638 SHA-256 thumbprint of a public P-256 key. Raises NotAuthenticated (`invalid_token`)."""
    return _import(jwk).thumbprint()


def _import(jwk: JsonObject) -> "ECKey":
    coordinates = [jwk.get("x"), jwk.get("y")]
    if (jwk.get("kty"), jwk.get("crv")) != ("EC", "P-256") or not all(
        isinstance(one, str) and _COORDINATE.fullmatch(one) for one in coordinates
    ):
        raise _invalid("Its key is no public P-256 key.")
    try:
        return _library().key({"kty": "EC", "crv": "P-256", "x": jwk["x"], "y": jwk["y"]})
    except ValueError as fault:
        # Also a point that is not on the curve.
        raise _invalid("Its key is no public P-256 key.") from fault


def _parts(token: str, *, chars_max: int) -> tuple[JsonObject, JsonObject, bytes]:
    if not token.isascii() or len(token) > chars_max:
        raise _invalid("It is too long, or no ASCII.")
    segments = token.encode("ascii").split(b".")
    if len(segments) != 3:
        raise _invalid("It does not have three parts.")
    header, claims, signature = (_decode(segment) for segment in segments)
    if len(header) > _HEADER_BYTES_MAX or len(signature) != _SIGNATURE_BYTES:
        raise _invalid("Its header is too long, or its signature is none of ES256.")
    return _object(header), _object(claims), signature


def _decode(segment: bytes) -> bytes:
    if not _PART.fullmatch(segment):
        raise _invalid("A part of it is not base64url.")
    try:
        octets = base64.b64decode(segment + b"=" * (-len(segment) % 4), b"-_", validate=True)
    except ValueError as fault:
        raise _invalid("A part of it is not base64url.") from fault
    if base64.urlsafe_b64encode(octets).rstrip(b"=") != segment:
        # Another spelling of the same bytes would be another token to whoever compares or caches them.
        raise _invalid("A part of it is not spelled as base64url spells it.")
    return octets


def _object(octets: bytes) -> JsonObject:
    try:
        found = loads_strict(octets, depth_max=_DEPTH_MAX)
    except InvalidRequest as fault:
        raise _invalid(fault.message) from fault
    if not isinstance(found, dict):
        raise _invalid("A part of it is no JSON object.")
    return found


def _check_header(header: JsonObject, members: frozenset[str], typ: str) -> None:
    # `crit`, `b64`, `jku`, `x5u`, `x5c` and all others are refused by this one comparison.
    if set(header) != members:
        raise _invalid("Its header has other members than this node writes.")
    if header["alg"] != ALGORITHM or header["typ"] != typ:
        raise _invalid(f"It is not {typ} signed with {ALGORITHM}.")


def _check_signature(token: str, key: "ECKey") -> None:
    if not _library().holds(token, key):
        raise _invalid("Its signature does not hold.")


@cache
def _library() -> "_Library":
    return _Library()


class _Library:
    """What is used of joserfc, loaded when the first token comes: no start waits for it."""

    def __init__(self) -> None:
        from joserfc import jws
        from joserfc.errors import JoseError
        from joserfc.jwk import ECKey

        self._jws = jws
        self._fault = JoseError
        self._key_of = ECKey.import_key
        self._registry = jws.JWSRegistry(algorithms=[ALGORITHM], strict_check_header=False)
        self._registry.max_header_length = 2 * _HEADER_BYTES_MAX
        self._registry.max_payload_length = TOKEN_CHARS_MAX

    def key(self, jwk: Any) -> "ECKey":
        """Return a public key. Raises ValueError, also for a point that is not on the curve."""
        try:
            return self._key_of(jwk)
        except self._fault as fault:
            raise ValueError(str(fault)) from fault

    def holds(self, token: str, key: "ECKey") -> bool:
        """Tell whether a compact JWS was signed by this key."""
        try:
            self._jws.deserialize_compact(token, key, algorithms=[ALGORITHM], registry=self._registry)
        except (self._fault, ValueError):
            return False
        return True


def _invalid(cause: str) -> NotAuthenticated:
    return NotAuthenticated(
        f"This token is not valid here: {cause}",
        code="invalid_token",
        fix="Exchange your credential for a new token at /v1/token.",
    )

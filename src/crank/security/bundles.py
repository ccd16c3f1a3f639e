"""SPIFFE bundles as text (Trust Domain and Bundle, section 4): written one way, read strictly.

A bundle says whom to believe, so what is damaged in it is refused whole, never repaired. Only what the standard tells
readers to ignore is ignored: keys of a kind or a use that is not known here.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from crank.domain.identity import parse_trust_domain
from crank.domain.json import JsonObject, canonical, loads_strict
from crank.domain.trust import JwtAuthority, TrustBundle
from crank.errors import InvalidRequest, TooLarge, UntrustedPeer
from crank.security.certificates import check_authority, jwk_of, load_certificate

BUNDLE_BYTES_MAX = 512 * 1024
BUNDLE_MAP_BYTES_MAX = 8 * 1024 * 1024
KEYS_MAX = 64
# Federation 4.1: what to assume where a bundle does not say how often to look.
REFRESH_HINT_SEC = 300
_INTEGER_MAX = 2**63 - 1
_KEY_ID_CHARS_MAX = 256
_DEPTH_MAX = 8
_BASE64URL = re.compile(r"[A-Za-z0-9_-]{1,1024}")
_EC_BYTES = {"P-256": 32, "P-384": 48, "P-521": 66}
_CURVES: dict[str, type[ec.EllipticCurve]] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}
_RSA_BYTES_MIN, _RSA_BYTES_MAX = 256, 512
_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")


def write_bundle(bundle: TrustBundle) -> bytes:
    """Return a bundle as its JWK Set, the same bytes for the same bundle."""
    return canonical(bundle_document(bundle))


def bundle_document(bundle: TrustBundle) -> JsonObject:
    """Return a bundle as a JSON value (Trust Domain and Bundle 4.1; X509-SVID 6.1; JWT-SVID 6.1)."""
    x509_keys = [
        {**jwk_of(load_certificate(der)), "use": "x509-svid", "x5c": [base64.b64encode(der).decode("ascii")]}
        for der in bundle.x509_authorities
    ]
    jwt_keys = [{**key.jwk, "use": "jwt-svid", "kid": key.kid} for key in bundle.jwt_authorities]
    return {
        "keys": [*x509_keys, *jwt_keys],
        "spiffe_sequence": bundle.sequence,
        "spiffe_refresh_hint": bundle.refresh_hint_sec,
    }


def read_bundle(trust_domain: str, raw: bytes) -> TrustBundle:
    """Read the bundle of one trust domain, whose name comes from elsewhere: it is not in it.

    Raises InvalidRequest (`invalid_bundle`), TooLarge.
    """
    if len(raw) > BUNDLE_BYTES_MAX:
        raise TooLarge(f"A bundle is at most {BUNDLE_BYTES_MAX} bytes.", code="bundle_too_large")
    return _bundle(trust_domain, _json(raw))


def write_bundle_map(bundles: Sequence[TrustBundle]) -> bytes:
    """Return several domains' bundles, each by its own name (Trust Domain and Bundle, bundle maps)."""
    return canonical({"trust_domains": {bundle.trust_domain: bundle_document(bundle) for bundle in bundles}})


def read_bundle_map(raw: bytes) -> tuple[TrustBundle, ...]:
    """Read a map of bundles; a name that stands twice is refused. Raises InvalidRequest (`invalid_bundle`), TooLarge."""
    if len(raw) > BUNDLE_MAP_BYTES_MAX:
        raise TooLarge(f"A map of bundles is at most {BUNDLE_MAP_BYTES_MAX} bytes.", code="bundle_too_large")
    value = _json(raw)
    domains = value.get("trust_domains") if isinstance(value, dict) else None
    if not isinstance(domains, dict):
        raise _invalid("a map of bundles has an object 'trust_domains'")
    return tuple(_bundle(name, document) for name, document in domains.items())


def _json(raw: bytes) -> Any:
    try:
        return loads_strict(raw, depth_max=_DEPTH_MAX)
    except InvalidRequest as fault:
        raise _invalid(fault.message.rstrip(".")) from fault


def _bundle(trust_domain: str, value: Any) -> TrustBundle:
    parse_trust_domain(trust_domain)
    keys = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(keys, list):
        raise _invalid("a bundle is an object with an array 'keys'")
    if len(keys) > KEYS_MAX:
        raise TooLarge(f"A bundle holds at most {KEYS_MAX} keys.", code="bundle_too_large")
    x509_authorities: list[bytes] = []
    jwt_authorities: dict[str, JwtAuthority] = {}
    for key in keys:
        if not isinstance(key, dict):
            raise _invalid("each key is an object")
        # Trust Domain and Bundle 4.2.1, 4.2.2: a key of a kind or for a use that is not known is passed over.
        if key.get("kty") not in ("EC", "RSA"):
            continue
        # X509-SVID 6.2: nor is one for certificates that holds none.
        if key.get("use") == "x509-svid" and key.get("x5c", []) != []:
            x509_authorities.append(_certificate(trust_domain, key))
        elif key.get("use") == "jwt-svid":
            found = _jwt_authority(key)
            if found.kid in jwt_authorities:
                raise _invalid("two keys of it have the same 'kid'")
            jwt_authorities[found.kid] = found
    return TrustBundle(
        trust_domain=trust_domain,
        sequence=_whole(value, "spiffe_sequence", 0),
        refresh_hint_sec=_whole(value, "spiffe_refresh_hint", REFRESH_HINT_SEC),
        x509_authorities=tuple(dict.fromkeys(x509_authorities)),
        jwt_authorities=tuple(jwt_authorities.values()),
    )


def _certificate(trust_domain: str, key: JsonObject) -> bytes:
    shown = key["x5c"]
    # X509-SVID 6.2: the first one counts; what others may stand behind it is not looked at.
    if not isinstance(shown, list) or not isinstance(shown[0], str):
        raise _invalid("an x509-svid key has a certificate in 'x5c'")
    try:
        der = base64.b64decode(shown[0], validate=True)
        certificate = load_certificate(der)
        check_authority(certificate, trust_domain)
        own = jwk_of(certificate)
    except (binascii.Error, ValueError) as fault:
        raise _invalid("a certificate in it is not base64") from fault
    except UntrustedPeer as fault:
        raise _invalid(fault.message) from fault
    # Two readers that each believe another half of one key would believe different authorities.
    if any(key.get(name) not in (None, value) for name, value in own.items()):
        raise _invalid("a key in it is not that of its certificate")
    return der


def _jwt_authority(key: JsonObject) -> JwtAuthority:
    kid = key.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= _KEY_ID_CHARS_MAX:
        raise _invalid("a jwt-svid key has a 'kid'")
    if any(name in key for name in _PRIVATE):
        raise _invalid("a key in it is a private one")
    names = ("crv", "x", "y") if key["kty"] == "EC" else ("n", "e")
    jwk: JsonObject = {"kty": key["kty"], **{name: key.get(name) for name in names}}
    if not all(isinstance(jwk[name], str) and _BASE64URL.fullmatch(jwk[name]) for name in names if name != "crv"):
        raise _invalid("a jwt-svid key misses a part, or has one that is not base64url")
    if not (_is_on_curve(jwk) if key["kty"] == "EC" else _is_rsa(jwk)):
        raise _invalid("a jwt-svid key is none of the kinds that are accepted")
    return JwtAuthority(kid, {**jwk, "use": "jwt-svid", "kid": kid})


def _is_on_curve(jwk: JsonObject) -> bool:
    size_bytes = _EC_BYTES.get(str(jwk["crv"]))
    x, y = _octets(jwk["x"]), _octets(jwk["y"])
    if size_bytes is None or len(x) != size_bytes or len(y) != size_bytes:
        return False
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[jwk["crv"]](), b"\x04" + x + y)
    except ValueError:
        return False
    return True


def _is_rsa(jwk: JsonObject) -> bool:
    modulus, exponent = _octets(jwk["n"]), _octets(jwk["e"])
    odd = bool(modulus) and bool(exponent) and modulus[-1] % 2 == 1 and exponent[-1] % 2 == 1
    return odd and _RSA_BYTES_MIN <= len(modulus.lstrip(b"\0")) <= _RSA_BYTES_MAX and 1 <= len(exponent) <= 4


def _octets(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""


def _whole(value: JsonObject, name: str, otherwise: int) -> int:
    found = value.get(name, otherwise)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= _INTEGER_MAX:
        raise _invalid(f"'{name}' is a whole number that is not negative")
    return found


def _invalid(cause: str) -> InvalidRequest:
    return InvalidRequest(
        f"The trust bundle cannot be used: {cause}.",
        code="invalid_bundle",
        fix="Fetch it again from whoever publishes it, in the form of SPIFFE's Trust Domain and Bundle, section 4.",
    )

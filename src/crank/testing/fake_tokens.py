"""Whoever signs capability tokens, for tests: real keys and real signatures, no files and no authority behind them."""

import secrets

from joserfc import jws
from joserfc.jwk import ECKey

from crank.domain.json import JsonObject, dumps


class FakeTokenKeys:
    """Signs as `ports.Authority` does: `sign_access_token` and `access_token_keys`, nothing else of it."""

    def __init__(self) -> None:
        self._keys: list[ECKey] = []
        self.rotate()

    def rotate(self) -> None:
        """Sign with a new key from now on; the ones before are still believed."""
        self._keys.insert(0, ECKey.generate_key("P-256"))

    def withdraw(self) -> None:
        """Believe no key but the newest."""
        del self._keys[1:]

    def sign_access_token(self, claims: JsonObject) -> str:
        """Sign a capability token."""
        return sign(self._keys[0], {"typ": "at+jwt", "kid": self._keys[0].thumbprint()}, claims)

    def access_token_keys(self) -> list[JsonObject]:
        """Return the public keys, the newest first."""
        return [public_jwk(key, use="sig", alg="ES256", kid=key.thumbprint()) for key in self._keys]


class Holder:
    """An agent's own key: makes DPoP proofs (RFC 9449)."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256")
        self.jkt = self.key.thumbprint()

    def prove(self, method: str, url: str, *, now_sec: int, **more: object) -> str:
        """Return a fresh proof; `more` adds or replaces claims, `ath` among them."""
        claims: JsonObject = {"jti": secrets.token_urlsafe(12), "htm": method, "htu": url, "iat": now_sec}
        return sign(self.key, {"typ": "dpop+jwt", "jwk": public_jwk(self.key)}, {**claims, **more})


def public_jwk(key: ECKey, **more: str) -> JsonObject:
    """Return a key's public members, with what else is to be said of it."""
    found = {**key.as_dict(private=False), **more}
    return {name: found[name] for name in ("kty", "crv", "x", "y", *more)}


def sign(key: ECKey, header: JsonObject, claims: JsonObject) -> str:
    """Sign claims by ES256 in compact form; the header is taken as it is."""
    registry = jws.JWSRegistry(algorithms=["ES256"], strict_check_header=False)
    return jws.serialize_compact({"alg": "ES256", **header}, dumps(claims), key, registry=registry)

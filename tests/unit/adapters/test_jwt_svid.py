"""JWT-SVIDs under the attacks on JOSE that are known: nothing but a key of the right bundle, for this use, counts."""

import base64
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey, Key, RSAKey

from crank.adapters.jwt_svid import JoseSvidReader
from crank.domain.json import JsonObject
from crank.errors import InvalidRequest

SUBJECT = "spiffe://test.internal/agent/a"
CLAIMS = {"sub": SUBJECT, "aud": ["db"], "exp": 2_000_000_000}
_REGISTRY = jws.JWSRegistry(algorithms=["ES256", "ES384", "ES512", "RS256", "PS512"], strict_check_header=False)


def b64(octets: bytes) -> str:
    """Write base64url."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def public(key: Key, kid: str = "k", **more: Any) -> JsonObject:
    """Return a key as a bundle holds it."""
    return {**key.as_dict(private=False), "kid": kid, "use": "jwt-svid", **more}


def signed(key: Key, algorithm: str, claims: Any = None, **header: Any) -> str:
    """Sign claims, with whatever header a test likes."""
    named = {"alg": algorithm, "kid": "k", "typ": "JWT", **header}
    named = {name: value for name, value in named.items() if value is not None}
    return str(jws.serialize_compact(named, json.dumps(CLAIMS if claims is None else claims), key, registry=_REGISTRY))


EC, EC384, RSA = ECKey.generate_key("P-256"), ECKey.generate_key("P-384"), RSAKey.generate_key(2048)
OTHER = ECKey.generate_key("P-256")


def read(token: str, *keys: JsonObject) -> JsonObject:
    """Read a token with these keys for whomever it names."""
    return JoseSvidReader().read(token, lambda _subject: keys)


@pytest.mark.parametrize(
    ("key", "algorithm"), [(EC, "ES256"), (EC384, "ES384"), (RSA, "RS256"), (RSA, "PS512")], ids=["es256", "es384", "rs256", "ps512"]
)
@pytest.mark.parametrize("typ", ["JWT", "JOSE", None])
def test_what_the_standard_allows(key: Key, algorithm: str, typ: str | None) -> None:
    """Elliptic curves and RSA, with either type or none; the subject's trust domain is asked for its keys."""
    asked: list[str] = []

    def keys_of(subject: str) -> list[JsonObject]:
        asked.append(subject)
        return [public(OTHER, "other"), public(key)]

    assert JoseSvidReader().read(signed(key, algorithm, typ=typ), keys_of) == CLAIMS
    assert asked == [SUBJECT]


def _none() -> str:
    return f"{b64(json.dumps({'alg': 'none', 'kid': 'k'}).encode())}.{b64(json.dumps(CLAIMS).encode())}."


def _confused() -> str:
    # The public key, taken for a shared secret.
    parts = f"{b64(json.dumps({'alg': 'HS256', 'kid': 'k'}).encode())}.{b64(json.dumps(CLAIMS).encode())}"
    return f"{parts}.{b64(hmac.digest(EC.as_pem(private=False), parts.encode(), 'sha256'))}"


def _critical() -> str:
    header = {"alg": "ES256", "kid": "k", "crit": ["x"], "x": 1}
    parts = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(CLAIMS).encode())}"
    return parts + "." + signed(EC, "ES256").rpartition(".")[2]


def _headed(**header: Any) -> str:
    # A good signature under a header that no library would write.
    claims, signature = signed(EC, "ES256").split(".")[1:]
    return f"{b64(json.dumps({'alg': 'ES256', 'kid': 'k', **header}).encode())}.{claims}.{signature}"


ATTACKS: dict[str, Callable[[], str]] = {
    "algorithm none": _none,
    "key confusion": _confused,
    "another's key": lambda: signed(OTHER, "ES256"),
    "access token's type": lambda: signed(EC, "ES256", typ="at+jwt"),
    "no kid": lambda: signed(EC, "ES256", kid=None),
    "unknown kid": lambda: signed(EC, "ES256", kid="x"),
    "kid that is a path": lambda: signed(EC, "ES256", kid="../../etc/passwd"),
    "brings its own key": lambda: signed(OTHER, "ES256", jwk=OTHER.as_dict(private=False)),
    "points at its own key": lambda: signed(OTHER, "ES256", jku="https://evil.example/keys"),
    "critical member": _critical,
    "algorithm that is a list": lambda: _headed(alg=["ES256"]),
    "algorithm that is an object": lambda: _headed(alg={"ES256": 1}),
    "no algorithm": lambda: _headed(alg=None),
    "kid that is a list": lambda: _headed(kid=["k"]),
    "type that is a list": lambda: _headed(typ=["JWT"]),
    "no subject": lambda: signed(EC, "ES256", {**CLAIMS, "sub": None}),
    "claims that are a list": lambda: signed(EC, "ES256", [1]),
    "two parts": lambda: signed(EC, "ES256").rpartition(".")[0],
    "four parts": lambda: signed(EC, "ES256") + ".x",
    "padding": lambda: signed(EC, "ES256").replace(".", "=.", 1),
    "nothing": lambda: "",
    "no text": lambda: "ü" * 10,
    "too long": lambda: signed(EC, "ES256", {**CLAIMS, "x": "x" * 20_000}),
    "cut signature": lambda: signed(EC, "ES256")[:-6],
    "empty signature": lambda: signed(EC, "ES256").rpartition(".")[0] + ".",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_refused_alike(attack: str) -> None:
    """Each ends in the one refusal."""
    with pytest.raises(InvalidRequest) as caught:
        read(ATTACKS[attack](), public(EC))
    assert caught.value.error_code == "invalid_jwt_svid"


def test_claims_said_twice_are_refused() -> None:
    """Two readers could believe two different subjects."""
    text = json.dumps(CLAIMS).replace("{", '{"sub": "spiffe://test.internal/agent/b", ')
    token = str(jws.serialize_compact({"alg": "ES256", "kid": "k"}, text, EC, registry=_REGISTRY))
    with pytest.raises(InvalidRequest):
        read(token, public(EC))


@pytest.mark.filterwarnings("ignore:Key size")
def test_keys_for_other_uses_do_not_count() -> None:
    """A key that signs access tokens or certificates, a doubled name, a small RSA key and another curve verify nothing."""
    token = signed(EC, "ES256")
    assert read(token, public(EC)) == CLAIMS
    small = RSAKey.generate_key(1024, auto_kid=False)
    refused: list[tuple[str, list[JsonObject]]] = [
        (token, [public(EC, use="sig")]),
        (token, [public(EC, use="x509-svid")]),
        (token, [public(EC), public(OTHER)]),
        (token, [public(EC384)]),
        (token, [{**public(EC), "crv": "P-384"}]),
        (token, [{"kid": "k", "use": "jwt-svid", "kty": "EC"}]),
        (token, [{"kid": "k", "use": "jwt-svid", "kty": "oct", "k": "AAAA"}]),
        (token, []),
        (signed(small, "RS256"), [public(small)]),
    ]
    for attempt, keys in refused:
        with pytest.raises(InvalidRequest):
            read(attempt, *keys)

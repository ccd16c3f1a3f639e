"""Attacks on tokens and proofs: each stops before it could mean anything."""

import base64
import json

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey

from crank.adapters.jose import JoseProofs, JoseTokens, thumbprint
from crank.errors import NotAuthenticated
from crank.testing.fake_tokens import FakeTokenKeys, Holder, public_jwk, sign

KEYS = FakeTokenKeys()
CLAIMS = {"iss": "spiffe://example.org", "sub": "key:claude", "jti": "x", "exp": 4}
KID = KEYS.access_token_keys()[0]["kid"]
SIGNING = KEYS._keys[0]


def reader(keys=KEYS.access_token_keys):
    return JoseTokens(keys, typ="at+jwt")


def b64(value) -> str:
    octets = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def good() -> str:
    return KEYS.sign_access_token(CLAIMS)


def with_header(**members) -> str:
    """A token that our own key signed, with another header: only the header can be what is wrong."""
    header = {"typ": "at+jwt", "kid": KID, **members}
    return sign(SIGNING, {name: value for name, value in header.items() if value is not None}, CLAIMS)


def raw(header: str, payload: str) -> str:
    """A token over texts of our choice with a signature that holds."""
    signing = f"{b64(header.encode())}.{b64(payload.encode())}"
    parts = jws.serialize_compact({"alg": "ES256"}, b"", SIGNING).split(".")
    assert len(parts) == 3
    octets = jws.JWSRegistry.algorithms["ES256"].sign(signing.encode(), SIGNING)
    return f"{signing}.{b64(octets)}"


def hs256_with_the_public_key() -> str:
    """What a verifier that lets the token choose the algorithm takes for its own."""
    secret = SIGNING.as_pem(private=False)
    signing = f"{b64({'alg': 'HS256', 'typ': 'at+jwt', 'kid': KID})}.{b64(CLAIMS)}"
    mac = hmac.HMAC(secret, hashes.SHA256())
    mac.update(signing.encode())
    return f"{signing}.{b64(mac.finalize())}"


def by_foreign_key(**header) -> str:
    return sign(ECKey.generate_key("P-256"), {"typ": "at+jwt", "kid": KID, **header}, CLAIMS)


def rs256() -> str:
    header = {"alg": "RS256", "typ": "at+jwt", "kid": KID}
    return jws.serialize_compact(header, b"{}", RSAKey.generate_key(2048), algorithms=["RS256"])


def es384() -> str:
    header = {"alg": "ES384", "typ": "at+jwt", "kid": KID}
    return jws.serialize_compact(header, b"{}", ECKey.generate_key("P-384"), algorithms=["ES384"])


def other_spelling() -> str:
    """The same bytes with other spare bits at the end of the signature."""
    head, _, last = good().rpartition(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return f"{head}.{last[:-1]}{alphabet[alphabet.index(last[-1]) ^ 1]}"


def header_json(**members) -> str:
    return json.dumps({"alg": "ES256", "typ": "at+jwt", "kid": KID, **members})


ATTACKS = {
    "alg none, no signature": lambda: f"{b64({'alg': 'none', 'typ': 'at+jwt', 'kid': KID})}.{b64(CLAIMS)}.",
    "alg none, our signature": lambda: raw(header_json(alg="none"), json.dumps(CLAIMS)),
    "alg NoNe": lambda: raw(header_json(alg="NoNe"), json.dumps(CLAIMS)),
    "HS256 with the public key": hs256_with_the_public_key,
    "HS256 with the kid": lambda: jws.serialize_compact(
        {"alg": "HS256", "typ": "at+jwt", "kid": KID}, b"{}", OctKey.import_key(KID), algorithms=["HS256"]
    ),
    "RS256": rs256,
    "ES384": es384,
    "alg is a list": lambda: raw(header_json(alg=["ES256"]), json.dumps(CLAIMS)),
    "typ of an identity": lambda: with_header(typ="JWT"),
    "typ of a proof": lambda: with_header(typ="dpop+jwt"),
    "typ with a prefix": lambda: with_header(typ="application/at+jwt"),
    "typ in capitals": lambda: with_header(typ="AT+JWT"),
    "no typ": lambda: with_header(typ=None),
    "no kid": lambda: with_header(kid=None),
    "kid empty": lambda: with_header(kid=""),
    "kid a path": lambda: with_header(kid="../../../../dev/null"),
    "kid SQL": lambda: with_header(kid="x' UNION SELECT 'key' --"),
    "kid NUL": lambda: with_header(kid=f"{KID}\0"),
    "kid a number": lambda: raw(header_json(kid=0), json.dumps(CLAIMS)),
    "kid an object": lambda: raw(header_json(kid={}), json.dumps(CLAIMS)),
    "kid of another, signed by a stranger": by_foreign_key,
    "jwk brings a key": lambda: by_foreign_key(jwk=public_jwk(ECKey.generate_key("P-256"))),
    "jwk beside a good signature": lambda: with_header(jwk=public_jwk(SIGNING)),
    "jku": lambda: with_header(jku="https://evil.example/keys"),
    "x5u": lambda: with_header(x5u="https://evil.example/chain"),
    "x5c": lambda: with_header(x5c=["MIIB"]),
    "crit of nothing known": lambda: raw(header_json(crit=["exp"], exp=1), json.dumps(CLAIMS)),
    "crit empty": lambda: raw(header_json(crit=[]), json.dumps(CLAIMS)),
    "b64 false": lambda: raw(header_json(b64=False, crit=["b64"]), json.dumps(CLAIMS)),
    "zip": lambda: raw(header_json(zip="DEF"), json.dumps(CLAIMS)),
    "cty of a nested token": lambda: with_header(cty="JWT"),
    "header twice alg": lambda: raw(f'{{"alg":"none","alg":"ES256","typ":"at+jwt","kid":"{KID}"}}', json.dumps(CLAIMS)),
    "claims twice exp": lambda: raw(header_json(), '{"exp":1,"exp":9999999999}'),
    "claims no object": lambda: raw(header_json(), "[]"),
    "claims NaN": lambda: raw(header_json(), '{"exp":NaN}'),
    "claims deep": lambda: raw(header_json(), '{"a":' + "[" * 200 + "]" * 200 + "}"),
    "claims no UTF-8": lambda: ".".join([*raw(header_json(), "{}").split(".")[:1], b64(b'{"a":"\xff"}'), "AA"]),
    "header no object": lambda: raw("[]", json.dumps(CLAIMS)),
    "other spelling of the signature": other_spelling,
    "padding": lambda: good() + "=",
    "trailing line": lambda: good() + "\n",
    "trailing part": lambda: good() + ".AA",
    "leading space": lambda: " " + good(),
    "standard alphabet": lambda: good().replace("-", "+").replace("_", "/") + "+",
    "two parts": lambda: good().rpartition(".")[0],
    "five parts": lambda: good() + ".AA.AA",
    "empty signature": lambda: good().rpartition(".")[0] + ".",
    "signature of zeros": lambda: good().rpartition(".")[0] + "." + b64(bytes(64)),
    "signature in DER": lambda: good().rpartition(".")[0] + "." + b64(b"\x30\x44" + bytes(68)),
    "empty": lambda: "",
    "too long": lambda: KEYS.sign_access_token({"x": "y" * 30_000}),
    "no ASCII": lambda: good() + "é",
    "claims changed": lambda: ".".join([good().split(".")[0], b64({**CLAIMS, "sub": "evil"}), good().split(".")[2]]),
}


def test_a_good_token_gives_its_claims():
    """What the node signed reads back as it was."""
    assert reader().read(good()) == CLAIMS
    # What the vectors are made with makes good ones, too: each is refused for its fault alone.
    assert reader().read(raw(header_json(), json.dumps(CLAIMS))) == reader().read(with_header()) == CLAIMS


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda name: name.replace(" ", "-"))
def test_an_attack_is_refused_as_an_invalid_token(attack):
    """Each vector ends in the same typed refusal, whoever's key signed it."""
    with pytest.raises(NotAuthenticated) as caught:
        reader().read(ATTACKS[attack]())
    assert caught.value.error_code == "invalid_token"


@pytest.mark.parametrize("member", [{"use": "jwt-svid"}, {"use": "enc"}, {"alg": "ES384"}, {"use": None}])
def test_a_key_for_something_else_never_verifies(member):
    """The library ignores `use`; here a key of identities, or for another algorithm, is no key at all."""
    (jwk,) = KEYS.access_token_keys()
    other = {name: value for name, value in {**jwk, **member}.items() if value is not None}
    with pytest.raises(NotAuthenticated):
        reader(lambda: [other]).read(good())


def test_keys_rotate_and_a_withdrawn_one_ends_at_once():
    """Tokens of the key before are believed while it is published, and not a moment longer."""
    keys = FakeTokenKeys()
    one = JoseTokens(keys.access_token_keys, typ="at+jwt")
    before = keys.sign_access_token(CLAIMS)
    keys.rotate()
    assert one.read(before) == one.read(keys.sign_access_token(CLAIMS)) == CLAIMS
    keys.withdraw()
    with pytest.raises(NotAuthenticated):
        one.read(before)


def test_the_thumbprint_is_that_of_the_standard():
    """The members in their order, hashed: computed here by hand from RFC 7638 section 3."""
    jwk = public_jwk(SIGNING)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(f'{{"crv":"P-256","kty":"EC","x":"{jwk["x"]}","y":"{jwk["y"]}"}}'.encode())
    assert thumbprint({**jwk, "kid": "anything"}) == b64(digest.finalize())


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"kty": "oct", "k": "AAAA"},
        {**public_jwk(SIGNING), "crv": "P-384"},
        {**public_jwk(SIGNING), "x": "AAAA"},
        {**public_jwk(SIGNING), "x": b64(bytes(32))},
        {**public_jwk(SIGNING), "y": 3},
    ],
)
def test_what_is_no_p256_key_has_no_thumbprint(wrong):
    """Other kinds, short coordinates and points off the curve are refused."""
    with pytest.raises(NotAuthenticated):
        thumbprint(wrong)


HOLDER = Holder()


def proof(**header) -> str:
    return sign(HOLDER.key, {"typ": "dpop+jwt", "jwk": public_jwk(HOLDER.key), **header}, {"jti": "1"})


def test_a_proof_gives_its_claims_and_its_keys_thumbprint():
    """What the holder signed reads back, with whose it is; remarks beside the key change nothing."""
    assert JoseProofs().read(proof()) == ({"jti": "1"}, HOLDER.jkt)
    assert JoseProofs().read(proof(jwk=public_jwk(HOLDER.key, use="sig", alg="ES256"))) == ({"jti": "1"}, HOLDER.jkt)


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"},
        {"typ": "at+jwt"},
        {"jwk": public_jwk(ECKey.generate_key("P-256"))},
        {"jwk": HOLDER.key.as_dict(private=True)},
        {"jwk": {"kty": "oct", "k": "AAAA"}},
        {"kid": "x"},
        {"jku": "https://evil.example"},
    ],
)
def test_other_proofs_are_refused(header):
    """A proof brings exactly the public key that signed it; a private one is never taken."""
    with pytest.raises(NotAuthenticated) as caught:
        JoseProofs().read(proof(**header))
    assert caught.value.error_code == "invalid_dpop_proof"


def test_a_token_is_no_proof_and_a_proof_is_no_token():
    """Neither stands in for the other."""
    with pytest.raises(NotAuthenticated):
        JoseProofs().read(good())
    with pytest.raises(NotAuthenticated):
        reader().read(proof())

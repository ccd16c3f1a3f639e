"""Good and bad JWT-SVIDs at the reader and the rules for claims: the JWT-SVID standard and the known attacks on JOSE.

Each test names the section of the JWT-SVID standard, or the RFC, that it holds us to. Tokens are made here with plain
signatures, not by the library that reads them.
"""

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws

from crank.adapters.jwt_svid import JoseSvidReader
from crank.domain.identity import parse_spiffe_id
from crank.domain.rules.workload import LEEWAY_SEC, claims_refusal
from crank.errors import CrankError, InvalidRequest
from tests.support.musts import breaking

NOW_SEC = 1_800_000_000
ME = "spiffe://one.test/agent/me"
AUDIENCE = "spiffe://two.test/web"
EC_KEY, OTHER_KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
P384_KEY, P521_KEY = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP521R1())
RSA_KEY = rsa.generate_private_key(65_537, 2048)
SMALL_KEY = rsa.generate_private_key(65_537, 1024)


def b64(octets: bytes) -> str:
    """Write octets as base64url."""
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")


def jwk(key: Any, kid: str, use: str | None = "jwt-svid") -> dict[str, Any]:
    """Return the public half of a key."""
    public: dict[str, Any]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        point, size_bytes = key.public_key().public_numbers(), (key.key_size + 7) // 8
        x, y = (b64(each.to_bytes(size_bytes, "big")) for each in (point.x, point.y))
        public = {"kty": "EC", "crv": f"P-{key.key_size}", "x": x, "y": y}
    else:
        numbers = key.public_key().public_numbers()
        public = {"kty": "RSA", "n": b64(numbers.n.to_bytes(key.key_size // 8, "big")), "e": "AQAB"}
    return {**public, "kid": kid, **({"use": use} if use else {})}


BUNDLES = {
    "one.test": [
        jwk(EC_KEY, "k1"), jwk(P384_KEY, "k384"), jwk(P521_KEY, "k521"), jwk(RSA_KEY, "rsa"), jwk(SMALL_KEY, "small"), jwk(EC_KEY, "tokens", "sig"),
        jwk(EC_KEY, "no-use", None), jwk(EC_KEY, "x509", "x509-svid"), jwk(EC_KEY, "wit", "wit-svid"),
    ],
    "two.test": [jwk(OTHER_KEY, "k2"), jwk(OTHER_KEY, "k1")],
}  # fmt: skip


def keys_of(subject: str) -> list[dict[str, Any]]:
    """Return the keys of a subject's own trust domain, as a node does."""
    return BUNDLES.get(parse_spiffe_id(subject).trust_domain, [])


def sign(text: bytes, algorithm: str, key: Any) -> bytes:
    """Sign as RFC 7518 section 3 says."""
    known: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
    digest = known[algorithm[2:]]
    if algorithm.startswith("HS"):
        return hmac.new(key, text, hashlib.sha256).digest()
    if algorithm.startswith("ES"):
        r, s = decode_dss_signature(key.sign(text, ec.ECDSA(digest)))
        size_bytes = (key.key_size + 7) // 8
        return bytes(r.to_bytes(size_bytes, "big") + s.to_bytes(size_bytes, "big"))
    if algorithm.startswith("RS"):
        return bytes(key.sign(text, padding.PKCS1v15(), digest))
    return bytes(key.sign(text, padding.PSS(padding.MGF1(digest), digest.digest_size), digest))


def token(
    header: dict[str, Any] | str | None = None,
    claims: dict[str, Any] | str | None = None,
    *,
    key: Any = EC_KEY,
    signed_by: str = "ES256",
) -> str:
    """Return a token; a header or claims as text go in as they are."""
    header = {"alg": "ES256", "typ": "JWT", "kid": "k1"} if header is None else header
    claims = {"sub": ME, "aud": [AUDIENCE], "exp": NOW_SEC + 300} if claims is None else claims
    parts = [b64((part if isinstance(part, str) else json.dumps(part)).encode()) for part in (header, claims)]
    text = ".".join(parts)
    return f"{text}.{b64(sign(text.encode(), signed_by, key))}"


def in_json(text: str, *names: str) -> dict[str, str]:
    """Return a good token as RFC 7515 section 7.2.2 writes it, or some of its members."""
    members = dict(zip(("protected", "payload", "signature"), text.split("."), strict=True))
    return {name: members[name] for name in names or members}


def read(text: str) -> dict[str, Any]:
    """Read a token as a node does."""
    return JoseSvidReader().read(text, keys_of)


@pytest.mark.must("JWT-SVID 2.3/1")
@pytest.mark.parametrize(
    ("header", "key", "algorithm"),
    [
        ({"alg": "ES256", "kid": "k1"}, EC_KEY, "ES256"),
        ({"alg": "ES256", "kid": "k1", "typ": "JWT"}, EC_KEY, "ES256"),
        ({"alg": "ES256", "kid": "k1", "typ": "JOSE"}, EC_KEY, "ES256"),
        ({"alg": "ES384", "kid": "k384"}, P384_KEY, "ES384"),
        ({"alg": "ES512", "kid": "k521"}, P521_KEY, "ES512"),
        *(({"alg": alg, "kid": "rsa"}, RSA_KEY, alg) for alg in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
    ],
)
def test_what_the_standard_allows_is_read(header, key, algorithm):
    """JWT-SVID 2.1 to 2.3: the algorithms of the list, typ absent, JWT or JOSE, and a kid of the bundle."""
    assert read(token(header, key=key, signed_by=algorithm))["sub"] == ME


GOOD = {"alg": "ES256", "typ": "JWT", "kid": "k1"}


@pytest.mark.parametrize(
    ("rule", "header"),
    breaking([
        ("JWT-SVID 2.1/1: no alg", {"typ": "JWT", "kid": "k1"}),
        ("2.1 none", {**GOOD, "alg": "none"}),
        ("2.1 none in other letters", {**GOOD, "alg": "NonE"}),
        ("2.1 EdDSA", {**GOOD, "alg": "EdDSA"}),
        ("2.1 Ed25519 (RFC 9864)", {**GOOD, "alg": "Ed25519"}),
        ("2.1 ES256K", {**GOOD, "alg": "ES256K"}),
        ("JWT-SVID 2.1/2: small letters", {**GOOD, "alg": "es256"}),
        ("JWT-SVID 2.1/2: a list", {**GOOD, "alg": ["ES256"]}),
        ("2.1 another hash than the curve's", {**GOOD, "alg": "ES384"}),
        ("2.1 another kind than the key's", {**GOOD, "alg": "RS256"}),
        ("2.2 no kid", {"alg": "ES256", "typ": "JWT"}),
        ("2.2 a number", {**GOOD, "kid": 1}),
        ("2.2 unknown", {**GOOD, "kid": "k9"}),
        ("2.2 empty", {**GOOD, "kid": ""}),
        ("2.2 a path", {**GOOD, "kid": "../k1"}),
        ("JWT-SVID 2.3/1: at+jwt", {**GOOD, "typ": "at+jwt"}),
        ("JWT-SVID 2.3/1; SPIFFE-ID 3.3/1: wit+jwt", {**GOOD, "typ": "wit+jwt"}),
        ("JWT-SVID 2.3/1: logout+jwt", {**GOOD, "typ": "logout+jwt"}),
        ("JWT-SVID 2.3/1: small letters", {**GOOD, "typ": "jwt"}),
        ("JWT-SVID 2.3/1: a number", {**GOOD, "typ": 0}),
        ("JWT-SVID 2/1: jku", {**GOOD, "jku": "https://evil.test/keys"}),
        ("JWT-SVID 2/1: jwk", {**GOOD, "jwk": jwk(OTHER_KEY, "k1")}),
        ("JWT-SVID 2/1: x5u", {**GOOD, "x5u": "https://evil.test/"}),
        ("JWT-SVID 2/1: x5c", {**GOOD, "x5c": []}),
        ("JWT-SVID 2/1: crit (RFC 7515 4.1.11)", {**GOOD, "crit": ["exp"], "exp": 1}),
        ("JWT-SVID 2/1: b64 (RFC 7797)", {**GOOD, "b64": False, "crit": ["b64"]}),
        ("JWT-SVID 2/1: zip", {**GOOD, "zip": "DEF"}),
        ("JWT-SVID 2/1: a private one", {**GOOD, "crank": 1}),
        ("JWT-SVID 2/1: cty", {**GOOD, "cty": "JWT"}),
        ("JWT-SVID 6.2/1: a key for capability tokens", {**GOOD, "kid": "tokens"}),
        ("JWT-SVID 6.2/1: a key without a use", {**GOOD, "kid": "no-use"}),
        ("JWT-SVID 6.2/1: a key for certificates", {**GOOD, "kid": "x509"}),
        ("JWT-SVID 6.2/1; SPIFFE-ID 3.3/1: a key for WIT-SVIDs", {**GOOD, "kid": "wit"}),
        ("RFC 7515 4 alg twice", '{"alg":"none","alg":"ES256","kid":"k1"}'),
        ("RFC 7515 4 kid twice", '{"alg":"ES256","kid":"k9","kid":"k1"}'),
        ("no object", "[]"),
        ("no JSON", "{"),
        ("nested deeply", "[" * 100 + "]" * 100),
    ]),
)  # fmt: skip
def test_headers_that_are_refused(rule, header):
    """JWT-SVID 2.1 to 2.3, 6.1: three members, a closed list of algorithms, a key for this use; whatever else signs well."""
    with pytest.raises(InvalidRequest) as caught:
        read(token(header))
    assert caught.value.error_code == "invalid_jwt_svid", rule


# The library warns of the small key; that it is refused is what is tested.
@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize(
    ("attack", "text"),
    breaking([
        ("alg none without a signature", b64(b'{"alg":"none","kid":"k1"}') + "." + token().split(".")[1] + "."),
        ("another key under the same kid", token(key=OTHER_KEY)),
        ("another domain's key for our subject (Trust Domain and Bundle 3/1)", token({**GOOD, "kid": "k2"}, key=OTHER_KEY)),
        (
            "our public key as a secret (RFC 8725 2.1)",
            token({**GOOD, "alg": "HS256"}, signed_by="HS256", key=EC_KEY.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)),
        ),
        ("a small RSA key", token({"alg": "RS256", "kid": "small"}, key=SMALL_KEY, signed_by="RS256")),
        ("PSS where PKCS #1 is said", token({"alg": "RS256", "kid": "rsa"}, key=RSA_KEY, signed_by="PS256")),
        ("a signature of zeros (CVE-2022-21449)", ".".join([*token().split(".")[:2], b64(bytes(64))])),
        ("a signature in DER", ".".join([*token().split(".")[:2], b64(EC_KEY.sign(
            ".".join(token().split(".")[:2]).encode(), ec.ECDSA(hashes.SHA256())))])),
        ("another token's claims (SPIFFE-ID 3.2/1)", ".".join([token().split(".")[0], token(claims={"sub": ME, "aud": ["x"]}).split(".")[1], token().split(".")[2]])),
        ("Ed25519 really", token({**GOOD, "alg": "EdDSA"}).rsplit(".", 1)[0] + "." + b64(
            ed25519.Ed25519PrivateKey.generate().sign(b"x"))),
        ("JSON serialisation, flat (JWT-SVID 1/1, 5.1/1)", json.dumps(in_json(token()))),
        ("JSON serialisation, general (JWT-SVID 1/1, 5.1/1)", json.dumps(
            {"payload": token().split(".")[1], "signatures": [in_json(token(), "protected", "signature")]})),
        ("encrypted", token() + ".AA.AA"),
        ("two parts", token().rsplit(".", 1)[0]),
        ("empty", ""),
        ("dots", ".."),
        ("padding", token() + "="),
        ("padding inside", token().replace(".", "=.", 1)),
        ("a line end", token() + "\n"),
        ("blank before", " " + token()),
        ("not ASCII", token() + "ä"),
        ("other alphabet", token().split(".")[0] + ".+/" + token().split(".")[1] + "." + token().split(".")[2]),
        ("as long as a book", token(claims={"sub": ME, "aud": [AUDIENCE], "exp": NOW_SEC, "x": "a" * 20_000})),
    ]),
)  # fmt: skip
def test_attacks_are_refused(attack, text):
    """RFC 7515, 8725 and JWT-SVID 5: forged, confused, respelled, wrapped and endless tokens prove nothing."""
    with pytest.raises(InvalidRequest) as caught:
        read(text)
    assert caught.value.error_code == "invalid_jwt_svid", attack


@pytest.mark.must("JWT-SVID 3.1/1")
@pytest.mark.parametrize(
    "claims",
    [
        {"aud": [AUDIENCE], "exp": NOW_SEC},
        {"sub": 1, "aud": [AUDIENCE], "exp": NOW_SEC},
        {"sub": "me", "aud": [AUDIENCE], "exp": NOW_SEC},
        {"sub": "spiffe://one.test", "aud": [AUDIENCE], "exp": NOW_SEC},
        {"sub": "spiffe://three.test/agent/me", "aud": [AUDIENCE], "exp": NOW_SEC},
        {"sub": "SPIFFE://one.test/agent/me", "aud": [AUDIENCE], "exp": NOW_SEC},
        f'{{"sub":"{ME}","sub":"spiffe://one.test/controller/c1","aud":"x","exp":1}}',
        f'{{"sub":"{ME}","aud":"x","exp":1,"exp":99999999999}}',
        f'{{"sub":"{ME}","aud":"x","exp":NaN}}',
        '"text"',
    ],
)
def test_claims_that_name_nobody(claims):
    """JWT-SVID 3.1 and RFC 7519 4: the subject is a SPIFFE ID of a domain that is known; a claim that stands twice is none."""
    with pytest.raises(InvalidRequest):
        read(token(claims=claims))


CLAIMS = {"sub": ME, "aud": [AUDIENCE], "exp": NOW_SEC + 300}


@pytest.mark.parametrize(
    ("rule", "changes", "refused"),
    breaking([
        ("good", {}, None),
        ("good", {"aud": AUDIENCE}, None),
        ("good", {"aud": ["x", AUDIENCE]}, None),
        ("JWT-SVID 3.2/2: no audience", {"aud": []}, "others"),
        ("JWT-SVID 3.2/2, 4/2, 4/3: no audience", {"aud": None}, "others"),
        ("JWT-SVID 3.2/2, 4/2: another audience", {"aud": AUDIENCE + "x"}, "others"),
        ("JWT-SVID 3.2/2, 4/2: another audience", {"aud": "prefix" + AUDIENCE}, "others"),
        ("JWT-SVID 3.2/2, 4/2: another audience", {"aud": [AUDIENCE.upper()]}, "others"),
        ("JWT-SVID 3.2/2, 4/2: another audience", {"aud": {AUDIENCE: 1}}, "others"),
        ("JWT-SVID 3.2/2, 4/2: another audience", {"aud": [[AUDIENCE]]}, "others"),
        ("JWT-SVID 3.3/2, 4/2, 4/3: no end", {"exp": None}, "expired"),
        ("JWT-SVID 4/2: its end", {"exp": str(NOW_SEC + 300)}, "expired"),
        ("JWT-SVID 4/2: its end", {"exp": True}, "expired"),
        ("JWT-SVID 4/2: its end", {"exp": -1}, "expired"),
        ("JWT-SVID 4/2: its end", {"exp": [NOW_SEC + 300]}, "expired"),
        ("good", {"exp": NOW_SEC - LEEWAY_SEC + 1}, None),
        ("JWT-SVID 4/2: its end", {"exp": NOW_SEC - LEEWAY_SEC}, "expired"),
        ("JWT-SVID 4/2; Forgery 7: five minutes ago", {"exp": NOW_SEC - 300}, "expired"),
        ("good", {"nbf": NOW_SEC}, None),
        ("Forgery 7: in five minutes", {"nbf": NOW_SEC + 300}, "not valid yet"),
        ("begin", {"nbf": "0"}, "not valid yet"),
        ("good", {"iss": "anybody", "jti": "1", "private": {"a": 1}}, None),
    ]),
)  # fmt: skip
def test_claims_hold_for_one_audience_and_a_while(rule, changes, refused):
    """JWT-SVID 3.2, 3.3, 5: aud names exactly us, exp is there and a number, clocks differ by less than a minute."""
    cause = claims_refusal({**CLAIMS, **changes}, AUDIENCE, now_us=NOW_SEC * 1_000_000)
    assert (cause is None) if refused is None else (cause is not None and refused in cause), rule


@pytest.mark.must("JWT-SVID 3.3/2")
def test_no_expiry_is_an_expired_one():
    """JWT-SVID 3.3: without exp a token is refused; the leeway is less than a minute."""
    claims = {name: value for name, value in CLAIMS.items() if name != "exp"}
    assert claims_refusal(claims, AUDIENCE, now_us=NOW_SEC * 1_000_000) is not None
    assert 0 <= LEEWAY_SEC < 60


def in_bundle(**members: str) -> dict[str, str]:
    """Return a key as it would stand in a bundle of whoever believed it."""
    return {"kid": "bad", "use": "jwt-svid", **members}


SECRET, EDWARDS, KOBLITZ = bytes(range(32)), ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256K1())
_POINT = KOBLITZ.public_key().public_numbers()
OUTSIDE: dict[str, tuple[dict[str, str], Any]] = {
    "HS256": (in_bundle(kty="oct", k=b64(SECRET)), lambda text: hmac.digest(SECRET, text, "sha256")),
    "EdDSA": (in_bundle(kty="OKP", crv="Ed25519", x=b64(EDWARDS.public_key().public_bytes_raw())), EDWARDS.sign),
    "Ed25519": (in_bundle(kty="OKP", crv="Ed25519", x=b64(EDWARDS.public_key().public_bytes_raw())), EDWARDS.sign),
    "ES256K": (
        in_bundle(kty="EC", crv="secp256k1", x=b64(_POINT.x.to_bytes(32, "big")), y=b64(_POINT.y.to_bytes(32, "big"))),
        lambda text: sign(text, "ES256", KOBLITZ),
    ),
    "none": (in_bundle(kty="oct", k=b64(SECRET)), lambda _text: b""),
}


@pytest.mark.must("JWT-SVID 2.1/2", "JWT-SVID 4/1")
@pytest.mark.parametrize("algorithm", OUTSIDE)
def test_what_signs_well_outside_of_the_list_is_refused_unread(monkeypatch, algorithm):
    """JWT-SVID 2.1, 4: a good signature by a key of the bundle counts for nothing, and is not even looked at."""
    key, signer = OUTSIDE[algorithm]
    looked: list[str] = []
    genuine = jws.deserialize_compact

    def look(value: str, *more: Any, **named: Any) -> Any:
        looked.append(value)
        return genuine(value, *more, **named)

    monkeypatch.setattr(jws, "deserialize_compact", look)
    claims = {"sub": ME, "aud": [AUDIENCE], "exp": NOW_SEC + 300}
    text = f"{b64(json.dumps({'alg': algorithm, 'kid': 'bad'}).encode())}.{b64(json.dumps(claims).encode())}"
    # One byte where there is no signature: an empty part would be refused for that alone.
    made = f"{text}.{b64(signer(text.encode()) or b'0')}"
    with pytest.raises(InvalidRequest) as caught:
        JoseSvidReader().read(made, lambda _subject: [key])
    assert caught.value.error_code == "invalid_jwt_svid"
    assert looked == []
    read(token())
    assert len(looked) == 1


@given(st.text(max_size=80) | st.tuples(st.binary(max_size=30), st.binary(max_size=30)).map(lambda two: f"{b64(two[0])}.{b64(two[1])}.AA"))
def test_the_reader_never_surprises(text):
    """Whatever text comes, it is a token or a refusal of Crank's own."""
    with pytest.raises(CrankError):
        read(text)

"""SPIFFE bundles as text: what the Trust Domain and Bundle standard demands, and what damaged or hostile ones get."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.trust import JwtAuthority, TrustBundle
from crank.errors import CrankError, InvalidRequest, TooLarge, UntrustedPeer
from crank.security import Verifier
from crank.security.bundles import (
    BUNDLE_BYTES_MAX,
    KEYS_MAX,
    read_bundle,
    read_bundle_map,
    write_bundle,
    write_bundle_map,
)
from crank.security.certificates import thumbprint
from tests.support.svids import DOMAIN, NOW_US, Wish, authority_wish, root, self_signed

ROOT = root()


def number(value: int, size_bytes: int) -> str:
    """Write a number as JWKs have it."""
    return base64.urlsafe_b64encode(value.to_bytes(size_bytes, "big")).decode().rstrip("=")


def ec_jwk() -> dict:
    """Make a public key on P-256 as a JWK."""
    numbers = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    return {"kty": "EC", "crv": "P-256", "x": number(numbers.x, 32), "y": number(numbers.y, 32)}


def rsa_jwk(bits: int = 2048) -> dict:
    """Make a public RSA key as a JWK."""
    numbers = rsa.generate_private_key(65_537, bits).public_key().public_numbers()
    return {"kty": "RSA", "n": number(numbers.n, bits // 8), "e": "AQAB"}


EC_KEY, RSA_KEY = ec_jwk(), rsa_jwk()
FULL = TrustBundle(
    DOMAIN, 7, 60, (ROOT.der, root(subject="next").der),
    tuple(
        JwtAuthority(kid, {**key, "use": "jwt-svid", "kid": kid})
        for kid, key in ((thumbprint(EC_KEY), EC_KEY), ("theirs", RSA_KEY))
    ),
)  # fmt: skip


def document(*keys: object, **more: object) -> bytes:
    """Write a bundle by hand."""
    return json.dumps({"keys": list(keys), **more}).encode()


def x509_key(der: bytes = ROOT.der, **changes: object) -> dict:
    """Return a good entry for a certificate, with something changed."""
    return {"kty": "EC", "use": "x509-svid", "x5c": [base64.b64encode(der).decode()], **changes}


def jwt_key(**changes: object) -> dict:
    """Return a good entry for a key of JWT-SVIDs, with something changed."""
    return {**EC_KEY, "use": "jwt-svid", "kid": "k1", **changes}


def test_what_is_written_is_read_back():
    """Trust Domain and Bundle 4: a bundle comes back the same, and the same one is always the same text."""
    raw = write_bundle(FULL)
    assert read_bundle(DOMAIN, raw) == FULL
    assert write_bundle(read_bundle(DOMAIN, raw)) == raw


def test_what_is_written_has_the_standard_form():
    """Trust Domain and Bundle 4.1, 4.2; X509-SVID 6.1; JWT-SVID 6.1: parameters, uses, one certificate, kid where it belongs."""
    written = json.loads(write_bundle(FULL))
    assert set(written) == {"keys", "spiffe_sequence", "spiffe_refresh_hint"}
    assert (written["spiffe_sequence"], written["spiffe_refresh_hint"]) == (7, 60)
    assert [key["use"] for key in written["keys"]] == ["x509-svid"] * 2 + ["jwt-svid"] * 2
    for key in written["keys"]:
        assert key["kty"] in ("EC", "RSA")
        if key["use"] == "x509-svid":
            assert len(key["x5c"]) == 1
            assert "kid" not in key
        else:
            assert key["kid"]
            assert "x5c" not in key


def test_sequence_and_hint_may_be_absent():
    """Trust Domain and Bundle 4.1.1, 4.1.2 and Federation 4.1: both are optional; five minutes is then how often to look."""
    found = read_bundle(DOMAIN, document(x509_key()))
    assert (found.sequence, found.refresh_hint_sec) == (0, 300)
    assert read_bundle(DOMAIN, document(spiffe_sequence=2**63 - 1)).sequence == 2**63 - 1


def test_unknown_parameters_are_not_minded():
    """Trust Domain and Bundle 4.1: others may add parameters of their own."""
    assert read_bundle(DOMAIN, document(x509_key(extra=1), more={"a": [1]})).x509_authorities == (ROOT.der,)


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "OKP", "use": "jwt-svid", "kid": "k", "crv": "Ed25519", "x": "AA"},
        {"kty": "oct", "use": "jwt-svid", "kid": "k", "k": "AA"},
        {"kty": "new", "use": "x509-svid", "x5c": ["?"]},
        {"use": "x509-svid", "x5c": ["?"]},
        {"kty": "EC", "use": "wit-svid", "kid": "k"},
        {"kty": "EC", "use": "X509-SVID", "x5c": ["?"]},
        {"kty": "EC", "use": "sig", "kid": "k"},
        {"kty": "EC"},
        {"kty": "EC", "use": "x509-svid"},
    ],
)
def test_unknown_keys_are_passed_over(key):
    """Trust Domain and Bundle 4.2.1, 4.2.2 and X509-SVID 6.2: an unknown kty or use, or no x5c, hides that key and no other."""
    found = read_bundle(DOMAIN, document(key, x509_key()))
    assert found.x509_authorities == (ROOT.der,)
    assert found.jwt_authorities == ()


def test_no_keys_revoke_everybody():
    """Trust Domain and Bundle 4.1.3: an empty bundle is a good one, by which nobody is believed."""
    empty = read_bundle(DOMAIN, document())
    with pytest.raises(UntrustedPeer, match="holds no authority"):
        Verifier(lambda _domain: empty, now_us=lambda: NOW_US).verify(ROOT.leaf())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"keys": {}}',
        b'{"keys": null}',
        b'{"keys": [], "keys": []}',
        b'{"keys": [1]}',
        b"\xff",
        b'{"keys": [' + b"[" * 50 + b"]" * 50 + b"]}",
        document(spiffe_sequence=-1),
        document(spiffe_sequence=2**63),
        document(spiffe_sequence="1"),
        document(spiffe_sequence=1.5),
        document(spiffe_sequence=True),
        document(spiffe_sequence=None),
        document(spiffe_refresh_hint=-1),
        document(spiffe_refresh_hint="60"),
        document(x509_key(x5c=[])),
        document(x509_key(x5c="AA")),
        document(x509_key(x5c=[1])),
        document(x509_key(x5c=["*"])),
        document(x509_key(x5c=["AA"])),
        document(x509_key(x5c=x509_key()["x5c"] * 2)),
        document(x509_key(ROOT.der + b"\0")),
        document(x509_key(ROOT.leaf()[0])),
        document(x509_key(self_signed(Wish()).der)),
        document(x509_key(root("two.test").der)),
        document(x509_key(self_signed(authority_wish(uris=("spiffe://one.test/worker/w1",))).der)),
        document(x509_key(crv="P-384")),
        document({**x509_key(), **EC_KEY}),
        document(jwt_key(kid=None)),
        document(jwt_key(kid="")),
        document(jwt_key(kid=1)),
        document(jwt_key(kid="k" * 257)),
        document({name: value for name, value in jwt_key().items() if name != "kid"}),
        document(jwt_key(), jwt_key()),
        document(jwt_key(d="AA")),
        document(jwt_key(crv="secp256k1")),
        document(jwt_key(crv=["P-256"])),
        document(jwt_key(x="AA")),
        document(jwt_key(x=EC_KEY["y"])),
        document(jwt_key(x=EC_KEY["x"] + "=")),
        document(jwt_key(y=None)),
        document({**rsa_jwk(1024), "use": "jwt-svid", "kid": "k"}),
        document({**RSA_KEY, "e": "", "use": "jwt-svid", "kid": "k"}),
        document({**RSA_KEY, "e": "AQABAQABAQAB", "use": "jwt-svid", "kid": "k"}),
    ],
)
def test_damaged_bundles_are_refused_whole(raw):
    """Trust Domain and Bundle 4, X509-SVID 6, JWT-SVID 6: nothing is repaired, nothing half believed."""
    with pytest.raises(InvalidRequest):
        read_bundle(DOMAIN, raw)


def test_what_is_too_large_is_not_read():
    """Sizes and counts are bounded before anything is parsed."""
    with pytest.raises(TooLarge):
        read_bundle(DOMAIN, b" " * (BUNDLE_BYTES_MAX + 1))
    with pytest.raises(TooLarge):
        read_bundle(DOMAIN, document(*[{}] * (KEYS_MAX + 1)))
    with pytest.raises(TooLarge):
        read_bundle_map(b" " * (8 * 1024 * 1024 + 1))


def test_maps_keep_domains_apart():
    """Trust Domain and Bundle, bundle maps: each domain has a bundle of its own, and a name stands once."""
    other = TrustBundle("two.test", 1, 60, (root("two.test").der,))
    raw = write_bundle_map([FULL, other])
    assert read_bundle_map(raw) == (FULL, other)
    twice = b'{"trust_domains": {"one.test": {"keys": []}, "one.test": {"keys": []}}}'
    for damaged in (twice, b"{}", b"[]", b'{"trust_domains": []}', b'{"trust_domains": {"ONE": {"keys": []}}}',
                    b'{"trust_domains": {"one.test": []}}', b'{"trust_domains": {"one.test": {}}}'):  # fmt: skip
        with pytest.raises(InvalidRequest):
            read_bundle_map(damaged)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["EC", "RSA", "x509-svid", "jwt-svid"]),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["keys", "kty", "use", "x5c", "kid", "crv", "x", "y", "n", "e"]), inner, max_size=6),
        max_leaves=12,
    )
)
def test_the_reader_never_surprises(value):
    """Whatever JSON comes, it is a bundle or a refusal of Crank's own."""
    for raw in (json.dumps(value).encode(), json.dumps({"keys": [value]}).encode()):
        try:
            read_bundle(DOMAIN, raw)
        except CrankError:
            continue

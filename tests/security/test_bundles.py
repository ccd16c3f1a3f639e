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
from tests.support.musts import breaking
from tests.support.svids import DOMAIN, NOW_US, Wish, authority_wish, root, self_signed, usage

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


@pytest.mark.must(
    "X509-SVID 6.1/1", "X509-SVID 6.1/2", "X509-SVID 6.1/3", "X509-SVID 6.1/4", "JWT-SVID 6.1/1", "JWT-SVID 6.1/2",
    "Trust Domain and Bundle 4.1.1/1", "Trust Domain and Bundle 4.1.2/1", "Trust Domain and Bundle 4.1.3/1",
    "Trust Domain and Bundle 4.2.1/1", "Trust Domain and Bundle 4.2.2/1",
)  # fmt: skip
def test_what_is_written_has_the_standard_form():
    """Trust Domain and Bundle 4.1, 4.2; X509-SVID 6.1; JWT-SVID 6.1: parameters, uses, one certificate, kid where it belongs."""
    written = json.loads(write_bundle(FULL))
    assert set(written) == {"keys", "spiffe_sequence", "spiffe_refresh_hint"}
    assert (written["spiffe_sequence"], written["spiffe_refresh_hint"]) == (7, 60)
    assert [key["use"] for key in written["keys"]] == ["x509-svid"] * 2 + ["jwt-svid"] * 2
    assert [base64.b64decode(key["x5c"][0], validate=True) for key in written["keys"][:2]] == list(FULL.x509_authorities)
    for key in written["keys"]:
        assert key["kty"] in ("EC", "RSA")
        if key["use"] == "x509-svid":
            assert len(key["x5c"]) == 1
            assert "kid" not in key
        else:
            assert key["kid"]
            assert "x5c" not in key


@pytest.mark.must("Trust Domain and Bundle 4.1/1")
def test_sequence_and_hint_may_be_absent():
    """Trust Domain and Bundle 4.1.1, 4.1.2 and Federation 4.1: both are optional; five minutes is then how often to look."""
    found = read_bundle(DOMAIN, document(x509_key()))
    assert (found.sequence, found.refresh_hint_sec) == (0, 300)
    assert read_bundle(DOMAIN, document(spiffe_sequence=2**63 - 1)).sequence == 2**63 - 1


def test_unknown_parameters_are_not_minded():
    """Trust Domain and Bundle 4.1: others may add parameters of their own."""
    assert read_bundle(DOMAIN, document(x509_key(extra=1), more={"a": [1]})).x509_authorities == (ROOT.der,)


@pytest.mark.parametrize(
    ("rule", "key"),
    breaking([
        ("kty (Trust Domain and Bundle 4.1.3/2, 4.2.1/2)", {"kty": "OKP", "use": "jwt-svid", "kid": "k", "crv": "Ed25519", "x": "AA"}),
        ("kty (Trust Domain and Bundle 4.1.3/2, 4.2.1/2)", {"kty": "oct", "use": "jwt-svid", "kid": "k", "k": "AA"}),
        ("kty (Trust Domain and Bundle 4.1.3/2, 4.2.1/2)", {"kty": "new", "use": "x509-svid", "x5c": ["?"]}),
        ("no kty", {"use": "x509-svid", "x5c": ["?"]}),
        ("use (Trust Domain and Bundle 4.1.3/2, 4.2.2/2)", {"kty": "EC", "use": "wit-svid", "kid": "k"}),
        ("use (Trust Domain and Bundle 4.1.3/2, 4.2.2/2)", {"kty": "EC", "use": "X509-SVID", "x5c": ["?"]}),
        ("use (Trust Domain and Bundle 4.1.3/2, 4.2.2/2)", {"kty": "EC", "use": "sig", "kid": "k"}),
        ("no use (Trust Domain and Bundle 4.2.2/2)", {**EC_KEY, "kid": "k"}),
        ("no use (Trust Domain and Bundle 4.2.2/2)", {name: value for name, value in x509_key(root().der).items() if name != "use"}),
        ("no x5c (X509-SVID 6.2/1)", {"kty": "EC", "use": "x509-svid"}),
        ("empty x5c (X509-SVID 6.2/1)", {"kty": "EC", "use": "x509-svid", "x5c": []}),
    ]),
)  # fmt: skip
def test_unknown_keys_are_passed_over(rule, key):
    """Trust Domain and Bundle 4.2.1, 4.2.2 and X509-SVID 6.2: an unknown kty or use, or no x5c, hides that key and no other."""
    found = read_bundle(DOMAIN, document(key, x509_key()))
    assert found.x509_authorities == (ROOT.der,), rule
    assert found.jwt_authorities == ()


@pytest.mark.must("X509-SVID 6.2/2")
@pytest.mark.parametrize("more", [[base64.b64encode(root().der).decode()], ["*"], [1, None]])
def test_only_the_first_certificate_of_a_key_counts(more):
    """X509-SVID 6.2: what stands behind it is neither believed nor looked at, and harms nothing."""
    key = x509_key()
    assert read_bundle(DOMAIN, document({**key, "x5c": [*key["x5c"], *more]})).x509_authorities == (ROOT.der,)


@pytest.mark.must("Trust Domain and Bundle 4.1.3/3")
@pytest.mark.parametrize("keys", [(), ({"kty": "new"},), ({"kty": "EC", "use": "wit-svid"}, {"kty": "EC", "use": "x509-svid"})])
def test_no_keys_revoke_everybody(keys):
    """Trust Domain and Bundle 4.1.3: a bundle that is empty, or holds nothing of use, is a good one, by which nobody is believed."""
    empty = read_bundle(DOMAIN, document(*keys))
    with pytest.raises(UntrustedPeer, match="holds no authority"):
        Verifier(lambda _domain: empty, now_us=lambda: NOW_US).verify(ROOT.leaf())


@pytest.mark.parametrize(
    ("rule", "raw"),
    breaking([
        ("no bundle", b""),
        ("no bundle", b"[]"),
        ("Trust Domain and Bundle 4.1.3/1", b"{}"),
        ("no bundle", b"null"),
        ("Trust Domain and Bundle 4.1.3/1", b'{"keys": {}}'),
        ("Trust Domain and Bundle 4.1.3/1", b'{"keys": null}'),
        ("no bundle", b'{"keys": [], "keys": []}'),
        ("no bundle", b'{"keys": [1]}'),
        ("no bundle", b"\xff"),
        ("no bundle", b'{"keys": [' + b"[" * 50 + b"]" * 50 + b"]}"),
        ("Trust Domain and Bundle 4.1.1/1", document(spiffe_sequence=-1)),
        ("Trust Domain and Bundle 4.1.1/1", document(spiffe_sequence=2**63)),
        ("Trust Domain and Bundle 4.1.1/1", document(spiffe_sequence="1")),
        ("Trust Domain and Bundle 4.1.1/1", document(spiffe_sequence=1.5)),
        ("Trust Domain and Bundle 4.1.1/1", document(spiffe_sequence=True)),
        ("Trust Domain and Bundle 4.1.1/1", document(spiffe_sequence=None)),
        ("Trust Domain and Bundle 4.1.2/1", document(spiffe_refresh_hint=-1)),
        ("Trust Domain and Bundle 4.1.2/1", document(spiffe_refresh_hint="60")),
        ("no certificate", document(x509_key(x5c="AA"))),
        ("no certificate", document(x509_key(x5c=[1]))),
        ("no certificate", document(x509_key(x5c=["*"]))),
        ("no certificate", document(x509_key(x5c=["AA"]))),
        ("no certificate", document(x509_key(x5c=None))),
        ("no certificate", document(x509_key(x5c=["AA", *x509_key()["x5c"]]))),
        ("no certificate", document(x509_key(ROOT.der + b"\0"))),
        ("no authority", document(x509_key(ROOT.leaf()[0]))),
        ("no authority", document(x509_key(self_signed(Wish()).der))),
        ("without cA (X509-SVID 4.1/1)", document(x509_key(root(ca=False).der))),
        ("without key usage (X509-SVID 4.3/1)", document(x509_key(root(key_usage=None).der))),
        ("key usage not critical (X509-SVID 4.3/2)", document(x509_key(root(usage_critical=False).der))),
        ("without keyCertSign (X509-SVID 4.3/3)", document(x509_key(root(key_usage=usage("crl_sign")).der))),
        ("no certificate", document(x509_key(root("two.test").der))),
        ("a workload's name (X509-SVID 3.2/1)", document(x509_key(self_signed(authority_wish(uris=("spiffe://one.test/worker/w1",))).der))),
        ("no certificate", document(x509_key(crv="P-384"))),
        ("no certificate", document({**x509_key(), **EC_KEY})),
        ("JWT-SVID 6.1/2", document(jwt_key(kid=None))),
        ("JWT-SVID 6.1/2", document(jwt_key(kid=""))),
        ("no key", document(jwt_key(kid=1))),
        ("no key", document(jwt_key(kid="k" * 257))),
        ("JWT-SVID 6.1/2", document({name: value for name, value in jwt_key().items() if name != "kid"})),
        ("no key", document(jwt_key(), jwt_key())),
        ("no key", document(jwt_key(d="AA"))),
        ("no key", document(jwt_key(crv="secp256k1"))),
        ("no key", document(jwt_key(crv=["P-256"]))),
        ("no key", document(jwt_key(x="AA"))),
        ("no key", document(jwt_key(x=EC_KEY["y"]))),
        ("no key", document(jwt_key(x=EC_KEY["x"] + "="))),
        ("no key", document(jwt_key(y=None))),
        ("no key", document({**rsa_jwk(1024), "use": "jwt-svid", "kid": "k"})),
        ("no key", document({**RSA_KEY, "e": "", "use": "jwt-svid", "kid": "k"})),
        ("no key", document({**RSA_KEY, "e": "AQABAQABAQAB", "use": "jwt-svid", "kid": "k"})),
    ]),
)  # fmt: skip
def test_damaged_bundles_are_refused_whole(rule, raw):
    """Trust Domain and Bundle 4, X509-SVID 6, JWT-SVID 6: nothing is repaired, nothing half believed."""
    with pytest.raises(InvalidRequest) as caught:
        read_bundle(DOMAIN, raw)
    assert caught.value.error_code == "invalid_bundle", rule


def test_what_is_too_large_is_not_read():
    """Sizes and counts are bounded before anything is parsed."""
    with pytest.raises(TooLarge):
        read_bundle(DOMAIN, b" " * (BUNDLE_BYTES_MAX + 1))
    with pytest.raises(TooLarge):
        read_bundle(DOMAIN, document(*[{}] * (KEYS_MAX + 1)))
    with pytest.raises(TooLarge):
        read_bundle_map(b" " * (8 * 1024 * 1024 + 1))


@pytest.mark.must(
    "Trust Domain and Bundle 5.1.1/1", "Trust Domain and Bundle 5.1.1/2", "Trust Domain and Bundle 5.1.1/3", "Trust Domain and Bundle 5.1.1/4"
)
def test_maps_keep_domains_apart():
    """Trust Domain and Bundle, bundle maps: each domain has a bundle of its own, and a name stands once."""
    other = TrustBundle("two.test", 1, 60, (root("two.test").der,))
    raw = write_bundle_map([FULL, other])
    assert read_bundle_map(raw) == (FULL, other)
    assert list(json.loads(raw)["trust_domains"]) == [DOMAIN, "two.test"]
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

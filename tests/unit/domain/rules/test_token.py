"""Tests of what a token's claims and a proof's claims must say."""

import base64
import hashlib
from dataclasses import replace

import pytest

from crank.domain.grant import Grant, GrantId, Right
from crank.domain.ids import LOCAL_TENANT, CredentialId
from crank.domain.job import Refusal
from crank.domain.rules.token import Presented, Proven, act_of, agrees, claims_of, peer_refusal, read_claims, read_proof

ISSUER, AUDIENCE = "https://node.example", "https://node.example/"
JKT = "A" * 43
NOW_US = 1_800_000_000_000_000
US = 1_000_000
GRANT = Grant(
    grant_id=GrantId("018f0000-0000-7000-8000-000000000001"),
    tenant=LOCAL_TENANT,
    credential_id=CredentialId("k-1"),
    subject="key:claude",
    rights=(Right("a.b", calls_max=2),),
    issued_us=NOW_US,
    expires_us=NOW_US + 600 * US,
    actors=("agent-2", "agent-1"),
    holder_jkt=JKT,
)


def claims(**more):
    return {**claims_of(GRANT, issuer=ISSUER, audience=AUDIENCE), **more}


def read(found, now_us=NOW_US):
    return read_claims(found, issuer=ISSUER, audience=AUDIENCE, now_us=now_us)


def test_a_grant_is_written_as_the_standards_say_and_read_back():
    """RFC 9068's claims are all there, with act nested, cnf bound and details typed."""
    found = claims()
    assert found["client_id"] == "agent-2"
    assert found["act"] == {"sub": "agent-2", "act": {"sub": "agent-1"}}
    assert found["cnf"] == {"jkt": JKT}
    assert found["authorization_details"] == [{"type": "urn:crank:capability", "identifier": "a.b", "calls_max": 2}]
    assert {"iss", "exp", "aud", "sub", "client_id", "iat", "jti"} <= set(found)
    presented = read(found)
    assert isinstance(presented, Presented)
    assert agrees(presented, GRANT)
    assert not agrees(presented, replace(GRANT, holder_jkt=None))
    assert not agrees(presented, replace(GRANT, subject="other"))


def test_a_bearer_has_no_cnf_and_one_who_acts_for_nobody_no_act():
    """What is not the case is left out."""
    found = claims_of(replace(GRANT, actors=(), holder_jkt=None), issuer=ISSUER, audience=AUDIENCE)
    assert not {"cnf", "act"} & set(found)
    assert found["client_id"] == "key:claude"
    assert act_of(()) == {}


@pytest.mark.parametrize(
    "more",
    [
        {"iss": "https://other.example"},
        {"iss": None},
        {"aud": "https://other.example/"},
        {"aud": [AUDIENCE]},
        {"aud": [AUDIENCE, "https://other.example/"]},
        {"aud": None},
        {"exp": None},
        {"exp": "9999999999"},
        {"exp": 1.5},
        {"exp": True},
        {"exp": -1},
        {"exp": 2**64},
        {"nbf": None},
        {"iat": None},
        {"jti": None},
        {"jti": "1"},
        {"jti": ["x"]},
        {"sub": ""},
        {"sub": None},
        {"cnf": None},
        {"cnf": {}},
        {"cnf": {"jkt": "short"}},
        {"cnf": {"x5t#S256": JKT}},
        {"cnf": {"jkt": JKT, "jwk": {}}},
    ],
)
def test_claims_that_do_not_hold_are_refused(more):
    """Another issuer or audience, odd times, no id, a binding that nobody would check."""
    refused = read(claims(**more))
    assert isinstance(refused, Refusal)
    assert refused.code == "invalid_token"


@pytest.mark.must("Forgery 7")
@pytest.mark.parametrize("clock_sec", [-300, -61, 660, 900])
def test_a_clock_that_is_minutes_off_believes_no_token(clock_sec):
    """Before its beginning and after its end, beyond the leeway, it holds nowhere."""
    assert isinstance(read(claims(), NOW_US + clock_sec * US), Refusal)


@pytest.mark.parametrize("clock_sec", [-60, 0, 599, 659])
def test_clocks_may_differ_by_a_minute(clock_sec):
    """Within the leeway the claims hold; the grant itself ends on time."""
    assert isinstance(read(claims(), NOW_US + clock_sec * US), Presented)


URL = "https://node.example:8443/v1/jobs"


def proof(**more):
    return {"jti": "1", "htm": "POST", "htu": URL, "iat": NOW_US // US, **more}


def check(found, *, method="POST", url=URL, token=None):
    return read_proof(found, JKT, method=method, url=url, token=token, now_us=NOW_US)


@pytest.mark.parametrize(
    ("htu", "url"),
    [
        (URL, URL),
        (URL, URL + "?limit=1"),
        (URL + "?x#y", URL),
        ("HTTPS://NODE.example:8443/v1/jobs", URL),
        ("https://node.example:443/v1", "https://node.example/v1"),
        ("https://node.example", "https://node.example/"),
    ],
)
def test_addresses_are_compared_without_query_and_case(htu, url):
    """RFC 9449 section 4.3: query and fragment do not count; scheme and host have no case."""
    assert isinstance(check(proof(htu=htu), url=url), Proven)


@pytest.mark.parametrize(
    "more",
    [
        {"jti": None},
        {"jti": ""},
        {"jti": "x" * 300},
        {"jti": 4},
        {"iat": None},
        {"iat": "now"},
        {"iat": True},
        {"iat": NOW_US // US - 61},
        {"iat": NOW_US // US + 61},
        {"iat": NOW_US // US - 300},
        {"iat": NOW_US // US + 300},
        {"htm": "GET"},
        {"htm": "post"},
        {"htm": None},
        {"htu": None},
        {"htu": "https://evil.example:8443/v1/jobs"},
        {"htu": "http://node.example:8443/v1/jobs"},
        {"htu": URL + "/"},
        {"htu": "https://node.example:8443/V1/jobs"},
        {"htu": "https://node.example/v1/jobs"},
        {"htu": "/v1/jobs"},
    ],
)
def test_a_proof_for_something_else_is_refused(more):
    """Another method, address or time proves nothing here."""
    refused = check(proof(**more))
    assert isinstance(refused, Refusal)
    assert refused.code == "invalid_dpop_proof"


def test_a_proof_beside_a_token_is_for_that_token():
    """`ath` is the token's hash; without it, or with another's, a proof does not count."""
    ath = base64.urlsafe_b64encode(hashlib.sha256(b"tok").digest()).rstrip(b"=").decode()
    assert isinstance(check(proof(ath=ath), token="tok"), Proven)
    assert isinstance(check(proof(ath=ath), token="other"), Refusal)
    assert isinstance(check(proof(), token="tok"), Refusal)


def test_a_proof_is_remembered_for_as_long_as_it_could_be_used_again():
    """The key that its id is kept under differs with the key and the id, and outlives the proof's age."""
    first, second = check(proof()), check(proof(jti="2"))
    assert isinstance(first, Proven)
    assert isinstance(second, Proven)
    assert first.replay_key != second.replay_key
    assert first.until_us >= NOW_US + 60 * US


@pytest.mark.parametrize(
    ("holder", "peer", "passes"),
    [
        ("spiffe://a.example/agent/1", "spiffe://a.example/agent/1", True),
        ("spiffe://a.example/agent/1", None, True),
        ("spiffe://a.example/agent/1", "spiffe://a.example/agent/10", False),
        ("spiffe://a.example/agent/1", "spiffe://b.example/agent/1", False),
        ("key:claude", "spiffe://a.example/agent/1", True),
    ],
)
def test_a_holder_that_is_a_workload_is_who_the_certificate_names(holder, peer, passes):
    """The present holder is compared, those before it are not on this connection; a key's name proves nothing either way."""
    for grant in (replace(GRANT, actors=(holder, "spiffe://a.example/before")), replace(GRANT, subject=holder, actors=())):
        refused = peer_refusal(grant, peer)
        assert (refused is None) is passes
        assert refused is None or refused.code == "token_not_yours"

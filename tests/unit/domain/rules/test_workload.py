"""Which workloads may be registered, who earns them, and what their tokens say."""

import json
from dataclasses import replace
from typing import Any

import pytest

from crank.domain.entry_codec import entry_document, parse_entry
from crank.domain.identity import make_spiffe_id
from crank.domain.rules import workload as rules
from crank.domain.workload import parse_selector
from crank.errors import CrankError, InvalidRequest, StoreError, TooLarge
from crank.testing.contracts_workloads import full_entry, sample_entry

OWN = "test.internal"
NOW_US = 1_700_000_000_000_000
NOW_SEC = 1_700_000_000


@pytest.mark.parametrize(
    "path", ["agent/ci", "/agent/ci", f"spiffe://{OWN}/agent/ci", "agent/a.b-c_d", "tenant/acme/web", "tenant/a/b/c/D/e"]
)
def test_paths_for_workloads(path: str) -> None:
    """An agent has one name, a tenant's workload as many segments as it likes."""
    assert str(rules.workload_id(OWN, path)).endswith(path.removeprefix(f"spiffe://{OWN}/").lstrip("/"))


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "agent", "agent/", "agent/a/b", "tenant/a", "tenant", "controller/n", "worker/main", "node/n", "agent/..",
        "agent//x", "agent/%41", "agent/ä", "Agent/x", "worker/../agent/x", "spiffe://other.example/agent/x", "agent/a?b",
        "agent/" + "x" * 600, "tenant/a/../b", "tenant/a/worker/b", "tenant/a/b/c/d/e/f", "tenant/A/b",
    ],
)  # fmt: skip
def test_paths_that_are_not_a_workloads(path: str) -> None:
    """Names of Crank's own parts, of other trust domains, and what is no path are refused."""
    with pytest.raises(InvalidRequest) as caught:
        rules.workload_id(OWN, path)
    assert caught.value.error_code in ("invalid_spiffe_id", "path_reserved")


BAD: dict[str, Any] = {
    "selectors_too_wide": {"selectors": (parse_selector("unix:path:/usr/bin/ci"), parse_selector("unix:sha256:" + "0" * 64))},
    "ttl_out_of_range": {"ttl_sec": 9},
    "invalid_hint": {"hint": "a\nb"},
    "invalid_dns_name": {"dns_names": ("*.internal",)},
    "federates_with_itself": {"federates_with": (OWN,)},
    "invalid_trust_domain": {"federates_with": ("Other",)},
    "too_large": {"dns_names": tuple(f"a{number}" for number in range(9))},
}


@pytest.mark.parametrize("code", BAD)
def test_what_could_never_be_served_is_not_registered(code: str) -> None:
    """Each mistake has its code; nobody is identified by a program alone."""
    with pytest.raises(CrankError) as caught:
        rules.check_entry(replace(sample_entry(), **BAD[code]))
    assert caught.value.error_code == code


def test_what_may_be_registered() -> None:
    """Small and full entries pass; so does no selector but a unit."""
    rules.check_entry(sample_entry())
    rules.check_entry(full_entry())
    rules.check_entry(replace(sample_entry(), selectors=(parse_selector("systemd:unit:nginx.service"),)))
    with pytest.raises(InvalidRequest):
        rules.check_entry(replace(sample_entry(), selectors=()))
    many = tuple(parse_selector(f"unix:uid:{number}") for number in range(17))
    with pytest.raises(TooLarge):
        rules.check_entry(replace(sample_entry(), selectors=many))


@pytest.mark.parametrize("name", ["a", "db.internal", "a-b.c1", "1.2", "x" * 63])
def test_names_that_a_certificate_may_hold(name: str) -> None:
    """Labels in lower case with dots between."""
    rules.check_entry(replace(sample_entry(), dns_names=(name,)))


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b", "-a", "a-", "A", "a_b", "a b", "x" * 64, "*.a", "ü", "a\n"])
def test_names_that_it_may_not(name: str) -> None:
    """No wildcard, no upper case, no empty or long label."""
    with pytest.raises(InvalidRequest):
        rules.check_entry(replace(sample_entry(), dns_names=(name,)))


def test_all_selectors_of_an_entry_must_hold() -> None:
    """A process earns exactly the entries whose every mark it bears, in their order."""
    uid, path, gid = (parse_selector(text) for text in ("unix:uid:1", "unix:path:/a", "unix:gid:1"))
    both = replace(sample_entry("w-1"), selectors=(uid, path))
    one = replace(sample_entry("w-2"), selectors=(uid,))
    other = replace(sample_entry("w-3"), selectors=(gid,))
    assert rules.earned((both, one, other), {uid, path}) == (both, one)
    assert rules.earned((both, one, other), {path}) == ()
    # A number is of its kind alone.
    assert rules.earned((one,), {gid}) == ()


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("/system.slice/nginx.service", "nginx.service"),
        ("/system.slice/system-a.slice/a@1.service/sub/b.service", "a@1.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service", "user@1000.service"),
        ("/user.slice/user-1000.slice/session-2.scope", "session-2.scope"),
        ("/machine.slice/x/nginx.service", None),
        ("/docker/abc", None),
        ("/", None),
        ("/system.slice", None),
    ],
)
def test_the_unit_is_the_systems_own(cgroup: str, unit: str | None) -> None:
    """A user's manager can name a service as it likes below its own unit; that is not the system's of that name."""
    assert rules.unit_of(cgroup) == unit


@pytest.mark.must("JWT-SVID 3.1/1", "JWT-SVID 3.2/1", "JWT-SVID 3.3/1")
def test_what_a_token_says() -> None:
    """Subject, audience without repetition, and two times; never longer than five minutes or than a certificate."""
    claims = rules.jwt_claims(make_spiffe_id(OWN, "agent", "a"), ["b", "a", "b"], now_us=NOW_US, life_sec=60)
    assert claims == {"sub": f"spiffe://{OWN}/agent/a", "aud": ["b", "a"], "iat": NOW_SEC, "exp": NOW_SEC + 60}
    assert rules.jwt_life_sec(sample_entry()) == 300
    assert rules.jwt_life_sec(replace(sample_entry(), ttl_sec=60)) == 60
    assert rules.jwt_life_sec(replace(sample_entry(), ttl_sec=3600)) == 300


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ({}, True),
        ({"aud": "db"}, True),
        ({"aud": []}, False),
        ({"aud": ["other"]}, False),
        ({"aud": "dbx"}, False),
        ({"aud": None}, False),
        ({"aud": {"db": 1}}, False),
        ({"exp": NOW_SEC - 19}, True),
        ({"exp": NOW_SEC - 20}, False),
        ({"exp": None}, False),
        ({"exp": True}, False),
        ({"exp": str(NOW_SEC + 60)}, False),
        ({"nbf": NOW_SEC + 20}, True),
        ({"nbf": NOW_SEC + 21}, False),
        ({"nbf": "0"}, False),
    ],
)
def test_when_a_token_holds(change: dict[str, Any], holds: bool) -> None:
    """It is for this audience, its end is a number that has not passed, and its beginning has."""
    claims = {"sub": "x", "aud": ["db", "b"], "exp": NOW_SEC + 60, **change}
    assert (rules.claims_refusal(claims, "db", now_us=NOW_US) is None) is holds


def test_what_is_stored_is_read_strictly() -> None:
    """An entry survives as JSON; a damaged one is a fault of the store and no entry."""
    text = json.dumps(entry_document(full_entry()))
    assert parse_entry(text) == full_entry()
    for damaged in ("", "[]", "{}", text.replace("spiffe://", "http://"), text.replace("unix:uid", "unix:pid")):
        with pytest.raises(StoreError):
            parse_entry(damaged)

"""What is public of a trust domain: its bundle, with tags and patience, and the keys of its tokens, which never mix."""

import asyncio
import json

import httpx2
import pytest

from crank.api.app import build_api
from crank.controller import publish
from crank.controller.tell_trust import unaware
from crank.security.bundles import read_bundle
from tests.support.desk import TRUST_DOMAIN
from tests.support.tokens import PLACE, with_tokens
from tests.unit.api.conftest import check_problem


@pytest.fixture
async def stranger(desk):
    """Give a client without a credential."""
    app = build_api(desk, version="0", more_names=["node.test"])
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="https://node.test") as client:
        yield client


@pytest.mark.must("Federation 5.2.1.3/2", "Federation 5.2.1.3/4", "Federation 5.2.2.3/2", "Federation 5.2.2.3/4")
async def test_anybody_may_have_the_bundle(desk, stranger):
    """Federation 5.2.1.3: no credential is asked for, and the newest bundle comes as application/json."""
    answer = await stranger.get("/trust-bundle")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert json.loads(answer.content.decode("utf-8"))["keys"]
    own = desk.authority.bundle()
    found = read_bundle(TRUST_DOMAIN, answer.content)
    assert (found.sequence, found.refresh_hint_sec) == (own.sequence, own.refresh_hint_sec)
    assert found.x509_authorities == own.x509_authorities
    assert [key.kid for key in found.jwt_authorities] == [key.kid for key in own.jwt_authorities]


@pytest.mark.must("Federation 5.2.1.3/3", "Federation 5.2.2.3/3", "Trust Domain and Bundle 4.1.1/2")
async def test_a_bundle_that_was_seen_is_not_sent_again(desk, stranger):
    """The tag stands for exactly these bytes: 304 while it is the newest, and the new one once it changed."""
    first = await stranger.get("/trust-bundle")
    tag = first.headers["etag"]
    for shown in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = await stranger.get("/trust-bundle", headers={"If-None-Match": shown})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    desk.authority.change_root()
    changed = await stranger.get("/trust-bundle", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag
    assert changed.json()["spiffe_sequence"] > first.json()["spiffe_sequence"]


async def test_patience_is_ended_by_a_change(desk, stranger):
    """With `Prefer: wait`, who has the newest is answered as soon as there is a newer one."""
    tag = (await stranger.get("/trust-bundle")).headers["etag"]
    waiting = asyncio.create_task(stranger.get("/trust-bundle", headers={"If-None-Match": tag, "Prefer": "wait=30"}))
    while not desk.trust.bundles.waiting:
        await asyncio.sleep(0)
    desk.authority.change_keys()
    answer = await asyncio.wait_for(waiting, 10)
    assert answer.status_code == 200
    assert answer.headers["etag"] != tag
    assert desk.trust.bundles.waiting == 0


async def test_patience_ends_by_itself(desk, stranger):
    """Nothing changed: 304 after the time that was asked for."""
    tag = (await stranger.get("/trust-bundle")).headers["etag"]
    answer = await stranger.get("/trust-bundle", headers={"If-None-Match": tag, "Prefer": "wait=1"})
    assert answer.status_code == 304


async def test_strangers_cannot_hold_all_connections(desk, stranger, monkeypatch):
    """Only so many wait at once; whoever comes then is answered at once."""
    monkeypatch.setattr(publish, "WAITERS_MAX", 0)
    tag = (await stranger.get("/trust-bundle")).headers["etag"]
    headers = {"If-None-Match": tag, "Prefer": "wait=30"}
    assert (await asyncio.wait_for(stranger.get("/trust-bundle", headers=headers), 5)).status_code == 304


async def test_who_is_proven_acknowledges(desk, api, stranger):
    """A tag that a proven caller shows is an acknowledgement; one that anybody shows is none, and neither is a made-up one."""
    tag = (await stranger.get("/trust-bundle")).headers["etag"]
    await stranger.get("/trust-bundle", headers={"If-None-Match": tag})
    await api.get("/trust-bundle", headers={"If-None-Match": f'"x", "{10**25}-{"0" * 16}", *'})
    now = desk.authority.bundle().sequence
    assert unaware(desk, now + 1) == []
    await api.get("/trust-bundle", headers={"If-None-Match": tag})
    assert (unaware(desk, now), unaware(desk, now + 1)) == ([], ["local"])


async def test_who_does_not_come_back_is_not_waited_for(desk, api, monkeypatch):
    """A follower that missed three looks keeps nobody from changing the root; and only so many are remembered."""
    tag = (await api.get("/trust-bundle")).headers["etag"]
    await api.get("/trust-bundle", headers={"If-None-Match": tag})
    bundle, now_us = desk.authority.bundle(), desk.clock.now_us()
    for number in range(300):
        desk.trust.bundles.acknowledged(f"key:{number}", bundle.sequence)
    assert len(unaware(desk, bundle.sequence + 1)) == 256
    later_us = now_us + (3 * bundle.refresh_hint_sec + 5) * 1_000_000
    monkeypatch.setattr(type(desk.clock), "now_us", lambda _self: later_us)
    assert unaware(desk, bundle.sequence + 1) == []


async def test_a_wrong_credential_is_refused_even_here(stranger):
    """Nothing is asked for, but what is shown must be good."""
    answer = await stranger.get("/trust-bundle", headers={"Authorization": "Bearer wrong"})
    check_problem(answer, 401, "not_authenticated")


@pytest.fixture
async def token_api(desk):
    """Give a stranger's client of a desk whose tokens are signed by the same authority."""
    app = build_api(with_tokens(desk, keys=desk.authority), version="0", more_names=["node.test", "other.test"])
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="https://other.test") as client:
        yield client


async def test_discovery_leads_to_the_keys_of_tokens(desk, token_api):
    """OpenID Connect Discovery 3: the issuer that tokens name, by whatever name it was asked, and a set of keys with `use` sig."""
    document = (await token_api.get("/.well-known/openid-configuration")).json()
    assert document["issuer"] == PLACE
    required = {
        "issuer", "authorization_endpoint", "jwks_uri", "response_types_supported", "subject_types_supported",
        "id_token_signing_alg_values_supported",
    }  # fmt: skip
    assert required <= set(document)
    oauth = (await token_api.get("/.well-known/oauth-authorization-server")).json()
    same = ("issuer", "jwks_uri", "token_endpoint", "token_endpoint_auth_methods_supported", "grant_types_supported")
    assert {name: oauth[name] for name in same} == {name: document[name] for name in same}
    keys = (await token_api.get(document["jwks_uri"])).json()["keys"]
    assert keys == list(desk.authority.access_token_keys())
    assert all(key["use"] == "sig" and "d" not in key for key in keys)


async def test_the_two_sets_never_mix(desk, token_api):
    """A key that vouches for SVIDs is in the bundle alone, one that signs tokens in the other set alone; after rotation too."""
    desk.authority.change_keys()
    bundle = (await token_api.get("/trust-bundle")).json()["keys"]
    tokens = (await token_api.get("/v1/jwks")).json()["keys"]
    assert {key["use"] for key in bundle} == {"x509-svid", "jwt-svid"}
    assert not {key["x"] for key in bundle} & {key["x"] for key in tokens}
    assert len([key for key in bundle if key["use"] == "jwt-svid"]) == len(tokens) == 2
    assert '"d"' not in json.dumps([bundle, tokens])


async def test_a_node_without_a_trust_domain_says_so(desk, stranger):
    """What cannot be served is refused like everything else."""
    object.__setattr__(desk, "trust", None)
    check_problem(await stranger.get("/trust-bundle"), 503, "no_trust_domain")
    check_problem(await stranger.get("/.well-known/openid-configuration"), 401, "not_authenticated")

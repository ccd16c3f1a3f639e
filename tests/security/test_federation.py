"""Federation with publishers on loopback, over real TLS: both profiles, and everything that a publisher may try."""

import datetime as dt
import ipaddress
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509

from crank.adapters.https_download.addresses import is_near
from crank.controller.federate import poll
from crank.controller.polling import Polling
from crank.domain.federation import EndpointProfile, Federated
from crank.domain.rules.federation import parse_bundle_url
from crank.domain.trust import TrustBundle
from crank.errors import InvalidRequest, UntrustedPeer
from crank.security import Verifier
from crank.security.bundles import bundle_document
from tests.support.desk import TRUST_DOMAIN, open_api, open_desk
from tests.support.musts import breaking
from tests.support.publisher import moved, ok, pem_of, publishing, tls_of
from tests.support.svids import Wish, authority_wish, root
from tests.unit.api.conftest import check_problem

THEIRS = "two.test"
ENDPOINT = f"spiffe://{THEIRS}/controller/n2"
# Real time: TLS looks at the clock itself.
LATELY: dict[str, Any] = {"begins": dt.datetime.now(dt.UTC) - dt.timedelta(hours=1), "ends": dt.datetime.now(dt.UTC) + dt.timedelta(days=1)}
ROOT = root(THEIRS, **LATELY)
LOOPBACK = (x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)


def endpoint(issuer=ROOT, uri: str = ENDPOINT, **changes):
    """Issue what a publisher shows in TLS, by its SPIFFE ID alone."""
    return issuer.issue(Wish(uris=(uri,), **{**LATELY, **changes}))


def web_server(issuer=ROOT):
    """Issue what a publisher shows in TLS, by its address alone."""
    return issuer.issue(Wish(uris=(), more=[LOOPBACK], **LATELY))


def bundle(sequence: int = 5, issuer=ROOT, hint_sec: int = 60) -> TrustBundle:
    """Return a bundle of the foreign domain."""
    return TrustBundle(THEIRS, sequence, hint_sec, (issuer.der,))


@pytest.fixture
async def desk(tmp_path):
    """Give a desk whose services run."""
    async with open_desk(tmp_path) as opened:
        yield opened


@pytest.fixture
async def api(desk):
    """Give the owner's client."""
    async with open_api(desk) as client:
        yield client


@pytest.fixture
async def spiffe(tmp_path):
    """Give a publisher that proves itself by its SPIFFE ID."""
    async with publishing(tls_of(endpoint(), tmp_path / "tls")) as publisher:
        publisher.show(bundle())
        yield publisher


@pytest.fixture
async def web(tmp_path):
    """Give a publisher that proves itself by its address."""
    async with publishing(tls_of(web_server(), tmp_path / "tls")) as publisher:
        publisher.show(bundle())
        yield publisher


def by_spiffe(publisher, **changes) -> dict:
    """Return what adds a publisher by its SPIFFE ID."""
    wanted = {
        "trust_domain": THEIRS, "url": publisher.url, "profile": "https_spiffe", "endpoint_id": ENDPOINT,
        "bundle": bundle_document(bundle()), "private": True,
    }  # fmt: skip
    return {**wanted, **changes}


def by_web(publisher, **changes) -> dict:
    """Return what adds a publisher by its address."""
    return {"trust_domain": THEIRS, "url": publisher.url, "ca_pem": pem_of(ROOT), "private": True, **changes}


async def kinds(desk) -> list[str]:
    """Return the kinds of the records about federation."""
    records = await desk.store.read(lambda tx: tx.records.page(job_id=None, after=0, limit=100))
    return [record.kind for _, record in records if record.kind.startswith("federation.")]


async def nothing_was_kept(desk) -> bool:
    """Tell whether a refused request left nothing behind."""
    kept = await desk.store.read(lambda tx: list(tx.federation.all()))
    return kept == [] and dict(desk.trust.bundles.foreign()) == {} and await kinds(desk) == []


# --- both profiles -------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["spiffe", "web"])
@pytest.mark.must("Federation 5/1")
async def test_a_domain_is_added_listed_and_removed(desk, api, spiffe, web, profile):
    """Federation 5.2 and 6: both profiles fetch at once; the bundle is believed until the federation ends, and no longer."""
    publisher = spiffe if profile == "spiffe" else web
    added = await api.post("/v1/federation", json=(by_spiffe if profile == "spiffe" else by_web)(publisher))
    assert added.status_code == 201, added.text
    document = added.json()
    assert (document["sequence"], document["believed"], document["failure"]) == (5, True, None)
    assert document["bundle"] == bundle_document(bundle())
    assert desk.trust.bundles.find(THEIRS) == bundle()
    assert (await api.get("/v1/federation")).json()["federation"] == [document]
    assert (await api.get(f"/v1/federation/{THEIRS}")).json() == document
    check_problem(await api.post("/v1/federation", json=by_web(publisher)), 409, "federation_exists")
    assert (await api.delete(f"/v1/federation/{THEIRS}")).status_code == 200
    assert desk.trust.bundles.find(THEIRS) is None
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/refresh")):
        check_problem(await api.request(method, f"/v1/federation/{THEIRS}{path}"), 404, "federation_not_found")
    assert await kinds(desk) == ["federation.added", "federation.removed"]


@pytest.mark.must("Federation 4.2/1", "Federation 7.3/1")
async def test_a_foreign_identity_is_checked_by_its_own_bundle_alone(desk, api, spiffe):
    """Federation 4.2: after federation their SVIDs verify; their authority still cannot mint ours, nor ours theirs."""
    assert (await api.post("/v1/federation", json=by_spiffe(spiffe))).status_code == 201
    here = Verifier(desk.trust.bundles.find, now_us=desk.clock.now_us)
    assert str(here.verify(endpoint().chain).spiffe_id) == ENDPOINT
    for forged in (
        endpoint(uri=f"spiffe://{TRUST_DOMAIN}/worker/w1"),
        endpoint(ROOT.issue(authority_wish(TRUST_DOMAIN, **LATELY)), uri=f"spiffe://{TRUST_DOMAIN}/controller/n1"),
    ):
        with pytest.raises(UntrustedPeer, match=f"not from the authority of {TRUST_DOMAIN}"):
            here.verify(forged.chain)
    assert (await api.delete(f"/v1/federation/{THEIRS}")).status_code == 200
    with pytest.raises(UntrustedPeer, match="No bundle"):
        here.verify(endpoint().chain)


@pytest.mark.must("Federation 5.2.2.4/2")
async def test_the_newest_bundle_proves_the_publisher(desk, api, tmp_path):
    """Federation 5.2.2.4: after a root was changed, the publisher is proven by the bundle that was fetched last."""
    second = root(THEIRS, **LATELY)
    both = replace(bundle(6), x509_authorities=(ROOT.der, second.der))
    async with publishing(tls_of(endpoint(), tmp_path / "tls")) as publisher:
        publisher.show(both)
        assert (await api.post("/v1/federation", json=by_spiffe(publisher))).json()["sequence"] == 6
        port = publisher.port
    kept = await desk.store.read(lambda tx: tx.federation.find(THEIRS))
    assert kept is not None
    async with publishing(tls_of(endpoint(second), tmp_path / "tls")) as publisher:
        publisher.show(bundle(7, second))
        moved_there = replace(kept, url=kept.url.replace(str(port), str(publisher.port)))
        assert (await poll(desk, moved_there)).failure is None
    assert desk.trust.bundles.find(THEIRS) == bundle(7, second)


@pytest.mark.must("Federation 5.2.2.2/2")
async def test_a_publisher_of_a_third_domain_is_proven_by_that_domain(desk, api, tmp_path):
    """Federation 7.6: a bundle may be published by somebody else's identity, once that domain is federated with."""
    third = root("three.test", **LATELY)
    async with publishing(tls_of(endpoint(third, "spiffe://three.test/publisher"), tmp_path / "tls")) as publisher:
        publisher.show(bundle())
        wanted = by_spiffe(publisher, endpoint_id="spiffe://three.test/publisher", bundle=None)
        check_problem(await api.post("/v1/federation", json=wanted), 503, "bundle_fetch_failed")
        desk.trust.bundles.put(TrustBundle("three.test", 1, 60, (third.der,)), 2**62)
        assert (await api.post("/v1/federation", json=wanted)).status_code == 201


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "changes", "code"),
    breaking([
        ("other", {"trust_domain": TRUST_DOMAIN}, "invalid_federation"),
        ("other", {"trust_domain": "TWO"}, "invalid_trust_domain"),
        ("http (Federation 5.2.1.1/1, 5.2.2.1/1)", {"url": "http://127.0.0.1/"}, "invalid_bundle_url"),
        ("a user (Federation 5.2.1.1/2, 5.2.2.1/2)", {"url": "https://me@127.0.0.1/"}, "invalid_bundle_url"),
        ("other", {"url": "https://127.0.0.1/#a"}, "invalid_bundle_url"),
        ("other", {"profile": "https_web"}, "invalid_federation"),
        ("other", {"profile": "https_web", "endpoint_id": None, "ca_pem": "nothing"}, "invalid_federation"),
        ("no SPIFFE ID (Federation 5.2.2.2/1)", {"endpoint_id": None}, "invalid_federation"),
        ("other", {"endpoint_id": "spiffe://two.test"}, "invalid_spiffe_id"),
        ("other", {"ca_pem": "PEM"}, "invalid_federation"),
        ("other", {"stale_after_sec": 59}, "invalid_federation"),
        ("no bundle (Federation 5.2.2.2/1)", {"bundle": None}, "bootstrap_bundle_needed"),
        ("other", {"bundle": {}}, "invalid_bundle"),
    ]),
)  # fmt: skip
async def test_what_cannot_be_a_federation(desk, api, spiffe, rule, changes, code):
    """Federation 5.1, 5.2.1.1, 5.2.2.1: nothing is guessed, nothing is inferred from the URL, and nothing is left behind."""
    check_problem(await api.post("/v1/federation", json=by_spiffe(spiffe, **changes)), 422, code)
    assert await nothing_was_kept(desk), rule
    assert spiffe.asked == []


@pytest.mark.must("Federation 5.1/1", "Federation 5.2.1.4/4", "Federation 5.2.2.4/3")
@pytest.mark.parametrize("missing", ["trust_domain", "url"])
@pytest.mark.parametrize("by", [by_web, by_spiffe])
async def test_domain_and_address_are_always_the_owners(desk, api, spiffe, by, missing):
    """Federation 5.1: whose bundle it is and where it is are said before anybody is asked; neither follows from the other."""
    wanted = {name: value for name, value in by(spiffe).items() if name != missing}
    check_problem(await api.post("/v1/federation", json=wanted), 422, "missing_field")
    assert await nothing_was_kept(desk)
    assert spiffe.asked == []


@pytest.mark.must("Federation 5.1/1")
@pytest.mark.parametrize("by", ["web", "spiffe"])
async def test_one_profile_never_stands_in_for_the_other(desk, api, spiffe, web, by):
    """Federation 5.1, 7.2: whoever proves itself by the other profile alone is not believed by the one that was chosen."""
    wanted = by_web(spiffe) if by == "web" else by_spiffe(web)
    check_problem(await api.post("/v1/federation", json=wanted), 403, "untrusted_peer")
    assert await nothing_was_kept(desk)
    assert spiffe.asked == web.asked == []


@pytest.mark.must("Federation 5.2.1.2/1")
async def test_the_web_profile_needs_nothing_but_the_three(desk, api, web, tmp_path, monkeypatch):
    """Federation 5.2.1.2: domain and address by https_web are enough, where the system's authorities know the publisher."""
    (tmp_path / "system.pem").write_text(pem_of(ROOT))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    wanted = {"trust_domain": THEIRS, "url": web.url, "profile": "https_web", "private": True}
    assert (await api.post("/v1/federation", json=wanted)).status_code == 201


async def test_an_address_near_by_must_be_allowed(desk, api, spiffe):
    """This machine and private networks are asked only where the owner said so."""
    check_problem(await api.post("/v1/federation", json=by_spiffe(spiffe, private=False)), 403, "bundle_url_refused")
    assert await nothing_was_kept(desk)
    assert spiffe.asked == []


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("127.0.0.1", True), ("10.1.2.3", True), ("172.16.0.1", True), ("192.168.1.1", True), ("100.64.0.1", True), ("::1", True),
        ("fd12::1", True), ("169.254.169.254", False), ("fe80::1%eth0", False), ("::ffff:169.254.169.254", False),
        ("::ffff:127.0.0.1", False), ("fd00:ec2::254", False), ("0.0.0.0", False), ("::", False), ("224.0.0.1", False),
        ("255.255.255.255", False), ("64:ff9b:1::1", False), ("8.8.8.8", False),
    ],
)  # fmt: skip
def test_near_addresses_are_a_closed_list(address, near):
    """Link-local addresses, where clouds keep their secrets, are never asked, in whatever form they are written."""
    assert is_near(address) is near


@pytest.mark.parametrize(
    "publisher_is",
    [
        endpoint(uri=f"spiffe://{THEIRS}/controller/other"),
        endpoint(root(THEIRS, **LATELY)),
        endpoint(uri=f"spiffe://{TRUST_DOMAIN}/controller/n1"),
        endpoint(root("three.test", **LATELY), "spiffe://three.test/x"),
        web_server(),
    ],
    ids=["another-name", "another-root", "our-name", "another-domain", "no-name"],
)  # fmt: skip
@pytest.mark.must("Federation 5.2.2.4/1")
async def test_a_publisher_that_is_somebody_else_is_not_believed(desk, api, tmp_path, publisher_is):
    """Federation 5.2.2.4: the exact SPIFFE ID, by the bootstrap bundle, or nothing."""
    async with publishing(tls_of(publisher_is, tmp_path / "tls")) as publisher:
        publisher.show(bundle())
        check_problem(await api.post("/v1/federation", json=by_spiffe(publisher)), 403, "untrusted_peer")
        assert publisher.asked == []
    assert await nothing_was_kept(desk)


@pytest.mark.must("Federation 5.2.1.4/1", "Federation 5.2.1.4/2", "Federation 5.2.1.4/3")
async def test_a_publisher_without_its_hosts_certificate_is_not_believed(desk, api, spiffe, web):
    """Federation 5.2.1.4: by https_web the address itself must be proven, by the authority that was named, or the system's."""
    for wanted in (
        by_web(spiffe),
        by_web(web, ca_pem=None),
        by_web(web, ca_pem=pem_of(root(THEIRS, **LATELY))),
        by_web(web, url=web.url.replace("127.0.0.1", "localhost")),
    ):
        check_problem(await api.post("/v1/federation", json=wanted), 403, "untrusted_peer")
    assert await nothing_was_kept(desk)
    assert web.asked == []


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (ok(b"{}"), 422, "invalid_bundle"),
        (ok(b"nothing"), 422, "invalid_bundle"),
        (ok(b'{"keys":[],"keys":[]}'), 422, "invalid_bundle"),
        (ok(json.dumps(bundle_document(root().bundle())).encode()), 422, "invalid_bundle"),
        (ok(b" " * (512 * 1024 + 1)), 413, "bundle_too_large"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (512 * 1024 + 1), 413, "bundle_too_large"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", 503, "bundle_fetch_failed"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", 503, "bundle_fetch_failed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", 503, "bundle_fetch_failed"),
        (b"SSH-2.0\r\n", 503, "bundle_fetch_failed"),
        (moved("/elsewhere", 301), 403, "bundle_url_refused"),
        (moved("/elsewhere", 308), 403, "bundle_url_refused"),
        (moved("/bundle"), 403, "bundle_url_refused"),
        (moved("http://127.0.0.1/"), 422, "invalid_bundle_url"),
        (moved("https://me:secret@127.0.0.1/"), 422, "invalid_bundle_url"),
        (moved("https://169.254.169.254/latest"), 403, "bundle_url_refused"),
        (moved("file:///etc/passwd"), 422, "invalid_bundle_url"),
        (moved("https://127.0.0.1:0/"), 422, "invalid_bundle_url"),
        (moved("https://[::1/"), 422, "invalid_bundle_url"),
        (moved("https://[v1.x]/"), 422, "invalid_bundle_url"),
        (moved("https://\xe4/"), 422, "invalid_bundle_url"),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", 403, "bundle_url_refused"),
    ],
)
async def test_every_other_answer_is_refused(desk, api, spiffe, answer, status, code):
    """Federation 5.2.2.4, 7.5.1: broken, hostile and endless answers, and redirects that lead where none may lead."""
    spiffe.answers["/bundle"] = answer
    check_problem(await api.post("/v1/federation", json=by_spiffe(spiffe)), status, code)
    assert await nothing_was_kept(desk)
    assert len(spiffe.asked) <= 4


async def test_a_few_temporary_redirects_are_followed(desk, api, spiffe):
    """Federation 7.5.1: each is judged like the first address, and the publisher must prove itself there as well."""
    spiffe.answers |= {"/start": moved("/next", 307), "/next": moved(spiffe.url, 303)}
    wanted = by_spiffe(spiffe, url=spiffe.url.replace("/bundle", "/start"))
    assert (await api.post("/v1/federation", json=wanted)).status_code == 201
    assert spiffe.asked == ["/start", "/next", "/bundle"]


@pytest.mark.must("Federation 5.2.2.4/4", "Federation 5.2.2.4/5")
async def test_a_redirect_does_not_change_who_must_answer(desk, api, spiffe, tmp_path):
    """Federation 7.5.1: whoever is redirected to has to be the same publisher."""
    async with publishing(tls_of(endpoint(uri=f"spiffe://{THEIRS}/other"), tmp_path / "tls")) as other:
        other.show(bundle(9))
        spiffe.answers["/bundle"] = moved(other.url)
        check_problem(await api.post("/v1/federation", json=by_spiffe(spiffe)), 403, "untrusted_peer")
        assert other.asked == []


@pytest.mark.must("Federation 5.2.1.4/5")
async def test_a_redirect_by_the_web_is_proven_like_the_first_address(desk, api, web, tmp_path):
    """Federation 5.2.1.4: whoever is redirected to must prove that address by the same authority."""
    for shown in (web_server(root(THEIRS, **LATELY)), endpoint()):
        async with publishing(tls_of(shown, tmp_path / "tls")) as other:
            other.show(bundle(9))
            web.answers["/bundle"] = moved(other.url)
            check_problem(await api.post("/v1/federation", json=by_web(web)), 403, "untrusted_peer")
            assert other.asked == []
    assert await nothing_was_kept(desk)


@pytest.mark.must("Federation 5.2.1.1/1", "Federation 5.2.1.1/2", "Federation 5.2.2.1/1", "Federation 5.2.2.1/2")
@pytest.mark.parametrize(
    "url",
    [
        "", "two.test", "http://two.test/", "HTTPS://two.test/", "https://", "https:///a", "https://two.test:0/", "https://two.test:70000/",
        "https://two.test:/", "https://me@two.test/", "https://me:x@two.test/", "https://two.test/#a", "https://two.test/ a",
        "https://two.test/\n", "https://two.test/ä", "https://-two.test/", "https://two.test\\@evil.test/", "https://[::1/",
        "https://two.test/" + "a" * 2048, "https://two..test/", "https://.two.test/", "https://two.test./", "https://two-.test/",
        "https://" + "a" * 64 + ".test/", "https://" + "a." * 127 + "test/", "https://[fe80::1%25eth0]/",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_bundle(url):
    """Federation 5.2.1.1, 5.2.2.1: https, a host, no user; and nothing that two readers could read in two ways."""
    with pytest.raises(InvalidRequest) as caught:
        parse_bundle_url(url)
    assert caught.value.error_code == "invalid_bundle_url"


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://two.test", ("two.test", 443, "/")),
        ("https://two.test:8443/a/b?c=d", ("two.test", 8443, "/a/b?c=d")),
        ("https://two.test?x", ("two.test", 443, "/?x")),
        ("https://[::1]:1/a", ("::1", 1, "/a")),
        ("https://127.0.0.1/", ("127.0.0.1", 443, "/")),
    ],
)
def test_what_is_an_address_of_a_bundle(url, parts):
    """Every other part of the URL is the publisher's own affair."""
    place = parse_bundle_url(url)
    assert (place.host, place.port, place.target) == parts


# --- news, and no news ---------------------------------------------------------------------------


@pytest.mark.must("Trust Domain and Bundle 4.1.1/1")
async def test_news_are_taken_and_old_news_refused(desk, api, spiffe):
    """Trust Domain and Bundle 4.1.1: a newer bundle replaces the old one whole; a sequence that goes back does not."""
    await api.post("/v1/federation", json=by_spiffe(spiffe))
    newer = replace(bundle(6), x509_authorities=(ROOT.der, root(THEIRS, **LATELY).der))
    spiffe.show(newer)
    assert (await api.post(f"/v1/federation/{THEIRS}/refresh")).json()["sequence"] == 6
    spiffe.show(bundle(5))
    told = (await api.post(f"/v1/federation/{THEIRS}/refresh")).json()
    assert told["failure"].startswith("bundle_went_back")
    assert (told["sequence"], told["believed"]) == (6, True)
    assert desk.trust.bundles.find(THEIRS) == newer
    assert await kinds(desk) == ["federation.added", "federation.bundle_changed"]


@pytest.mark.must("Trust Domain and Bundle 4.1.3/3")
async def test_an_empty_bundle_is_news_too(desk, api, web):
    """Trust Domain and Bundle 4.1.3: a domain that shows no keys has revoked everybody, and that counts at once."""
    await api.post("/v1/federation", json=by_web(web))
    web.show(TrustBundle(THEIRS, 6, 60, ()))
    assert (await api.post(f"/v1/federation/{THEIRS}/refresh")).json()["x509_authorities"] == 0
    with pytest.raises(UntrustedPeer, match="holds no authority"):
        Verifier(desk.trust.bundles.find, now_us=desk.clock.now_us).verify(endpoint().chain)


async def test_no_news_are_no_end_until_the_time_that_was_told(desk, api, web, monkeypatch):
    """A failed look keeps the last good bundle; once it was not confirmed for too long, nobody of the domain is believed."""
    await api.post("/v1/federation", json=by_web(web, stale_after_sec=60))
    web.answers.clear()
    told = (await api.post(f"/v1/federation/{THEIRS}/refresh")).json()
    assert told["failure"] == "bundle_fetch_failed: The bundle could not be fetched: it answered 404."
    assert told["believed"]
    later_us = desk.clock.now_us() + 61 * 1_000_000
    monkeypatch.setattr(type(desk.clock), "now_us", lambda _self: later_us)
    assert desk.trust.bundles.find(THEIRS) is None
    assert not (await api.get(f"/v1/federation/{THEIRS}")).json()["believed"]
    generation = desk.trust.bundles.generation
    await Polling(desk, desk.trust).poll_due()
    assert await desk.trust.bundles.changed(generation) == generation + 1
    web.show(bundle(6))
    assert (await api.post(f"/v1/federation/{THEIRS}/refresh")).json()["believed"]
    assert desk.trust.bundles.find(THEIRS) == bundle(6)


async def test_each_publisher_is_asked_when_it_is_due(desk, api, web, monkeypatch):
    """Federation 4.1: as often as the hint says, after a failed look no sooner, and never without a pause."""
    await api.post("/v1/federation", json=by_web(web))
    web.asked.clear()
    polling, base_us = Polling(desk, desk.trust), desk.clock.now_us()

    async def looked_after(sec: float) -> int:
        monkeypatch.setattr(type(desk.clock), "now_us", lambda _self: base_us + int(sec * 1_000_000))
        return await polling.poll_due()

    assert [await looked_after(sec) for sec in (0, 59, 61, 100, 122)] == [0, 0, 1, 0, 1]
    web.answers.clear()
    assert [await looked_after(sec) for sec in (183, 200, 244)] == [1, 0, 1]
    web.show(bundle(6, hint_sec=0))
    assert [await looked_after(sec) for sec in (305, 310, 316)] == [1, 0, 1]


async def test_a_federation_that_ended_while_its_publisher_was_asked_stays_ended(desk, api, web):
    """What a slow publisher answers after the end brings nothing back."""
    await api.post("/v1/federation", json=by_web(web))
    before = await desk.store.read(lambda tx: tx.federation.find(THEIRS))
    assert before is not None
    await api.delete(f"/v1/federation/{THEIRS}")
    with pytest.raises(Exception, match="not federated"):
        await poll(desk, before)
    assert desk.trust.bundles.find(THEIRS) is None


@pytest.mark.parametrize("late", [bundle(6), None], ids=["an older bundle", "no answer"])
async def test_a_look_that_took_long_brings_nothing_older_back(desk, api, web, late):
    """Two looks at once: whatever the slow one ends with, the news that the quick one brought stay, in the store as well."""
    await api.post("/v1/federation", json=by_web(web))
    begun = await desk.store.read(lambda tx: tx.federation.find(THEIRS))
    assert begun is not None
    newest = replace(bundle(7), x509_authorities=(root(THEIRS, **LATELY).der,))
    web.show(newest)
    assert (await api.post(f"/v1/federation/{THEIRS}/refresh")).json()["sequence"] == 7
    web.answers.clear()
    if late is not None:
        web.show(late)
    told = await poll(desk, begun)
    assert (told.failure is None) == (late is not None)
    kept = await desk.store.read(lambda tx: tx.federation.find(THEIRS))
    assert kept is not None
    assert desk.trust.bundle_format.read(THEIRS, kept.bundle.encode()) == newest == desk.trust.bundles.find(THEIRS)
    assert await kinds(desk) == ["federation.added", "federation.bundle_changed"]


async def test_what_was_kept_is_believed_after_a_start(desk, api, web):
    """The store's bundle counts at once after a restart, until its time; one that cannot be read counts for nothing."""
    await api.post("/v1/federation", json=by_web(web))
    damaged = Federated("three.test", web.url, EndpointProfile.WEB, None, None, True, 60, 1, "{", 4 * 10**15, 4 * 10**15)
    await desk.store.transact(lambda tx: tx.federation.insert(damaged))
    desk.trust.bundles.drop(THEIRS)
    polling = Polling(desk, desk.trust)
    await polling.start()
    try:
        assert desk.trust.bundles.find(THEIRS) == bundle()
        assert desk.trust.bundles.find("three.test") is None
    finally:
        await polling.stop()
    shown = (await api.get("/v1/federation/three.test")).json()
    assert (shown["believed"], shown["sequence"], shown["bundle"]) == (False, None, None)


async def test_federation_is_the_owners(desk, api, web):
    """A bounded key sees none of it and changes none of it."""
    await api.post("/v1/federation", json=by_web(web))
    key = (await api.post("/v1/keys", json={"name": "agent"})).json()["secret"]
    api.headers["authorization"] = f"Bearer {key}"
    for method, path in (
        ("GET", ""), ("GET", f"/{THEIRS}"), ("DELETE", f"/{THEIRS}"), ("POST", f"/{THEIRS}/refresh"),
    ):  # fmt: skip
        check_problem(await api.request(method, f"/v1/federation{path}"), 403, "owner_only")
    check_problem(await api.post("/v1/federation", json=by_web(web, trust_domain="three.test")), 403, "owner_only")
    assert desk.trust.bundles.find(THEIRS) == bundle()


async def test_only_so_many_domains(desk, api, web, monkeypatch):
    """What a node keeps of others is bounded."""
    monkeypatch.setattr("crank.controller.federate.FEDERATED_DOMAINS_MAX", 0)
    check_problem(await api.post("/v1/federation", json=by_web(web)), 413, "too_many_federations")
    assert await nothing_was_kept(desk)


async def test_whoever_follows_foreign_bundles_is_woken(desk, api, web):
    """A change of what is believed moves the generation; what changes nothing does not."""
    bundles = desk.trust.bundles
    start = bundles.generation
    await api.post("/v1/federation", json=by_web(web))
    assert await bundles.changed(start) == start + 1
    await api.post(f"/v1/federation/{THEIRS}/refresh")
    assert bundles.generation == start + 1
    await api.delete(f"/v1/federation/{THEIRS}")
    assert bundles.generation == start + 2

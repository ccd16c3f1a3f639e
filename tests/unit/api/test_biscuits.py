"""Biscuits at the door: asked for at the token endpoint, narrowed and passed on without it, admitted like every token."""

import base64
import secrets
from typing import Any

import httpx2
import pytest

from crank.adapters.biscuit import BiscuitHolder, BiscuitIssuer
from crank.adapters.biscuit.keys import point_of
from crank.api.app import build_api
from crank.bootstrap.attenuation import Narrowing, attenuate
from crank.controller import hop_count
from crank.controller.desk import Desk
from crank.domain.chain import Holder, looks_like_chain
from crank.domain.credential import CredentialKind
from crank.domain.ids import LOCAL_TENANT
from crank.domain.rules.access import make_secret
from crank.domain.rules.exchange import ACCESS_TOKEN, BISCUIT
from tests.support.biscuits import Keys
from tests.support.desk import SECRET
from tests.support.tokens import DETAIL, PLACE, Agent, form, with_tokens
from tests.unit.api.conftest import check_problem

JOB = {"capability": "python.run.core", "code": "print('hi')"}
KEYS = Keys()
OWNER = {"Authorization": f"Bearer {SECRET}"}


@pytest.fixture
async def node(desk: Desk) -> Desk:
    """Give a desk with tokens of every kind."""
    found = with_tokens(desk)
    assert found.tokens is not None
    found.tokens.chains = BiscuitIssuer(KEYS)
    return found


@pytest.fixture
async def http(node: Desk):
    """Give a client of the API that shows nothing by itself."""
    app = build_api(node, version="0", more_names=["node.test"])
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=PLACE) as client:
        yield client


@pytest.fixture
def ann(http, node):
    """Give an agent with a key of its own."""
    return Agent(http, node)


@pytest.fixture
def bob(http, node):
    """Give another one."""
    return Agent(http, node)


@pytest.fixture
async def key(api):
    """Mint a key for an agent and return its secret."""
    return (await api.post("/v1/keys", json={"name": "claude"})).json()["secret"]


async def biscuit(agent: Agent, subject: str, **more: Any) -> str:
    """Return a Biscuit for what an agent shows."""
    answer = await agent.ask(form(subject, requested_token_type=BISCUIT, **more))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def pem(agent: Agent) -> bytes:
    """Return an agent's private key."""
    found: bytes = agent.holder.key.as_pem(private=True)
    return found


def holder_of(agent: Agent) -> Holder:
    """Return an agent as a token names it, with its key."""
    public = BiscuitHolder().holder(agent.holder.key.as_pem(private=False).decode())
    assert public.name == agent.holder.jkt
    return public


def passed(token: str, giver: Agent, taker: Agent, **leaves: Any) -> str:
    """Return a token that one agent passes on to another, without the node."""
    return BiscuitHolder().pass_on(token, leaves, holder_of(taker), pem(giver))


async def test_a_key_is_exchanged_for_a_biscuit_that_opens_the_same_door(ann, key, worker):
    """The answer says what it is; with its holder's proof it submits a job, as an access token would."""
    answer = await ann.ask(form(key, requested_token_type=BISCUIT, details=[{"identifier": "python.run.core"}]))
    body = answer.json()
    assert (body["issued_token_type"], body["token_type"], body["scope"]) == (BISCUIT, "DPoP", "python.run.core")
    assert looks_like_chain(body["access_token"])
    sent = await ann.use(body["access_token"], "POST", "/v1/jobs", json=JOB)
    assert sent.status_code == 202, sent.text
    job_id = sent.json()["job_id"]
    assert (await ann.use(body["access_token"], "GET", f"/v1/jobs/{job_id}")).status_code == 200


async def test_what_was_narrowed_opens_one_thing_and_nothing_else(ann, key, worker):
    """A token narrowed without the node runs the one capability that is left, and is refused everything else."""
    narrow = attenuate(await biscuit(ann, key), Narrowing(capabilities=("python.run.core",), calls_max=1))
    check_problem(
        await ann.use(narrow, "POST", "/v1/jobs", json={"capability": "document.convert", "args": {}}),
        403,
        "capability_not_granted",
    )
    assert (await ann.use(narrow, "POST", "/v1/jobs", json=JOB)).status_code == 202
    check_problem(await ann.use(narrow, "POST", "/v1/jobs", json=JOB), 403, "calls_spent")
    check_problem(await ann.use(narrow, "GET", "/v1/records"), 403, "owner_only")


async def test_who_it_was_passed_on_to_uses_it_and_sees_its_own(ann, bob, key, worker):
    """The next holder works in a space of its own; the giver's jobs are not there, and the giver cannot use that token."""
    mine = await biscuit(ann, key)
    own = (await ann.use(mine, "POST", "/v1/jobs", json=JOB)).json()["job_id"]
    theirs = passed(mine, ann, bob)
    sent = await bob.use(theirs, "POST", "/v1/jobs", json=JOB)
    assert sent.status_code == 202, sent.text
    check_problem(await bob.use(theirs, "GET", f"/v1/jobs/{own}"), 404, "job_not_found")
    check_problem(await ann.use(theirs, "GET", f"/v1/jobs/{own}"), 401, "invalid_token")
    check_problem(await bob.use(mine, "GET", f"/v1/jobs/{own}"), 401, "invalid_token")


async def test_a_token_without_its_key_is_worth_nothing(ann, bob, key):
    """Stolen bytes without a proof, as a bearer, or with another's proof are refused, at the gate and at the endpoint."""
    mine = await biscuit(ann, key)
    check_problem(await bob.use(mine, "GET", "/v1/jobs"), 401, "invalid_token")
    check_problem(await ann.use(mine, "GET", "/v1/jobs", prove=False), 401, "invalid_token")
    naked = await ann.http.get("/v1/jobs", headers={"Authorization": f"DPoP {mine}"})
    assert naked.status_code == 401
    stolen = await bob.ask(form(mine, subject_token_type=BISCUIT))
    assert stolen.json()["error"] in {"invalid_grant", "invalid_request"}


async def test_depth_is_asked_for_and_held_to(ann, bob, key):
    """A token that may not be passed on is not admitted from anybody it was passed on to."""
    mine = await biscuit(ann, key, depth="0")
    check_problem(await bob.use(passed(mine, ann, bob), "GET", "/v1/jobs"), 401, "invalid_token")


async def test_it_is_exchanged_for_a_narrower_access_token(ann, bob, key, node):
    """A Biscuit, narrowed or passed on, is as good a subject as any; what comes of it lies within it and below it."""
    theirs = passed(
        await biscuit(ann, key), ann, bob, authorization_details=[{"type": DETAIL, "identifier": "python.*"}]
    )
    answer = await bob.ask(form(theirs, subject_token_type=BISCUIT, scope="python.run.core"))
    body = answer.json()
    assert answer.status_code == 200, body
    assert (body["issued_token_type"], body["scope"]) == (ACCESS_TOKEN, "python.run.core")
    refused = await bob.ask(form(theirs, subject_token_type=BISCUIT, scope="document.convert"))
    assert refused.json()["code"] == "nothing_granted"
    grants = await node.store.read(lambda tx: tx.grants.page("local", limit=9, before=None))
    chain = await node.store.read(lambda tx: tx.grants.chain("local", grants[0].grant_id))
    assert [one.holder_jkt for one in chain] == [bob.holder.jkt, bob.holder.jkt, ann.holder.jkt]


async def test_its_holder_may_act_for_another(ann, bob, key, node):
    """As the actor's token it names who shall act, and what comes of it is bound to the actor's own key."""
    theirs = passed(await biscuit(ann, key), ann, bob)
    answer = await ann.ask(form(key, actor_token=theirs, actor_token_type=BISCUIT))
    assert answer.status_code == 200, answer.text
    told = (await ann.http.post("/v1/token/introspect", data={"token": answer.json()["access_token"]}, headers=OWNER)).json()
    assert told["cnf"] == {"jkt": bob.holder.jkt}
    assert bob.holder.jkt in told["act"]["sub"]
    named = BiscuitHolder().pass_on(await biscuit(ann, key), {}, Holder("spiffe://test.internal/agent/x"), pem(ann))
    refused = await ann.ask(form(key, actor_token=named, actor_token_type=BISCUIT))
    assert refused.json()["code"] == "unsupported_token_type"


async def test_a_hop_is_revoked_before_it_was_ever_shown(ann, bob, http, key):
    """Its giver or the owner ends one hop by showing it; the first token lives, and the hop opens nothing from then on."""
    mine = await biscuit(ann, key)
    theirs = passed(mine, ann, bob)
    assert (await http.post("/v1/token/revoke", data={"token": theirs}, headers=OWNER)).status_code == 200
    check_problem(await bob.use(theirs, "GET", "/v1/jobs"), 401, "invalid_token")
    assert (await ann.use(mine, "GET", "/v1/jobs")).status_code == 200
    beside = passed(mine, ann, bob)
    assert (await bob.use(beside, "GET", "/v1/jobs")).status_code == 200
    assert (await ann.use(mine, "POST", "/v1/token/revoke", data={"token": mine})).status_code == 200
    for agent, token in ((ann, mine), (bob, beside)):
        check_problem(await agent.use(token, "GET", "/v1/jobs"), 401, "invalid_token")


async def test_introspection_tells_what_is_left(ann, bob, api, key):
    """Whoever may know is told the rights of the last hop; a stranger is told nothing."""
    theirs = passed(await biscuit(ann, key), ann, bob, authorization_details=[{"type": DETAIL, "identifier": "a.b"}])
    told = (await ann.http.post("/v1/token/introspect", data={"token": theirs}, headers=OWNER)).json()
    assert (told["active"], told["scope"], told["cnf"]) == (True, "a.b", {"jkt": bob.holder.jkt})
    other = (await api.post("/v1/keys", json={"name": "other"})).json()["secret"]
    stranger = {"Authorization": f"Bearer {other}"}
    answer = await ann.http.post("/v1/token/introspect", data={"token": theirs}, headers=stranger)
    assert answer.json() == {"active": False}


async def test_who_only_looks_uses_nothing_up(ann, bob, api, key, node, monkeypatch):
    """Hops that nobody proved the key of are not kept, whoever asks about them: no stranger spends what a token may become."""
    monkeypatch.setattr(hop_count, "HOPS_MAX", 1)
    mine = await biscuit(ann, key)
    kept = await node.store.read(lambda tx: len(tx.grants.page(LOCAL_TENANT, limit=100, before=None)))
    other = (await api.post("/v1/keys", json={"name": "other"})).json()["secret"]
    for secret in (other, SECRET):
        for _ in range(3):
            shown = {"token": passed(mine, ann, bob)}
            asked = await ann.http.post("/v1/token/introspect", data=shown, headers={"Authorization": f"Bearer {secret}"})
            assert asked.status_code == 200
    theirs = {"token": passed(mine, ann, bob)}
    gone = await ann.http.post("/v1/token/revoke", data=theirs, headers={"Authorization": f"Bearer {other}"})
    assert gone.status_code == 200
    assert await node.store.read(lambda tx: len(tx.grants.page(LOCAL_TENANT, limit=100, before=None))) == kept
    assert (await bob.use(passed(mine, ann, bob), "GET", "/v1/jobs")).status_code == 200


async def test_it_is_asked_for_with_a_key_and_for_oneself(ann, bob, key):
    """Without a proven key, or for somebody whose key nobody knows, no Biscuit is made."""
    for answer in (
        await ann.ask(form(key, requested_token_type=BISCUIT), prove=False),
        await ann.ask(form(key, requested_token_type=BISCUIT, holder_jkt=bob.holder.jkt)),
    ):
        assert answer.status_code == 400
        assert answer.json()["code"] == "holder_key_missing"
    other = await ann.ask(form(key, requested_token_type="urn:ietf:params:oauth:token-type:saml2"))
    assert other.json()["code"] == "invalid_field"


async def test_a_busy_machine_answers_503_and_decides_nothing(ann, key, node):
    """Where the evaluator's time runs out, callers are told to come again; a minute later the same token passes."""
    mine = await biscuit(ann, key)
    calm, node.tokens.chains = node.tokens.chains, BiscuitIssuer(KEYS, evaluation_sec=0.0)
    answer = await ann.use(mine, "GET", "/v1/jobs")
    check_problem(answer, 503, "token_check_limit")
    assert int(answer.headers["retry-after"]) > 0
    node.tokens.chains = calm
    assert (await ann.use(mine, "GET", "/v1/jobs")).status_code == 200


async def test_keys_are_where_the_metadata_says(http, node):
    """Others find the public keys, with the number that a token names its key by."""
    metadata = (await http.get("/.well-known/oauth-authorization-server")).json()
    keys = (await http.get(metadata["crank_biscuit_jwks_uri"].removeprefix(PLACE))).json()["keys"]
    assert keys == list(node.tokens.chains.public_keys())
    assert {"kid", "root_key_id", "x", "y"} <= set(keys[0])
    assert "d" not in keys[0]


async def test_where_none_are_made_a_sentence_says_why(ann, key, node):
    """A node whose keys are in an HSM refuses to make one, with the setting that changes it, and takes none."""
    made = await biscuit(ann, key)
    node.tokens.chains = None
    answer = await ann.ask(form(key, requested_token_type=BISCUIT))
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (
        400, "not_supported", "requested_token_type",
    )  # fmt: skip
    assert "CRANK_BISCUIT_KEYS_IN_FILES=true" in answer.json()["fix"]
    assert (await ann.use(made, "GET", "/v1/jobs")).status_code == 401
    assert (await ann.http.get("/v1/jwks/biscuit")).json()["keys"] == []
    assert (await ann.ask(form(key))).status_code == 200


async def test_secrets_of_keys_are_not_taken_for_biscuits(ann, key, node):
    """A secret as the node makes it, and a long one of an owner's own, still open what they opened."""
    for _ in range(1000):
        assert not looks_like_chain(make_secret(CredentialKind.API, secrets.token_urlsafe(32)))
    assert not any(looks_like_chain(secrets.token_urlsafe(375)) for _ in range(100))
    # The first byte alone, the first two marks: not enough.
    for head in (b"\x08" * 15, b"\x08\x01\x12\x05\x0b", b"\x08\xff\xff\xff\xff\xff\x12\x01\x0a", b"\x08\x01\x12\xff" * 4):
        assert not looks_like_chain(base64.urlsafe_b64encode(head + bytes(400)).decode())
    assert (await ann.http.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"})).status_code == 200
    for noise in ("CAE", "C" * 400, "CK3i1i4S" + "!" * 400, "é" * 400):
        assert not looks_like_chain(noise) or (await ann.use(noise, "GET", "/v1/jobs")).status_code == 401


async def test_the_issuers_own_key_makes_no_grant(ann, node):
    """A token of the right key for a grant that the store does not have, or that was made for another, opens nothing."""
    issuer = node.tokens.chains
    point = point_of(KEYS.signing().public_key())
    assert point
    claims = {
        "iss": PLACE,
        "aud": PLACE,
        "sub": "local",
        "jti": node.ids.uuid7(),
        "iat": ann.now_sec,
        "nbf": ann.now_sec,
    }
    forged = issuer.mint(
        {**claims, "exp": ann.now_sec + 60, "cnf": {"jkt": ann.holder.jkt}, "authorization_details": []}, holder_of(ann)
    )
    check_problem(await ann.use(forged, "GET", "/v1/jobs"), 401, "invalid_token")

"""Attacks on authority that travels: what is stolen, forged, replayed or widened opens nothing."""

import asyncio
from dataclasses import replace

import httpx2
import pytest
from joserfc.jwk import ECKey

from crank.adapters.clock import SystemIdSource
from crank.adapters.jose import JoseTokens
from crank.adapters.json_schema import JsonSchemaChecker
from crank.api.app import build_api
from crank.bootstrap.federation import open_trust
from crank.controller import proof_window
from crank.controller.identities import revoke_identity
from crank.controller.proof_window import ProofWindow
from crank.domain.grant import Right
from crank.domain.role import Role
from crank.domain.session import SessionState
from crank.errors import NotAuthenticated
from crank.testing.fake_tokens import public_jwk, sign
from crank.testing.fakes import FakeClock
from crank.testing.memory_authority import MemoryAuthority
from crank.testing.samples import sample_session
from crank.wire import VERSION_MAX, Started
from tests.support.desk import SECRET, TRUST_DOMAIN, ScriptedWorker, open_desk
from tests.support.tokens import PLACE, TOKEN_URL, Agent, ath, form, with_tokens
from tests.unit.api.conftest import CORE, check_problem

OWNER = {"Authorization": f"Bearer {SECRET}"}
JOB = {"capability": "python.run.core", "code": "print('hi')"}
ONCE = Role("once", "Five calls.", (Right("python.*", calls_max=5),), 300, 300, 1, ("owner",))
AGENTS = Role(
    "agents", "Workloads.", (Right("python.*"),), 300, 0, 0,
    identities=(f"spiffe://{TRUST_DOMAIN}/agent/*",), key="owner",
)  # fmt: skip
NOW_US = 1_800_000_000_000_000


@pytest.fixture
def clock():
    """Give a clock that a test turns."""
    return FakeClock(now_us=NOW_US)


@pytest.fixture
def authority(clock):
    """Give the authority that signs both kinds of tokens."""
    return MemoryAuthority(TRUST_DOMAIN, clock, SystemIdSource())


@pytest.fixture
async def desk(tmp_path, clock, authority):
    """Give a desk with tokens, whose time a test turns."""
    async with open_desk(tmp_path) as opened:
        trust = open_trust(authority, clock)
        yield replace(with_tokens(opened, clock=clock, keys=authority, once=ONCE, agents=AGENTS), trust=trust)


@pytest.fixture
async def http(desk):
    """Give a client of the API that shows nothing by itself."""
    app = build_api(desk, version="0", more_names=["node.test"])
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=PLACE) as client:
        yield client


@pytest.fixture
def agent(http, desk):
    """Give whoever is robbed."""
    return Agent(http, desk)


@pytest.fixture
def thief(http, desk):
    """Give whoever has everything but the other's key."""
    return Agent(http, desk)


@pytest.fixture
async def worker(desk):
    """Give a connected worker."""
    scripted = ScriptedWorker(desk, "w1", [CORE])
    await scripted.connect()
    return scripted


async def claims_of(authority, token, **more):
    """Return a token of the same authority with other claims: a forgery that only a stolen signing key could make."""
    claims = JoseTokens(authority.access_token_keys, typ="at+jwt").read(token)
    return authority.sign_access_token({**claims, **more})


# --- constraints and code ------------------------------------------------------------------------

BOUND = [{"identifier": "*", "constraints": [{"properties": {"n": {"maximum": 3}}, "maxProperties": 1}]}]


@pytest.mark.parametrize(
    "carried",
    [
        {"code": "import os"},
        {"code": "import os", "args": {}},
        {"code": "", "args": {"n": 1}},
        {"program": ["python", "-c", "import os"]},
        {"program": ["python", "-"], "stdin": True},
        {"stdin": True},
    ],
)
async def test_a_right_with_constraints_lets_no_code_through(agent, desk, carried):
    """A schema of args says nothing of a script, a program or a stdin, so none of them comes by it, whatever the args."""
    await ScriptedWorker(desk, "w1", [CORE], version=VERSION_MAX).connect()
    token = await agent.token(details=BOUND)
    sent = await agent.use(token, "POST", "/v1/jobs", json={"capability": "python.run.core", **carried})
    assert check_problem(sent, 403, "code_not_granted")["field"] == "code"
    records = await desk.store.read(lambda tx: [one for _, one in tx.records.page(job_id=None, after=0, limit=99)])
    kinds = [(one.kind, one.facts.get("action")) for one in records]
    assert ("access.refused", "code_not_granted") in kinds
    assert "job.submitted" not in [kind for kind, _ in kinds]


async def test_constraints_still_let_a_function_through_and_bound_its_args(agent, desk):
    """What takes args alone is called with those that satisfy them; a right without constraints beside goes on for code."""
    count = replace(CORE, name="text.count", env_profile=None, profile_digest=None, input_schema={"type": "object"})
    await ScriptedWorker(desk, "w1", [CORE, count]).connect()
    token = await agent.token(details=[*BOUND, {"identifier": "python.run.core", "calls_max": 1}])
    for args, status in (({"n": 3}, 202), ({"n": 4}, 403), ({"x": 1, "n": 1}, 403)):
        sent = await agent.use(token, "POST", "/v1/jobs", json={"capability": "text.count", "args": args})
        assert sent.status_code == status, sent.text
    assert (await agent.use(token, "POST", "/v1/jobs", json=JOB)).status_code == 202
    check_problem(await agent.use(token, "POST", "/v1/jobs", json=JOB), 403, "calls_spent")


async def test_a_right_with_constraints_opens_no_session_and_uses_none(agent, desk, worker):
    """Whoever uses a session sends code; one of the same space that another token opened is not even there."""
    token, whole = await agent.token(details=BOUND), await agent.token()
    opened = await agent.use(token, "POST", "/v1/sessions", json={"capability": "python.run.core"})
    check_problem(opened, 403, "code_not_granted")
    session = sample_session(desk.ids.uuid7())
    (space,) = {one.space for one in await desk.store.read(lambda tx: tx.grants.page("local", limit=9, before=None))}
    session = replace(session, request=replace(session.request, mounts=()), state=SessionState.OPEN, owner=space)
    await desk.store.transact(lambda tx: tx.sessions.insert(session))
    path = f"/v1/sessions/{session.session_id}"
    assert (await agent.use(whole, "GET", path)).status_code == 200
    check_problem(await agent.use(token, "GET", path), 404, "session_not_found")
    sent = await agent.use(token, "POST", "/v1/jobs", json={"session": session.session_id, "code": "1"})
    check_problem(sent, 404, "session_not_found")


async def test_a_right_with_constraints_writes_nothing_to_the_stdin_of_a_job_beside_it(agent, desk):
    """A program that another token of the same space began may run what it reads: that job is not there for it."""
    worker = ScriptedWorker(desk, "w1", [CORE], version=VERSION_MAX)
    await worker.connect()
    whole, token = await agent.token(), await agent.token(details=BOUND)
    job = {"capability": "python.run.core", "program": ["python", "-"], "stdin": True}
    job_id = (await agent.use(whole, "POST", "/v1/jobs", json=job)).json()["job_id"]
    lease = await worker.lease()
    await worker.say(Started(lease.job_id, lease.epoch))
    written = await agent.use(token, "POST", f"/v1/jobs/{job_id}/stdin", json={"text": "import os"})
    check_problem(written, 404, "job_not_found")


# --- costly ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["^(aa?)+$", "^(a|a){60}b", "(?=(a?){60}b)x"])
async def test_a_holder_writes_no_constraint_that_would_hold_the_node_up(agent, pattern):
    """A pattern that tries for ever is refused when it is asked for, whatever the holder would send it as args."""
    answer = await agent.ask(form(details=[{"identifier": "*", "constraints": [{"properties": {"x": {"pattern": pattern}}}]}]))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_authorization_details")


async def test_many_slow_constraints_end_together(agent, clock, desk, worker):
    """However many constraints a holder writes down, the time that they take together is bounded."""

    class Slow(JsonSchemaChecker):
        def check(self, schema, value, *, field):
            clock.advance(2.0)
            return super().check(schema, value, field=field)

    details = [{"identifier": "*", "constraints": [{"maxProperties": at} for at in range(1, 9)]}]
    token = await agent.token(details=details)
    body = {"capability": "text.count", "args": {}}
    slow = build_api(replace(desk, schemas=Slow()), version="0", more_names=["node.test"])
    transport = httpx2.ASGITransport(app=slow, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=PLACE) as client:
        agent.http = client
        check_problem(await agent.use(token, "POST", "/v1/jobs", json=body), 422, "args_too_costly")


# --- stolen --------------------------------------------------------------------------------------


@pytest.mark.must("Forgery 3")
async def test_a_stolen_token_without_its_key_opens_nothing(agent, thief):
    """As a bearer, with the thief's own proof, and with a proof of the victim's for another request."""
    token = await agent.token()
    check_problem(await thief.use(token, "GET", "/v1/jobs", prove=False), 401, "invalid_token")
    check_problem(await thief.use(token, "GET", "/v1/jobs"), 401, "invalid_token")
    seen = agent.proof("GET", f"{PLACE}/v1/keys/self", token)
    replayed = await thief.use(token, "GET", "/v1/jobs", headers={"DPoP": seen})
    check_problem(replayed, 401, "invalid_dpop_proof")
    assert (await agent.use(token, "GET", "/v1/jobs")).status_code == 200


@pytest.mark.must("Forgery 3")
async def test_a_stolen_token_is_not_exchanged_for_one_of_the_thiefs(agent, thief):
    """Neither with the thief's proof nor with none, nor as somebody's actor."""
    token = await agent.token(depth=1)
    for prove in (True, False):
        answer = await thief.ask(form(token, holder_jkt=thief.holder.jkt), prove=prove)
        assert answer.status_code == 400
        assert answer.json()["code"] == "invalid_token"
    mine = await thief.token()
    assert (await thief.ask(form(token, actor=mine))).json()["code"] == "invalid_token"


async def test_a_proof_counts_once(agent, desk):
    """The same proof a second time is refused: at the token endpoint, at the API, and while the cache knows the token."""
    proof = agent.proof("POST", TOKEN_URL)
    first = await agent.http.post("/v1/token", data=form(), headers={"DPoP": proof})
    again = await agent.http.post("/v1/token", data=form(), headers={"DPoP": proof})
    assert (first.status_code, again.status_code) == (200, 400)
    assert again.json()["error"] == "invalid_dpop_proof"
    token = first.json()["access_token"]
    used = agent.proof("GET", f"{PLACE}/v1/jobs", token)
    codes = [(await agent.use(token, "GET", "/v1/jobs", headers={"DPoP": used})).status_code for _ in range(2)]
    assert codes == [200, 401]
    # Nothing was made for the one that was refused.
    assert len(await desk.store.read(lambda tx: list(tx.grants.page("local", limit=9, before=None)))) == 1


@pytest.mark.must("Forgery 7")
@pytest.mark.parametrize("sec", [-300, -61, 61, 300])
async def test_a_proof_of_another_time_is_refused(agent, sec):
    """Five minutes off, or just over one, in either direction."""
    token = await agent.token()
    stale = agent.proof("GET", f"{PLACE}/v1/jobs", token, iat=agent.now_sec + sec)
    check_problem(await agent.use(token, "GET", "/v1/jobs", headers={"DPoP": stale}), 401, "invalid_dpop_proof")


@pytest.mark.parametrize(
    "wrong",
    [
        {"htm": "POST"},
        {"htu": f"{PLACE}/v1/keys"},
        {"htu": "https://evil.example/v1/jobs"},
        {"ath": ath("another")},
        {"ath": None},
        {"jti": ""},
    ],
)
async def test_a_proof_for_something_else_is_refused(agent, wrong):
    """Another method, address or token, or no id."""
    token = await agent.token()
    proof = agent.proof("GET", f"{PLACE}/v1/jobs", token, **wrong)
    check_problem(await agent.use(token, "GET", "/v1/jobs", headers={"DPoP": proof}), 401, "invalid_dpop_proof")


async def test_a_host_of_the_thiefs_choice_makes_no_proof_good(agent, thief):
    """A proof that was made for another server is not replayed here by sending that server's name along."""
    token = await agent.token()
    elsewhere = agent.proof("GET", "https://evil.example/v1/jobs", token)
    answer = await thief.use(token, "GET", "/v1/jobs", headers={"DPoP": elsewhere, "Host": "evil.example"})
    check_problem(answer, 401, "invalid_dpop_proof")


async def test_two_proofs_in_one_request_are_refused(agent):
    """Nobody may choose which of two is looked at."""
    token = await agent.token()
    proofs = [("DPoP", agent.proof("GET", f"{PLACE}/v1/jobs", token)) for _ in range(2)]
    answer = await agent.http.get("/v1/jobs", headers=[("Authorization", f"DPoP {token}"), *proofs])
    check_problem(answer, 401, "invalid_dpop_proof")


async def test_strangers_fill_no_memory_with_their_proofs(http, desk, thief, monkeypatch):
    """What comes with no good token is not remembered; one holder cannot use up the room of all; nothing is forgotten early."""
    for _ in range(5):
        await thief.ask(form("crank_wrong"))
        await thief.use("eyJ.x.y", "GET", "/v1/jobs")
    assert len(desk.tokens.seen) == 0
    monkeypatch.setattr(proof_window, "SEEN_OF_ONE_MAX", 2)
    token = await thief.token()
    assert (await thief.use(token, "GET", "/v1/jobs")).status_code == 200
    check_problem(await thief.use(token, "GET", "/v1/jobs"), 503, "too_many_proofs")
    assert (await Agent(http, desk).ask(form())).status_code == 200


async def test_a_proof_does_not_count_again_after_a_restart(agent, desk, clock):
    """A node that has just started knows no proof that was used before, so it believes none that is older than itself."""
    token = await agent.token()
    used = {"DPoP": agent.proof("GET", f"{PLACE}/v1/jobs", token)}
    assert (await agent.use(token, "GET", "/v1/jobs", headers=used)).status_code == 200
    clock.advance(2)
    desk.tokens.seen = ProofWindow(clock.now_us())
    check_problem(await agent.use(token, "GET", "/v1/jobs", headers=used), 401, "invalid_dpop_proof")
    assert (await agent.use(token, "GET", "/v1/jobs")).status_code == 200


async def test_room_comes_back_when_proofs_are_old(agent, desk, clock):
    """After their time nothing is kept of them."""
    token = await agent.token()
    await agent.use(token, "GET", "/v1/jobs")
    assert len(desk.tokens.seen) == 2
    clock.advance(200)
    await agent.token()
    assert len(desk.tokens.seen) == 1


# --- widened -------------------------------------------------------------------------------------


@pytest.mark.must("Forgery 5")
async def test_an_exchange_never_widens(agent):
    """Asked for more in any field, a token gives what it holds, or nothing."""
    held = {"identifier": "python.run.core", "calls_max": 2, "mounts": ["docs"], "budget_max": 5}
    token = await agent.token(details=[held], lifetime_sec=60, depth=0)
    for wanted in ({"identifier": "document.convert"}, {"identifier": "node.keys.change"}):
        assert (await agent.ask(form(token, details=[wanted]))).json()["error"] == "invalid_scope"
    more = {"identifier": "*", "calls_max": 9, "mounts": ["docs", "pics"], "budget_max": 50}
    answer = (await agent.ask(form(token, details=[more], lifetime_sec=600, depth=8, role="default"))).json()
    (got,) = answer["authorization_details"]
    assert {name: value for name, value in got.items() if name != "type"} == held
    assert answer["expires_in"] <= 60
    assert answer["depth_left"] == 0


async def test_a_role_never_adds_to_what_is_held(agent):
    """Assumed with a narrow token, the operator's role gives nothing of the node's own."""
    token = await agent.token(scope="python.*")
    answer = await agent.ask(form(token, role="operator", scope="node.keys.change"))
    assert answer.json()["code"] == "nothing_granted"


async def test_a_bound_token_never_becomes_a_bearer(agent, thief):
    """Its holder cannot loosen it, by itself or in somebody's name."""
    token = await agent.token(depth=1)
    key = await agent.http.post("/v1/keys", json={"name": "b"}, headers={"Authorization": f"Bearer {SECRET}"})
    for role in ({}, {"role": "default"}, {"role": "once"}):
        answer = await agent.ask(form(token, actor=key.json()["secret"], **role))
        assert answer.json()["code"] == "bearer_not_allowed"


@pytest.mark.must("Forgery 4")
async def test_it_is_not_passed_on_where_that_is_not_allowed(agent, thief):
    """Without depth neither a named key nor an actor gets one."""
    token = await agent.token(depth=0)
    assert (await agent.ask(form(token, holder_jkt=thief.holder.jkt))).json()["code"] == "delegation_not_allowed"
    key = await agent.http.post("/v1/keys", json={"name": "b"}, headers={"Authorization": f"Bearer {SECRET}"})
    others = await thief.token(key.json()["secret"])
    assert (await agent.ask(form(token, actor=others))).json()["code"] == "delegation_not_allowed"


async def test_an_act_chain_is_never_taken_from_a_request(agent, thief, authority):
    """A chain in claims that somebody wrote is not copied: it is made of the grants that are stored."""
    key = await agent.http.post("/v1/keys", json={"name": "b"}, headers={"Authorization": f"Bearer {SECRET}"})
    theirs = await thief.token(key.json()["secret"])
    forged = await claims_of(authority, theirs, act={"sub": "spiffe://test.internal/agent/boss"})
    given = await agent.token(await agent.token(depth=1), actor=forged)
    told = (await thief.use(given, "POST", "/v1/token/introspect", data={"token": given})).json()
    assert told["act"]["sub"].startswith("key:b/")
    assert "act" not in told["act"]


async def test_an_actor_that_is_not_proven_is_not_named(agent, thief):
    """A deputy cannot be made to act in the name of somebody whose credential was not shown."""
    token = await agent.token(depth=1)
    for actor in ("crank_unknown", "eyJ.a.b"):
        answer = await agent.ask(form(token, actor=actor))
        assert answer.status_code in (400, 401)
        assert answer.json()["code"] in ("not_authenticated", "invalid_token")


async def test_claims_that_contradict_the_grant_are_refused(agent, authority):
    """Even a token that our own key signed says nothing that its grant does not: another holder, subject or end."""
    token = await agent.token()
    for more in ({"sub": "other"}, {"exp": NOW_US // 1_000_000 + 86_400}, {"jti": agent.desk.ids.uuid7()}):
        forged = await claims_of(authority, token, **more)
        check_problem(await agent.use(forged, "GET", "/v1/jobs"), 401, "invalid_token")
    loose = await claims_of(authority, token, cnf={"jkt": "A" * 43})
    check_problem(await agent.use(loose, "GET", "/v1/jobs"), 401, "invalid_token")


async def test_rights_in_claims_are_not_what_is_enforced(agent, authority, worker):
    """More rights in a forged token give none: the store's are asked."""
    token = await agent.token(scope="document.*")
    forged = await claims_of(
        authority, token, authorization_details=[{"type": "urn:crank:capability", "identifier": "*"}], scope="*"
    )
    check_problem(await agent.use(forged, "POST", "/v1/jobs", json=JOB), 403, "capability_not_granted")


# --- another time, place or kind -----------------------------------------------------------------


@pytest.mark.parametrize("sec", [-300, 301, 900])
async def test_a_token_is_good_in_its_time_alone(agent, clock, sec):
    """Five minutes before it was made by the verifier's clock, and after its end, it opens nothing."""
    token = await agent.token(role="once")
    clock.jump_wall(sec)
    check_problem(await agent.use(token, "GET", "/v1/jobs"), 401, "invalid_token")


async def test_a_token_ends_on_time_where_it_is_remembered(agent, clock):
    """The cache keeps no token past its end, and the leeway for clocks adds nothing to a grant."""
    token = await agent.token(lifetime_sec=30)
    assert (await agent.use(token, "GET", "/v1/jobs")).status_code == 200
    clock.advance(31)
    check_problem(await agent.use(token, "GET", "/v1/jobs"), 401, "invalid_token")


@pytest.mark.parametrize(
    "claim", [{"aud": "https://other.example"}, {"iss": "https://other.example"}, {"aud": [PLACE]}]
)
async def test_a_token_for_or_by_another_opens_nothing(agent, authority, claim):
    """Another node's audience and issuer, signed by our key all the same."""
    token = await claims_of(authority, await agent.token(), **claim)
    check_problem(await agent.use(token, "GET", "/v1/jobs"), 401, "invalid_token")


async def test_a_token_of_another_authority_opens_nothing(agent, clock):
    """The same claims signed elsewhere: no key of this node has that kid."""
    stranger = MemoryAuthority(TRUST_DOMAIN, clock, SystemIdSource())
    token = await agent.token()
    claims = JoseTokens(agent.desk.tokens.signer.access_token_keys, typ="at+jwt").read(token)
    check_problem(await agent.use(stranger.sign_access_token(claims), "GET", "/v1/jobs"), 401, "invalid_token")


async def test_an_identity_is_no_token_and_a_token_no_identity(agent, authority):
    """A JWT-SVID with a token's claims is refused, by its key and its typ; a token's key is in no bundle of identities."""
    token = await agent.token()
    claims = JoseTokens(authority.access_token_keys, typ="at+jwt").read(token)
    svid = authority.sign_jwt_svid(claims)
    check_problem(await agent.use(svid, "GET", "/v1/jobs"), 401, "invalid_token")
    assert (await agent.ask(form(svid))).json()["code"] == "invalid_token"
    identities = {one.kid for one in authority.bundle().jwt_authorities}
    assert identities.isdisjoint({key["kid"] for key in authority.access_token_keys()})
    with pytest.raises(NotAuthenticated):
        JoseTokens(lambda: [one.jwk for one in authority.bundle().jwt_authorities], typ="JWT").read(token)


def svid_of(authority, clock, identity, **more):
    """Return a JWT-SVID for this node, a minute long."""
    claims = {"sub": identity, "aud": [PLACE], "exp": clock.now_us() // 1_000_000 + 60, **more}
    return authority.sign_jwt_svid(claims)


def as_identity(svid, **more):
    """Return the fields of an exchange of a JWT-SVID."""
    return {**form(svid, **more), "subject_token_type": "urn:ietf:params:oauth:token-type:jwt"}


async def test_a_workload_acts_by_the_role_that_names_it_and_sees_its_own_alone(agent, thief, authority, clock, worker):
    """Its JWT-SVID is exchanged under its role, in its own name; another workload has neither role nor sight of it."""
    mine = svid_of(authority, clock, f"spiffe://{TRUST_DOMAIN}/agent/a")
    body = (await agent.ask(as_identity(mine, role="agents"))).json()
    told = await agent.use(body["access_token"], "POST", "/v1/token/introspect", data={"token": body["access_token"]})
    assert told.json()["sub"] == f"spiffe://{TRUST_DOMAIN}/agent/a"
    sent = await agent.use(body["access_token"], "POST", "/v1/jobs", json=JOB)
    assert sent.status_code == 202, sent.text
    second = svid_of(authority, clock, f"spiffe://{TRUST_DOMAIN}/agent/b")
    theirs = (await thief.ask(as_identity(second, role="agents"))).json()["access_token"]
    assert (await thief.use(theirs, "GET", f"/v1/jobs/{sent.json()['job_id']}")).status_code == 404
    for identity, role in (("worker/w1", "agents"), ("agent/a", "default"), ("agentx/a", "agents")):
        refused = await thief.ask(as_identity(svid_of(authority, clock, f"spiffe://{TRUST_DOMAIN}/{identity}"), role=role))
        assert refused.json()["code"] == "role_not_allowed"


@pytest.mark.parametrize("wrong", [{"aud": ["https://other.example"]}, {"exp": 1}, {"aud": []}])
async def test_an_identity_for_others_or_of_yesterday_is_exchanged_for_nothing(agent, authority, clock, wrong):
    """The standard's rules of a JWT-SVID hold at the token endpoint, too; so does the kind that is said."""
    svid = svid_of(authority, clock, f"spiffe://{TRUST_DOMAIN}/agent/a", **wrong)
    assert (await agent.ask(as_identity(svid, role="agents"))).json()["code"] == "invalid_jwt_svid"
    token = await agent.token()
    assert (await agent.ask(as_identity(token, role="agents"))).json()["code"] == "invalid_jwt_svid"


THEIRS = "two.test"
FRIEND = f"spiffe://{THEIRS}/agent/a"
FRIENDS = Role(
    "friends", "One workload of another domain.", (Right("python.*"),), 300, 0, 0, identities=(FRIEND,), key="owner"
)


@pytest.fixture
def foreign(desk, clock):
    """Give another domain's authority, with which this node is federated."""
    made = MemoryAuthority(THEIRS, clock, SystemIdSource())
    desk.trust.bundles.put(made.bundle(), 2**62)
    return made


async def test_a_federated_workload_acts_by_the_role_that_names_it_and_by_no_other(agent, foreign, clock, desk):
    """Its JWT-SVID is exchanged under that role, in its own name, until the federation ends; under any other it is refused."""
    desk.tokens.roles["friends"] = FRIENDS
    fields = as_identity(svid_of(foreign, clock, FRIEND), role="friends")
    token = (await agent.ask(fields)).json()["access_token"]
    told = await agent.use(token, "POST", "/v1/token/introspect", data={"token": token})
    assert told.json()["sub"] == FRIEND
    assert (await agent.use(token, "GET", "/v1/jobs")).status_code == 200
    # Neither a role for our own workloads of the same path, nor that which is taken when none is named.
    for more in ({"role": "agents"}, {"role": "default"}, {}):
        refused = await agent.ask(as_identity(svid_of(foreign, clock, FRIEND), **more))
        assert refused.json()["code"] == "role_not_allowed", more
    stranger = svid_of(foreign, clock, f"spiffe://{THEIRS}/agent/b")
    assert (await agent.ask(as_identity(stranger, role="friends"))).json()["code"] == "role_not_allowed"
    desk.trust.bundles.drop(THEIRS)
    assert (await agent.ask(fields)).json()["code"] == "invalid_jwt_svid"


async def test_a_federated_domain_signs_for_no_name_but_its_own(agent, authority, foreign, clock, desk):
    """Federation 4.2: a JWT-SVID in our name, or a third domain's, by a federated domain's key is refused, and so is theirs by ours."""
    desk.tokens.roles["friends"] = FRIENDS
    third = MemoryAuthority("three.test", clock, SystemIdSource())
    desk.trust.bundles.put(third.bundle(), 2**62)
    ours = f"spiffe://{TRUST_DOMAIN}/agent/a"
    assert (await agent.ask(as_identity(svid_of(authority, clock, ours), role="agents"))).status_code == 200
    for signer, identity, role in (
        (foreign, ours, "agents"), (third, FRIEND, "friends"), (authority, FRIEND, "friends"),
    ):  # fmt: skip
        refused = await agent.ask(as_identity(svid_of(signer, clock, identity), role=role))
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_jwt_svid"), identity


async def test_a_revoked_identity_takes_its_tokens_with_it(agent, thief, authority, clock, desk, worker):
    """What a workload was given for its identity, and what it passed on, ends with that, and so does what runs by it."""
    name = f"spiffe://{TRUST_DOMAIN}/agent/a"
    held = (await agent.ask(as_identity(svid_of(authority, clock, name), role="agents"))).json()["access_token"]
    narrowed = (await agent.ask(form(held))).json()["access_token"]
    other = svid_of(authority, clock, f"spiffe://{TRUST_DOMAIN}/agent/b")
    theirs = (await thief.ask(as_identity(other, role="agents"))).json()["access_token"]
    sent = await agent.use(held, "POST", "/v1/jobs", json=JOB)
    await revoke_identity(desk, name, reason="stolen", subject="owner")
    for token in (held, narrowed):
        check_problem(await agent.use(token, "GET", "/v1/jobs"), 401, "invalid_token")
        assert (await agent.ask(form(token))).json()["code"] == "invalid_token"
    assert (await thief.use(theirs, "GET", "/v1/jobs")).status_code == 200
    job = await desk.store.read(lambda tx: tx.jobs.find("local", sent.json()["job_id"]))
    assert job.cancel_requested or job.end is not None


async def test_a_revocation_outruns_an_exchange_that_was_begun(agent, authority, clock, desk, monkeypatch):
    """An identity that is revoked while its token is being made gets none that lives."""
    name = f"spiffe://{TRUST_DOMAIN}/agent/a"
    transact = desk.store.transact

    async def revoke_first(work):
        monkeypatch.undo()
        await revoke_identity(desk, name, reason="stolen", subject="owner")
        return await transact(work)

    asked = as_identity(svid_of(authority, clock, name), role="agents")
    monkeypatch.setattr(desk.store, "transact", revoke_first)
    assert (await agent.ask(asked)).status_code in (400, 401)
    assert not await desk.store.read(lambda tx: tx.grants.of_party(name, alive_at_us=0))


async def test_a_withdrawn_signing_key_ends_its_tokens(agent, authority, desk):
    """What the old key signed is refused as soon as the key is withdrawn and the memory of it is void."""
    token = await agent.token()
    authority.change_keys(keep_old=False)
    desk.keyring.changed()
    check_problem(await agent.use(token, "GET", "/v1/jobs"), 401, "invalid_token")


async def test_a_token_by_the_holders_own_key_is_nobodys(agent):
    """A holder signs claims of its own with the key that it proves, and brings that key along."""
    token = await agent.token()
    own = sign(
        agent.holder.key, {"typ": "at+jwt", "kid": agent.holder.jkt}, {"sub": "local", "cnf": {"jkt": agent.holder.jkt}}
    )
    check_problem(await agent.use(own, "GET", "/v1/jobs"), 401, "invalid_token")
    fresh = ECKey.generate_key("P-256")
    brought = sign(fresh, {"typ": "at+jwt", "jwk": public_jwk(fresh)}, {"sub": "local"})
    check_problem(await agent.use(brought, "GET", "/v1/jobs"), 401, "invalid_token")
    assert (await agent.use(token, "GET", "/v1/jobs")).status_code == 200


# --- ended and raced -----------------------------------------------------------------------------


async def test_a_revoked_parent_ends_what_was_made_of_it_in_mid_request(agent, thief, desk, worker):
    """The child's next transaction is refused though its gate remembers it, and no exchange revives it."""
    first = await agent.token(depth=1)
    given = await agent.token(first, holder_jkt=thief.holder.jkt)
    assert (await thief.use(given, "GET", "/v1/jobs")).status_code == 200
    parent = (await desk.store.read(lambda tx: list(tx.grants.page("local", limit=9, before=None))))[-1]
    # As another process would: without a word to the gate's memory.
    await desk.store.transact(lambda tx: tx.grants.revoke("local", parent.grant_id, desk.clock.now_us()))
    check_problem(await thief.use(given, "POST", "/v1/jobs", json=JOB), 401, "not_authenticated")
    assert (await thief.ask(form(given))).json()["code"] == "invalid_token"


async def test_fifty_racing_submits_never_pass_the_count(agent, thief, worker):
    """Through the parent and two children at once, five calls are five calls."""
    first = await agent.token(role="once", depth=1)
    tokens = [
        (agent, first),
        (agent, await agent.token(first)),
        (thief, await agent.token(first, holder_jkt=thief.holder.jkt)),
    ]
    sent = await asyncio.gather(
        *(who.use(token, "POST", "/v1/jobs", json=JOB) for number in range(50) for who, token in [tokens[number % 3]])
    )
    assert sum(one.status_code == 202 for one in sent) == 5
    assert {one.json()["code"] for one in sent if one.status_code == 403} == {"calls_spent"}


async def test_a_revocation_races_an_exchange_and_nothing_survives(agent, desk):
    """Whatever comes first, no living grant is left below a revoked one."""
    first = await agent.token()
    asked = [agent.ask(form(first)) for _ in range(20)]
    gone = agent.use(first, "POST", "/v1/token/revoke", data={"token": first})
    await asyncio.gather(*asked[:10], gone, *asked[10:])
    grants = await desk.store.read(lambda tx: list(tx.grants.page("local", limit=99, before=None)))
    assert all(grant.revoked_us is not None for grant in grants)


async def test_an_idempotency_key_of_one_holder_tells_another_nothing(agent, thief, worker):
    """The same key and the same body by two holders make two jobs, each its own."""
    first = await agent.token(depth=1)
    given = await agent.token(first, holder_jkt=thief.holder.jkt)
    same = {"Idempotency-Key": "same"}
    mine = await agent.use(first, "POST", "/v1/jobs", json=JOB, headers=same)
    theirs = await thief.use(given, "POST", "/v1/jobs", json=JOB, headers=same)
    assert mine.json()["job_id"] != theirs.json()["job_id"]
    assert "idempotency-replayed" not in theirs.headers


async def test_a_token_in_the_address_or_twice_is_not_looked_at(agent):
    """RFC 6750's other places are not read, and of two headers none is chosen."""
    token = await agent.token(prove=False)
    assert (await agent.http.get(f"/v1/jobs?access_token={token}")).status_code == 401
    twice = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    assert (await agent.http.get("/v1/jobs", headers=twice)).status_code == 401


async def test_nothing_secret_is_written_down(agent, desk, worker):
    """Neither token nor proof nor key is in any record."""
    token = await agent.token(role="once")
    await agent.use(token, "POST", "/v1/jobs", json=JOB)
    records = await desk.store.read(
        lambda tx: [replace(one) for _, one in tx.records.page(job_id=None, after=0, limit=99)]
    )
    text = repr(records)
    assert records
    assert SECRET not in text
    assert token.rpartition(".")[2] not in text

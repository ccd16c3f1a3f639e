"""The token endpoint: what is exchanged for what, in whose name, and what it opens."""

import asyncio
import base64
from dataclasses import replace

import httpx2
import pytest
from joserfc import jws
from joserfc.jwk import ECKey

from crank.api.app import build_api
from crank.domain.grant import Right
from crank.domain.json import dumps
from crank.domain.role import NodeCeiling, Role
from crank.testing.fake_tokens import public_jwk
from crank.testing.samples import sample_session
from tests.support.desk import ScriptedWorker
from tests.support.tokens import DETAIL, PLACE, TOKEN_URL, Agent, form, with_tokens
from tests.unit.api.conftest import CORE, check_problem

JOB = {"capability": "python.run.core", "code": "print('hi')"}
NARROW = Role("narrow", "One capability.", (Right("python.run.core", calls_max=2),), 120, 60, 0, ("claude", "owner"))


@pytest.fixture
async def node(desk):
    """Give a desk with tokens."""
    return with_tokens(desk, narrow=NARROW)


@pytest.fixture
async def http(node):
    """Give a client of the API that shows nothing by itself."""
    app = build_api(node, version="0", more_names=["node.test"])
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=PLACE) as client:
        yield client


@pytest.fixture
def agent(http, node):
    """Give an agent with a key of its own."""
    return Agent(http, node)


@pytest.fixture
def other(http, node):
    """Give another agent."""
    return Agent(http, node)


@pytest.fixture
async def key(api):
    """Mint a key for an agent and return its secret."""
    return (await api.post("/v1/keys", json={"name": "claude"})).json()["secret"]


def refused(answer: httpx2.Response, error: str, code: str, status: int = 400) -> None:
    """Assert OAuth's shape of refusal."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert (body["error"], body["code"]) == (error, code)
    assert body["error_description"].isascii()
    assert answer.headers["cache-control"] == "no-store"


async def test_a_key_is_exchanged_for_a_short_token_bound_to_the_agents_own_key(agent, key, worker):
    """The answer has all that RFC 8693 wants, and the token submits a job that its holder then sees."""
    answer = await agent.ask(form(key, details=[{"identifier": "python.run.core", "calls_max": 3}]))
    body = answer.json()
    assert answer.status_code == 200
    assert body["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("DPoP", 600, "python.run.core")
    assert body["authorization_details"] == [{"type": DETAIL, "identifier": "python.run.core", "calls_max": 3}]
    assert answer.headers["cache-control"] == "no-store"
    sent = await agent.use(body["access_token"], "POST", "/v1/jobs", json=JOB)
    assert sent.status_code == 202, sent.text
    job_id = sent.json()["job_id"]
    assert (await agent.use(body["access_token"], "GET", f"/v1/jobs/{job_id}")).json()["job_id"] == job_id
    own = (await agent.use(body["access_token"], "GET", "/v1/keys/self")).json()
    assert own["kind"] == "api"


async def test_a_bearer_is_given_for_a_shorter_time_where_the_role_says_so(agent, key, worker):
    """The default role lets a key have one for five minutes; the operator's role never does."""
    answer = await agent.ask(form(key), prove=False)
    assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("Bearer", 300)
    token = answer.json()["access_token"]
    assert (await agent.use(token, "POST", "/v1/jobs", prove=False, json=JOB)).status_code == 202
    refused(await agent.ask(form(role="operator"), prove=False), "invalid_request", "bearer_not_allowed")


async def test_no_token_passes_the_nodes_own_ceiling(agent, key, node):
    """Rights, time and depth end at what the operator lets pass, under a key's role and the owner's alike."""
    node.tokens.ceiling = NodeCeiling((Right("python.*"),), 60, 0)
    answer = (await agent.ask(form(key, lifetime_sec=600, depth=8))).json()
    assert (answer["expires_in"], answer["scope"], answer["depth_left"]) == (60, "python.*", 0)
    refused(await agent.ask(form(key, scope="document.convert")), "invalid_scope", "nothing_granted")
    refused(await agent.ask(form(role="operator", scope="node.keys.read")), "invalid_scope", "nothing_granted")


async def test_roles_bound_what_is_given_and_are_recorded(agent, key, node):
    """A role gives its own rights and time, to whom it names; assuming it leaves a record."""
    answer = (await agent.ask(form(key, role="narrow"))).json()
    assert (answer["expires_in"], answer["scope"], answer["depth_left"]) == (120, "python.run.core", 0)
    refused(await agent.ask(form(key, role="operator")), "unauthorized_client", "role_not_allowed")
    refused(await agent.ask(form(key, role="none")), "invalid_scope", "role_not_found")
    refused(await agent.ask(form(key, role="narrow", scope="document.convert")), "invalid_scope", "nothing_granted")
    records = await node.store.read(
        lambda tx: [record for _, record in tx.records.page(job_id=None, after=0, limit=99)]
    )
    assumed = [record for record in records if record.kind == "role.assumed"]
    assert [record.facts["role"] for record in assumed] == ["narrow"]
    assert assumed[0].subject.startswith("key:claude/")
    assert {"role_not_allowed", "role_not_found", "nothing_granted"} <= {
        record.facts["action"] for record in records if record.kind == "access.refused"
    }


async def test_only_what_is_the_owners_and_named_is_done_with_a_token(agent, key, node):
    """`*` adds no mount; the operator's role does, and no key of an agent may assume it."""
    plain = await agent.token()
    check_problem(await agent.use(plain, "GET", "/v1/keys"), 403, "owner_only")
    check_problem(await agent.use(plain, "GET", "/v1/records"), 403, "owner_only")
    check_problem(await agent.use(plain, "POST", "/v1/keys", json={"name": "evil", "kind": "owner"}), 403, "owner_only")
    listing = await agent.token(role="operator", details=[{"identifier": "node.keys.list"}])
    assert (await agent.use(listing, "GET", "/v1/keys")).status_code == 200
    check_problem(await agent.use(listing, "GET", "/v1/records"), 403, "owner_only")
    reading = await agent.token(role="operator", scope="node.records.read")
    assert (await agent.use(reading, "GET", "/v1/records")).status_code == 200
    refused(await agent.ask(form(key, scope="node.keys.list")), "invalid_scope", "nothing_granted")


async def test_a_limit_that_nobody_would_keep_is_refused(agent):
    """Once, for one mount, for some args: nothing under `node.` is given so, since nothing there is counted or compared."""
    for limit in ({"calls_max": 1}, {"mounts": ["docs"]}, {"constraints": [{"required": ["n"]}]}):
        asked = form(role="operator", details=[{"identifier": "node.mounts.change", **limit}])
        refused(await agent.ask(asked), "invalid_authorization_details", "invalid_authorization_details")


async def test_mounts_are_changed_by_who_may_and_seen_by_who_may_name_them(agent, node, tmp_path_factory):
    """A token with the right adds a mount; one that names another mount does not even see it."""
    folder = tmp_path_factory.mktemp("documents")
    changing = await agent.token(role="operator", scope="node.mounts.change")
    added = await agent.use(changing, "POST", "/v1/mounts", json={"path": str(folder), "name": "docs"})
    assert added.status_code in (200, 201), added.text
    seeing = await agent.token(details=[{"identifier": "python.*", "mounts": ["docs"]}])
    blind = await agent.token(details=[{"identifier": "python.*", "mounts": []}])
    assert [one["name"] for one in (await agent.use(seeing, "GET", "/v1/mounts")).json()["mounts"]] == ["docs"]
    assert (await agent.use(blind, "GET", "/v1/mounts")).json()["mounts"] == []
    check_problem(await agent.use(blind, "POST", "/v1/mounts", json={"path": str(folder)}), 403, "owner_only")


@pytest.mark.parametrize(
    ("details", "job", "code"),
    [
        ([{"identifier": "document.*"}], {}, "capability_not_granted"),
        ([{"identifier": "python.run.core", "version": "1.0.0"}], {}, "version_not_granted"),
        ([{"identifier": "python.run.core", "expires_at_sec": 1}], {}, "right_expired"),
        ([{"identifier": "python.*", "constraints": [{"required": ["n"]}]}], {"args": {"n": 4}}, "code_not_granted"),
        ([{"identifier": "*", "constraints": [{"required": ["n"]}]}], {"capability": "text.count", "code": None}, "args_not_granted"),
    ],
)  # fmt: skip
async def test_a_job_that_the_grant_does_not_cover_is_refused_and_recorded(
    agent, key, worker, node, details, job, code
):
    """Each field of a right stops what it is there to stop, with its own code; nothing is left but the record."""
    token = await agent.token(key, details=details)
    body = {name: value for name, value in {**JOB, **job}.items() if value is not None}
    check_problem(await agent.use(token, "POST", "/v1/jobs", json=body), 403, code)
    records = await node.store.read(
        lambda tx: [record for _, record in tx.records.page(job_id=None, after=0, limit=99)]
    )
    kinds = [(record.kind, record.facts.get("action")) for record in records]
    assert ("access.refused", code) in kinds
    assert "job.submitted" not in [kind for kind, _ in kinds]


async def test_a_job_within_every_field_passes(agent, key, worker):
    """The version that is named, and no constraint that would keep code away."""
    details = [{"identifier": "python.run.core", "version": "1.0.0", "mounts": [], "calls_max": 1}]
    token = await agent.token(key, details=details)
    body = {**JOB, "version": "1.0.0", "args": {"n": 1}}
    assert (await agent.use(token, "POST", "/v1/jobs", json=body)).status_code == 202


async def test_a_mount_that_the_grant_does_not_name_is_as_good_as_absent(agent, api, key, worker, tmp_path_factory):
    """The key may name both mounts, its token one of them."""
    for name in ("docs", "pics"):
        await api.post("/v1/mounts", json={"path": str(tmp_path_factory.mktemp(name)), "name": name})
        await api.put(f"/v1/keys/claude/mounts/{name}")
    token = await agent.token(key, details=[{"identifier": "python.*", "mounts": ["docs"]}])
    good = await agent.use(token, "POST", "/v1/jobs", json={**JOB, "mounts": ["docs"]})
    assert good.status_code in (202, 422), good.text
    bad = await agent.use(token, "POST", "/v1/jobs", json={**JOB, "mounts": ["pics"]})
    check_problem(bad, 403, "mount_not_allowed")


async def test_calls_are_counted_and_a_repeated_request_counts_once(agent, key, worker):
    """Two of two, then no more; a replay by idempotency key is answered and not counted."""
    token = await agent.token(key, role="narrow")
    first = {"Idempotency-Key": "one"}
    for _ in range(3):
        sent = await agent.use(token, "POST", "/v1/jobs", json=JOB, headers=first)
        assert sent.status_code in (200, 202), sent.text
    assert (await agent.use(token, "POST", "/v1/jobs", json=JOB)).status_code == 202
    check_problem(await agent.use(token, "POST", "/v1/jobs", json=JOB), 403, "calls_spent")
    again = await agent.use(token, "POST", "/v1/jobs", json=JOB, headers=first)
    assert again.headers["idempotency-replayed"] == "true"


async def test_many_at_once_never_pass_the_count(agent, key, worker):
    """Fifty submissions race for two calls."""
    token = await agent.token(key, role="narrow")
    sent = await asyncio.gather(*(agent.use(token, "POST", "/v1/jobs", json=JOB) for _ in range(50)))
    assert sorted({one.status_code for one in sent}) == [202, 403]
    assert sum(one.status_code == 202 for one in sent) == 2


async def test_what_is_made_of_a_token_counts_on_it_too(agent, other, worker):
    """Two tokens of one call each, made from one with a single call, allow one call together."""
    first = await agent.token(details=[{"identifier": "python.*", "calls_max": 1}])
    seconds = [await agent.token(first) for _ in range(2)]
    codes = [(await agent.use(one, "POST", "/v1/jobs", json=JOB)).status_code for one in seconds]
    assert codes == [202, 403]


async def test_a_token_is_passed_on_to_who_is_named_and_only_as_often_as_allowed(agent, other, http, node, worker):
    """The next holder's key is named; it acts in the first one's name, and may not pass it on once more."""
    first = await agent.token(depth=1)
    given = await agent.token(first, holder_jkt=other.holder.jkt, scope="python.run.core")
    told = (await other.use(given, "POST", "/v1/token/introspect", data={"token": given})).json()
    assert told["active"] is True
    assert told["sub"] == "local"
    assert told["act"] == {"sub": f"urn:ietf:params:oauth:jwk-thumbprint:sha-256:{other.holder.jkt}"}
    assert told["cnf"] == {"jkt": other.holder.jkt}
    assert told["depth_left"] == 0
    assert (await other.use(given, "POST", "/v1/jobs", json=JOB)).status_code == 202
    third = Agent(http, node)
    answer = await other.ask(form(given, holder_jkt=third.holder.jkt))
    refused(answer, "invalid_request", "delegation_not_allowed")
    # For itself it may still be narrowed.
    assert (
        await other.ask(form(given, details=[{"identifier": "python.run.core", "calls_max": 1}]))
    ).status_code == 200


async def test_an_actor_is_called_as_its_own_credential_says(agent, other, key):
    """With the actor's token the new one is bound to the actor's key and names the actor."""
    theirs = await other.token(key)
    mine = await agent.token(depth=1)
    given = await agent.token(mine, actor=theirs)
    told = (await other.use(given, "POST", "/v1/token/introspect", data={"token": given})).json()
    assert told["act"]["sub"].startswith("key:claude/")
    assert told["cnf"] == {"jkt": other.holder.jkt}


async def test_holders_see_their_own_and_not_each_others(agent, other, key, worker):
    """A delegate sees neither its giver's jobs nor the owner's; a second token of the same name goes on with its own."""
    first = await agent.token(depth=1)
    sent = (await agent.use(first, "POST", "/v1/jobs", json=JOB)).json()["job_id"]
    given = await agent.token(first, holder_jkt=other.holder.jkt)
    assert (await other.use(given, "GET", f"/v1/jobs/{sent}")).status_code == 404
    theirs = (await other.use(given, "POST", "/v1/jobs", json=JOB)).json()["job_id"]
    again = await agent.token(first, holder_jkt=other.holder.jkt)
    assert (await other.use(again, "GET", f"/v1/jobs/{theirs}")).status_code == 200
    assert [one["job_id"] for one in (await other.use(again, "GET", "/v1/jobs")).json()["jobs"]] == [theirs]
    # The key's own tokens work where the key does.
    direct, renewed = await agent.token(key), await agent.token(key)
    own = (await agent.use(direct, "POST", "/v1/jobs", json=JOB)).json()["job_id"]
    assert (await agent.use(renewed, "GET", f"/v1/jobs/{own}")).status_code == 200
    by_key = await agent.http.get(f"/v1/jobs/{own}", headers={"Authorization": f"Bearer {key}"})
    assert by_key.status_code == 200


async def test_a_narrow_token_does_not_see_what_its_rights_do_not_name(agent, key, worker):
    """In its own key's space, too: jobs of other capabilities are not there."""
    wide = await agent.token(key)
    sent = (await agent.use(wide, "POST", "/v1/jobs", json=JOB)).json()["job_id"]
    narrow = await agent.token(key, scope="document.*")
    assert (await agent.use(narrow, "GET", f"/v1/jobs/{sent}")).status_code == 404
    assert (await agent.use(narrow, "GET", "/v1/jobs")).json()["jobs"] == []


async def test_a_narrow_token_hears_nothing_of_what_it_does_not_see(agent, key, node, worker):
    """Records, files and sessions of what its rights do not name are not there, as the jobs are not."""
    whole, narrow = await agent.token(key), await agent.token(key, scope="document.convert")
    job = (await agent.use(whole, "POST", "/v1/jobs", json=JOB)).json()["job_id"]
    session = sample_session("s")
    request = replace(session.request, capability="python.run.core", mounts=())
    owner = (await node.store.read(lambda tx: tx.jobs.find("local", job))).owner
    await node.store.transact(lambda tx: tx.sessions.insert(replace(session, request=request, owner=owner)))
    for token, seen in ((whole, 1), (narrow, 0)):
        assert len((await agent.use(token, "GET", "/v1/sessions")).json()["sessions"]) == seen
        records = await agent.use(token, "GET", f"/v1/records?job_id={job}")
        assert bool(records.status_code == 200 and records.json()["records"]) is bool(seen)


async def test_a_revoked_token_ends_with_all_below_it_and_what_runs_under_them(agent, other, node):
    """Its requests are refused, its running job is cancelled, its waiting one refused; another's goes on."""
    worker = ScriptedWorker(node, "w1", [CORE], slots=2)
    await worker.connect()
    first = await agent.token(depth=1)
    given = await agent.token(first, holder_jkt=other.holder.jkt)
    running = (await other.use(given, "POST", "/v1/jobs", json=JOB)).json()["job_id"]
    lease = await worker.lease()
    assert lease.job_id == running
    gone = await agent.use(first, "POST", "/v1/token/revoke", data={"token": first})
    assert gone.status_code == 200
    check_problem(await other.use(given, "GET", f"/v1/jobs/{running}"), 401, "invalid_token")
    check_problem(await agent.use(first, "GET", "/v1/jobs"), 401, "invalid_token")
    job = await node.store.read(lambda tx: tx.jobs.find("local", running))
    assert job is not None
    assert job.cancel_requested
    refused(await agent.ask(form(first)), "invalid_request", "invalid_token")


async def test_a_job_that_waits_ends_with_its_token(agent, node):
    """Accepted while nobody is there to run it, revoked, and refused by the dispatcher when somebody comes."""
    worker = ScriptedWorker(node, "w1", [CORE])
    await worker.connect()
    await worker.disconnect()
    token = await agent.token()
    job_id = (await agent.use(token, "POST", "/v1/jobs", json=JOB)).json()["job_id"]
    await agent.use(token, "POST", "/v1/token/revoke", data={"token": token})
    async with asyncio.timeout(10):
        while True:
            job = await node.store.read(lambda tx: tx.jobs.find("local", job_id))
            if job is not None and job.ended:
                break
            await asyncio.sleep(0.01)
    assert job.end.code == "grant_revoked"


async def test_a_revoked_key_ends_its_tokens_and_their_jobs(agent, other, api, key, node):
    """What was passed on to another holder ends, too."""
    worker = ScriptedWorker(node, "w1", [CORE])
    await worker.connect()
    first = await agent.token(key, depth=1)
    given = await agent.token(first, holder_jkt=other.holder.jkt)
    job_id = (await other.use(given, "POST", "/v1/jobs", json=JOB)).json()["job_id"]
    await worker.lease()
    await api.delete("/v1/keys/claude")
    check_problem(await other.use(given, "GET", "/v1/jobs"), 401, "invalid_token")
    job = await node.store.read(lambda tx: tx.jobs.find("local", job_id))
    assert job is not None
    assert job.cancel_requested


async def test_introspection_tells_only_who_may_know(agent, other, key):
    """The owner, the token's key and its holder learn what it is good for; others that it is none."""
    token = await agent.token(key)
    ask = {"token": token}
    by_owner = await agent.http.post(
        "/v1/token/introspect", data=ask, headers={"Authorization": "Bearer a-secret-for-tests"}
    )
    assert by_owner.json()["active"] is True
    by_key = await agent.http.post("/v1/token/introspect", data=ask, headers={"Authorization": f"Bearer {key}"})
    assert by_key.json()["client_id"].startswith("key:claude/")
    stranger = await other.token()
    assert (await other.use(stranger, "POST", "/v1/token/introspect", data=ask)).json() == {"active": False}
    nonsense = await agent.use(token, "POST", "/v1/token/introspect", data={"token": "x.y.z"})
    assert nonsense.json() == {"active": False}
    unknown = await agent.http.post("/v1/token/introspect", data=ask)
    refused(unknown, "invalid_client", "not_authenticated", 401)


async def test_a_stranger_revokes_nothing(agent, other, key):
    """The answer is the same as for a token that is none (RFC 7009), and the token goes on."""
    token, stranger = await agent.token(key), await other.token()
    gone = await other.use(stranger, "POST", "/v1/token/revoke", data={"token": token})
    assert gone.status_code == 200
    assert (await agent.use(token, "GET", "/v1/jobs")).status_code == 200


async def test_tokens_are_listed_and_ended_by_their_ids(agent, http, api, key):
    """The owner sees all, a key its own; a token needs a right to it."""
    token = await agent.token(key)
    listed = await http.get("/v1/tokens", headers={"Authorization": f"Bearer {key}"})
    (one,) = listed.json()["tokens"]
    assert one["active"] is True
    assert one["bound"] is True
    check_problem(await agent.use(token, "GET", "/v1/tokens"), 403, "owner_only")
    gone = await http.delete(f"/v1/tokens/{one['grant_id']}", headers={"Authorization": f"Bearer {key}"})
    assert gone.json()["active"] is False
    check_problem(await agent.use(token, "GET", "/v1/jobs"), 401, "invalid_token")
    missing = await http.delete("/v1/tokens/none", headers={"Authorization": f"Bearer {key}"})
    check_problem(missing, 404, "grant_not_found")


async def test_metadata_says_where_tokens_come_from(http, node):
    """RFC 8414, RFC 9728 for the node and for MCP, the key set, and the header that leads there."""
    server = (await http.get("/.well-known/oauth-authorization-server")).json()
    assert server["issuer"] == PLACE
    assert server["token_endpoint"] == TOKEN_URL
    assert (await http.get("/.well-known/oauth-protected-resource")).json()["resource"] == PLACE
    mcp = (await http.get("/.well-known/oauth-protected-resource/mcp")).json()
    assert (mcp["resource"], mcp["authorization_servers"]) == (f"{PLACE}/mcp", [PLACE])
    keys = (await http.get("/v1/jwks")).json()["keys"]
    assert [(one["use"], one["alg"]) for one in keys] == [("sig", "ES256")]
    assert "d" not in keys[0]
    told = (await http.get("/v1/jobs")).headers["www-authenticate"]
    assert f'resource_metadata="{PLACE}/.well-known/oauth-protected-resource"' in told
    assert told.startswith('Bearer realm="crank"')


BASIC = {"Authorization": "Basic " + base64.b64encode(b"claude:secret").decode()}
SERVER = "/.well-known/oauth-authorization-server"


async def test_the_token_endpoint_takes_what_the_metadata_names_and_nothing_else(agent, http, key):
    """Its one grant without any client authentication; no other grant, and no client by Basic."""
    server = (await http.get(SERVER)).json()
    assert server["token_endpoint_auth_methods_supported"] == ["none"]
    (grant,) = server["grant_types_supported"]
    assert (await http.post("/v1/token", data={**form(key), "grant_type": grant})).status_code == 200
    refused(await http.post("/v1/token", data=form(key), headers=BASIC), "invalid_client", "not_authenticated", 401)
    for other in ("authorization_code", "client_credentials", "refresh_token", "urn:ietf:params:oauth:grant-type:jwt-bearer"):
        asked = await http.post("/v1/token", data={**form(key), "grant_type": other})
        refused(asked, "unsupported_grant_type", "unsupported_grant_type")


@pytest.mark.parametrize("name", ["introspection", "revocation"])
async def test_introspection_and_revocation_take_what_the_metadata_names_and_nothing_else(agent, http, key, name):
    """A key or a token in the header, bound or not; neither Basic, nor a secret in the form, nor nothing at all."""
    server = (await http.get(SERVER)).json()
    path = server[f"{name}_endpoint"].removeprefix(PLACE)
    asked = {"token": await agent.token(key)}
    secret = {"client_id": "claude", "client_secret": key}
    for headers, fields in ((BASIC, {}), ({}, {}), ({}, secret), ({}, {"access_token": key})):
        answer = await http.post(path, data={**asked, **fields}, headers=headers)
        refused(answer, "invalid_client", "not_authenticated", 401)

    async def by_bearer():
        return await http.post(path, data=asked, headers={"Authorization": f"Bearer {key}"})

    async def by_dpop():
        return await agent.use(await agent.token(key), "POST", path, data=asked)

    ways = {"Bearer": by_bearer, "DPoP": by_dpop}
    assert server[f"{name}_endpoint_auth_methods_supported"] == list(ways)
    for way in ways.values():
        assert (await way()).status_code == 200


@pytest.mark.parametrize(("algorithm", "curve"), [("ES256", "P-256"), ("ES384", "P-384"), ("ES512", "P-521")])
async def test_proofs_are_taken_by_the_algorithms_that_the_metadata_names(agent, http, key, algorithm, curve):
    """For the node as a server and as a resource alike; another one is refused."""
    places = (SERVER, "/.well-known/oauth-protected-resource")
    named = [(await http.get(place)).json()["dpop_signing_alg_values_supported"] for place in places]
    assert named == [["ES256"], ["ES256"]]
    own = ECKey.generate_key(curve)
    claims = {"jti": "one", "htm": "POST", "htu": TOKEN_URL, "iat": agent.now_sec}
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    header = {"typ": "dpop+jwt", "alg": algorithm, "jwk": public_jwk(own)}
    proof = jws.serialize_compact(header, dumps(claims), own, registry=registry)
    answer = await http.post("/v1/token", data=form(key), headers={"DPoP": proof})
    if algorithm in named[0]:
        assert answer.json()["token_type"] == "DPoP"
    else:
        refused(answer, "invalid_dpop_proof", "invalid_dpop_proof")


async def test_a_resource_takes_tokens_where_its_metadata_says(agent, http, key):
    """In the header, bound or not; nothing else of a request is looked at."""
    resource = (await http.get("/.well-known/oauth-protected-resource")).json()
    assert (resource["bearer_methods_supported"], resource["dpop_bound_access_tokens_required"]) == (["header"], False)
    bearer, bound = await agent.token(key, prove=False), await agent.token(key)
    assert (await agent.use(bearer, "GET", "/v1/jobs", prove=False)).status_code == 200
    assert (await agent.use(bound, "GET", "/v1/jobs")).status_code == 200
    check_problem(await http.get("/v1/jobs", params={"access_token": bearer}), 401, "not_authenticated")
    check_problem(await http.post("/v1/jobs", data={"access_token": bearer}), 401, "not_authenticated")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({"subject_token_type": ""}, "invalid_request"),
        ({"subject_token": ""}, "invalid_request"),
        ({"subject_token": "wrong"}, "invalid_client"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:id_token"}, "invalid_request"),
        ({"scope": "openid"}, "invalid_scope"),
        ({"authorization_details": "[]"}, "invalid_authorization_details"),
        ({"authorization_details": '[{"type":"x"}]'}, "invalid_authorization_details"),
        ({"resource": "https://other.example/"}, "invalid_target"),
        ({"resource": "http://node.test/"}, "invalid_target"),
        ({"resource": "https://node.test@other.example/"}, "invalid_target"),
        ({"audience": "something"}, "invalid_target"),
        ({"holder_jkt": "short"}, "invalid_request"),
        ({"lifetime_sec": "601"}, "invalid_request"),
        ({"lifetime_sec": "-1"}, "invalid_request"),
        ({"depth": "9"}, "invalid_request"),
        ({"actor_token": "x"}, "invalid_request"),
    ],
)
async def test_what_the_endpoint_does_not_understand_is_refused_in_oauths_words(agent, fields, error):
    """The error names of RFC 6749, 8693, 8707 and 9396, with our own code beside."""
    answer = await agent.ask({**form(), **fields}, prove=False)
    assert answer.json()["error"] == error, answer.text
    assert answer.status_code == (401 if error == "invalid_client" else 400)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"grant_type=a&grant_type=b", "application/x-www-form-urlencoded"),
        (b"%ff=%ff", "application/x-www-form-urlencoded"),
        (b"&&&", "application/x-www-form-urlencoded"),
        (b"a=1&" * 40 + b"b=2", "application/x-www-form-urlencoded"),
        (b"{}", "application/json"),
        (b"\xff\xfe", "application/x-www-form-urlencoded"),
    ],
)
async def test_other_bodies_are_refused(http, body, kind):
    """One form, each field once, bounded, UTF-8."""
    answer = await http.post("/v1/token", content=body, headers={"Content-Type": kind})
    refused(answer, "invalid_request", "invalid_request")


async def test_names_of_this_node_are_a_good_audience(agent):
    """A client that names the address it uses gets its token, for the node as a whole."""
    answer = await agent.ask(form(resource="https://node.test/mcp", audience="https://127.0.0.1:7443"))
    assert answer.json()["resource"] == PLACE


async def test_a_node_without_tokens_knows_none(api):
    """Where nothing signs tokens, the endpoint and a token are as good as unknown."""
    answer = await api.post("/v1/token", data=form())
    refused(answer, "invalid_client", "not_authenticated", 401)

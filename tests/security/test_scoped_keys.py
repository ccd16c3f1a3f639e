"""Keys with rights: what one was not made for it does at no door, by no exchange, and not by the code of a job."""

from dataclasses import replace

import httpx2
import pytest

from crank.adapters.biscuit import BiscuitIssuer
from crank.adapters.clock import SystemClock, SystemIdSource
from crank.api.app import build_api
from crank.api.e2b.app import build_e2b
from crank.bootstrap.federation import open_trust
from crank.controller.boxes import Boxes
from crank.domain.grant import Right
from crank.domain.ids import CredentialId
from crank.domain.role import Role
from crank.domain.rules.exchange import BISCUIT
from crank.testing.memory_authority import MemoryAuthority
from crank.testing.samples import sample_job, sample_session
from crank.wire import Started
from crank.wire.calls import Call, CallAnswer
from tests.support.biscuits import Keys
from tests.support.desk import SECRET, TRUST_DOMAIN, ScriptedWorker, open_desk
from tests.support.pair import paired
from tests.support.tokens import DETAIL, PLACE, Agent, form, with_tokens
from tests.unit.api.conftest import CORE, check_problem
from tests.unit.api.mcp.test_door import call, message

OWNER = {"Authorization": f"Bearer {SECRET}"}
JOB = {"capability": "python.run.core", "code": "print('hi')"}
FUNCTION = {"capability": "text.count", "code": None}
DOCS = replace(CORE, name="python.run.docs", env_profile="python-docs")
SEEN, UNSEEN = "01a22c25-c053-75ba-a18d-e8c260b2c9b7", "01a22c25-c053-75ba-a18d-e8c260b2c9b8"
BY_KEY = Role(
    "by_key", "Workloads, by the narrow key's authority.", (Right("*"),), 300, 0, 0,
    identities=(f"spiffe://{TRUST_DOMAIN}/agent/*",), key="narrow",
)  # fmt: skip


@pytest.fixture
def authority():
    """Give the authority that signs tokens and identities."""
    return MemoryAuthority(TRUST_DOMAIN, SystemClock(), SystemIdSource())


@pytest.fixture
async def desk(tmp_path, authority):
    """Give a desk with tokens of every kind."""
    async with open_desk(tmp_path) as opened:
        found = with_tokens(opened, keys=authority, by_key=BY_KEY)
        assert found.tokens is not None
        found.tokens.chains = BiscuitIssuer(Keys())
        yield replace(found, trust=open_trust(authority, opened.clock))


@pytest.fixture
async def worker(desk):
    """Give a worker that knows handles and offers two capabilities."""
    scripted = ScriptedWorker(desk, "w1", [CORE, DOCS], version=3)
    await scripted.connect()
    return scripted


@pytest.fixture
async def http(desk):
    """Give a client of the API that shows nothing by itself."""
    app = build_api(desk, version="0", more_names=["node.test"])
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=PLACE) as client:
        yield client
    await app.state.mcp.close()


async def minted(http, *rights, name="narrow", **fields):
    """Make a key with these rights and return its document."""
    details = {"authorization_details": [{"type": DETAIL, **one} for one in rights]} if rights else {}
    answer = await http.post("/v1/keys", json={"name": name, **details, **fields}, headers=OWNER)
    assert answer.status_code == 201, answer.text
    return answer.json()


def shown(key):
    """Return the header by which a key is shown."""
    return {"Authorization": f"Bearer {key['secret']}"}


async def refusals(desk):
    """Return who was refused what, from the records."""
    records = await desk.store.read(lambda tx: [one for _, one in tx.records.page(job_id=None, after=0, limit=999)])
    return {(one.subject, one.facts["action"], one.facts["capability"]) for one in records if one.kind == "access.refused"}


# --- the key itself --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "body", "code"),
    [
        ({"identifier": "document.*"}, {}, "capability_not_granted"),
        ({"identifier": "python.run"}, {}, "capability_not_granted"),
        ({"identifier": "python.run.core", "version": "1.0.0"}, {}, "version_not_granted"),
        ({"identifier": "python.run.core", "version": "1.0.0"}, {"version": "1.0"}, "version_not_granted"),
        ({"identifier": "python.*", "expires_at_sec": 1}, {}, "right_expired"),
        ({"identifier": "python.*", "constraints": [{"required": ["n"]}]}, {"args": {"n": 1}}, "code_not_granted"),
        ({"identifier": "*", "constraints": [{"required": ["n"]}]}, {**FUNCTION, "args": ["n"]}, "args_not_granted"),
        ({"identifier": "python.*", "mounts": []}, {"mounts": ["papers"]}, "mount_not_allowed"),
        ({"identifier": "python.*", "mounts": ["others"]}, {"mounts": ["papers"]}, "mount_not_allowed"),
    ],
)
async def test_a_job_that_its_rights_do_not_name_is_refused_and_recorded(http, desk, worker, tmp_path_factory, right, body, code):
    """By capability, version, args and mounts; nothing is left behind but a record in the key's name."""
    folder = str(tmp_path_factory.mktemp("papers"))
    await http.post("/v1/mounts", json={"path": folder, "name": "papers"}, headers=OWNER)
    key = await minted(http, right, mounts=["papers"])
    asked = {name: value for name, value in {**JOB, **body}.items() if value is not None}
    check_problem(await http.post("/v1/jobs", json=asked, headers=shown(key)), 403, code)
    assert (await http.get("/v1/jobs", headers=OWNER)).json()["jobs"] == []
    assert await refusals(desk) == {(key["subject"], code, asked["capability"])}


async def test_what_its_rights_name_runs_and_others_keys_stay_as_they_were(http, worker):
    """A narrow key submits what it was made for; a key without rights submits everything, as before."""
    narrow, wide = await minted(http, {"identifier": "python.run.core"}), await minted(http, name="wide")
    assert (narrow["authorization_details"], wide["authorization_details"]) == (
        [{"type": DETAIL, "identifier": "python.run.core"}],
        None,
    )
    assert (await http.post("/v1/jobs", json=JOB, headers=shown(narrow))).status_code == 202
    docs = {"code": "1", "capability": "python.run.docs"}
    check_problem(await http.post("/v1/jobs", json=docs, headers=shown(narrow)), 403, "capability_not_granted")
    assert (await http.post("/v1/jobs", json=docs, headers=shown(wide))).status_code == 202


async def test_a_repeated_request_is_asked_anew_and_tells_nothing(http, worker):
    """An idempotency key that is used once more for something else opens no way around the rights."""
    key = await minted(http, {"identifier": "python.run.core"})
    headers = {**shown(key), "Idempotency-Key": "again"}
    docs = {"code": "1", "capability": "python.run.docs"}
    for _ in range(2):
        check_problem(await http.post("/v1/jobs", json=docs, headers=headers), 403, "capability_not_granted")
    first = await http.post("/v1/jobs", json=JOB, headers=headers)
    again = await http.post("/v1/jobs", json=JOB, headers=headers)
    assert (first.status_code, again.json()["job_id"]) == (202, first.json()["job_id"])


async def test_an_upload_is_no_way_to_what_it_may_not_call(http, worker):
    """Bytes that a narrow key brought go into the jobs that it may submit, and into no others."""
    content, digest = b"x", "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    key = await minted(http, {"identifier": "python.run.core"})
    assert (await http.put(f"/v1/blobs/{digest}", content=content, headers=shown(key))).status_code == 201
    files = {"files": [{"path": "a", "sha256": digest}]}
    docs = {"code": "1", "capability": "python.run.docs", **files}
    check_problem(await http.post("/v1/jobs", json=docs, headers=shown(key)), 403, "capability_not_granted")
    assert (await http.post("/v1/jobs", json={**JOB, **files}, headers=shown(key))).status_code == 202


async def test_a_session_that_its_rights_do_not_name_is_not_opened(http, desk):
    """A key for documents opens no sandbox, nor does one for functions alone; one for it does, and runs in it no more."""
    none = await minted(http, {"identifier": "document.*"}, name="none")
    calls = await minted(http, {"identifier": "*", "constraints": [{"maxProperties": 1}]}, name="calls")
    whole = await minted(http, {"identifier": "python.run.core"})
    async with paired(desk, {}):
        check_problem(await http.post("/v1/sessions", json={}, headers=shown(none)), 403, "capability_not_granted")
        check_problem(await http.post("/v1/sessions", json={}, headers=shown(calls)), 403, "code_not_granted")
        opened = await http.post("/v1/sessions", json={}, headers=shown(whole))
        assert opened.status_code == 201, opened.text
        inside = {"code": "1", "session": opened.json()["session_id"]}
        check_problem(await http.post("/v1/jobs", json=inside, headers=shown(calls)), 404, "session_not_found")
        assert (await http.post("/v1/jobs", json=inside, headers=shown(whole))).status_code == 202
    assert len((await http.get("/v1/sessions", headers=OWNER)).json()["sessions"]) == 1


async def test_it_sees_of_its_own_space_what_its_rights_name(http, desk):
    """A job and a session of the same space that it could not have asked for are not there, by id or in a list."""
    key = await minted(http, {"identifier": "python.run.docs"})
    own = CredentialId(key["key_id"])

    def fill(tx):
        for one_id, capability in ((SEEN, "python.run.docs"), (UNSEEN, "python.run.core")):
            job, session = sample_job(one_id), sample_session(one_id)
            asked = replace(job.request, capability=capability, version=None, mounts=())
            tx.jobs.insert(replace(job, owner=own, request=asked))
            kept = replace(session.request, capability=capability, version=None, mounts=())
            tx.sessions.insert(replace(session, owner=own, request=kept))

    await desk.store.transact(fill)
    jobs = (await http.get("/v1/jobs", headers=shown(key))).json()["jobs"]
    sessions = (await http.get("/v1/sessions", headers=shown(key))).json()["sessions"]
    assert ([one["job_id"] for one in jobs], [one["session_id"] for one in sessions]) == ([SEEN], [SEEN])
    check_problem(await http.get(f"/v1/jobs/{UNSEEN}", headers=shown(key)), 404, "job_not_found")
    check_problem(await http.post(f"/v1/jobs/{UNSEEN}/cancel", headers=shown(key)), 404, "job_not_found")
    check_problem(await http.get(f"/v1/sessions/{UNSEEN}", headers=shown(key)), 404, "session_not_found")


async def test_it_names_and_sees_the_mounts_of_its_rights_alone(http, worker, tmp_path_factory):
    """Of the mounts that the key may name its rights leave one; the other is answered as one that is not there."""
    for name in ("papers", "ledgers"):
        folder = str(tmp_path_factory.mktemp(name))
        await http.post("/v1/mounts", json={"path": folder, "name": name}, headers=OWNER)
    key = await minted(http, {"identifier": "python.*", "mounts": ["papers"]}, mounts=["papers", "ledgers"])
    seen = (await http.get("/v1/mounts", headers=shown(key))).json()["mounts"]
    assert [one["name"] for one in seen] == ["papers"]
    job = {**JOB, "mounts": ["papers"]}
    assert (await http.post("/v1/jobs", json=job, headers=shown(key))).status_code == 202
    check_problem(
        await http.post("/v1/jobs", json={**JOB, "mounts": ["ledgers"]}, headers=shown(key)), 403, "mount_not_allowed"
    )


# --- the doors for agents --------------------------------------------------------------------


async def test_mcp_calls_and_finds_what_its_rights_name_alone(http, desk, worker):
    """Tools of a narrow key start nothing else, in a session neither, and are advised of nothing else; their list is everybody's."""
    key = await minted(http, {"identifier": "python.run.docs"})
    wide = await minted(http, name="wide")
    http.headers.update(shown(key))
    for name, arguments in (
        ("run_python", {"code": "1"}),
        ("run_python", {"code": "1", "session": "new"}),
        ("call_capability", {"name": "document.convert", "args": {}}),
    ):
        told = await call(http, name, **arguments)
        assert told["isError"], told
        assert "capability_not_granted" in told["content"][0]["text"]
    assert (await http.get("/v1/jobs", headers=OWNER)).json()["jobs"] == []
    found = (await call(http, "find_capability", query="python"))["structuredContent"]["candidates"]
    assert [one["name"] for one in found] == ["python.run.docs"]
    none = await minted(http, {"identifier": "document.*"}, name="none")
    http.headers.update(shown(none))
    assert "allows none" in (await call(http, "find_capability", query="python"))["structuredContent"]["message"]
    lists = []
    for one in (key, wide):
        asked = message("tools/list")
        answer = await http.post("/mcp", content=asked["content"], headers={**asked["headers"], **shown(one)})
        lists.append(answer.text)
    assert lists[0] == lists[1]


async def test_gpt_actions_run_and_find_what_its_rights_name_alone(http, worker):
    """The operations for ChatGPT ask the same rights."""
    key = await minted(http, {"identifier": "python.run.docs"})
    sent = await http.post("/v1/actions/run", json={"code": "1"}, headers=shown(key))
    check_problem(sent, 403, "capability_not_granted")
    found = (await http.get("/v1/actions/capabilities", headers=shown(key))).json()
    assert [one["name"] for one in found["capabilities"]] == ["python.run.docs"]


async def test_an_e2b_key_for_something_else_opens_no_sandbox(http, desk, worker):
    """The E2B listener answers 403; a key for its sandboxes comes as far as the search for a worker."""
    app = build_e2b(Boxes(desk, modules={}, secret=b"s"))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://node.test") as e2b:

        async def opening(name, *rights):
            key = await minted(http, *rights, name=name, kind="e2b")
            answer = await e2b.post("/sandboxes", json={"templateID": "base"}, headers={"x-api-key": key["secret"]})
            return answer.status_code, answer.json()["message"]

        refused = await opening("other", {"identifier": "python.run.core"})
        let_in = await opening("own", {"identifier": "python.run.interpreter"})
        as_before = await opening("wide")
    assert (refused[0], "python.run.interpreter" in refused[1]) == (403, True)
    assert let_in == as_before
    assert let_in[0] == 400


# --- what is made of it ----------------------------------------------------------------------


async def test_no_token_of_it_is_wider(http, desk, worker):
    """Asked for everything an exchange gives what the key may, in every field; asked for something else, nothing."""
    held = {"type": DETAIL, "identifier": "python.run.core", "version": "1.0.0", "mounts": []}
    key = await minted(http, held)
    agent = Agent(http, desk)
    for more in ({}, {"scope": "*"}, {"details": [{"identifier": "python.*"}, {"identifier": "node.keys.change"}]}):
        answer = await agent.ask(form(key["secret"], **more))
        assert answer.json()["authorization_details"] == [held], more
    for scope in ("document.*", "python.run.docs", "node.*"):
        assert (await agent.ask(form(key["secret"], scope=scope))).json()["code"] == "nothing_granted"
    token = await agent.token(key["secret"])
    check_problem(await agent.use(token, "POST", "/v1/jobs", json=JOB), 403, "version_not_granted")
    good = {**JOB, "version": "1.0.0", "args": {"n": 1}}
    assert (await agent.use(token, "POST", "/v1/jobs", json=good)).status_code == 202


async def test_no_biscuit_of_it_is_wider(http, desk, worker):
    """The other form of the same grant is narrowed as well."""
    key = await minted(http, {"identifier": "python.run.docs"})
    agent = Agent(http, desk)
    answer = (await agent.ask(form(key["secret"], requested_token_type=BISCUIT, scope="*"))).json()
    assert answer["scope"] == "python.run.docs"
    sent = await agent.use(answer["access_token"], "POST", "/v1/jobs", json=JOB)
    check_problem(sent, 403, "capability_not_granted")


async def test_a_workload_that_acts_by_its_authority_gets_no_more(http, desk, authority, worker):
    """A JWT-SVID under a role that lends a narrow key is exchanged for what both allow."""
    await minted(http, {"identifier": "python.run.docs"})
    claims = {"sub": f"spiffe://{TRUST_DOMAIN}/agent/a", "aud": [PLACE], "exp": desk.clock.now_us() // 1_000_000 + 60}
    agent = Agent(http, desk)
    asked = {**form(authority.sign_jwt_svid(claims), role="by_key"), "subject_token_type": "urn:ietf:params:oauth:token-type:jwt"}
    answer = (await agent.ask(asked)).json()
    assert answer["scope"] == "python.run.docs", answer
    sent = await agent.use(answer["access_token"], "POST", "/v1/jobs", json=JOB)
    check_problem(sent, 403, "capability_not_granted")


async def test_a_job_of_it_is_handed_no_more_and_calls_for_no_more(http, desk, worker):
    """A handle for more is refused; one that looks wider than a right is asked anew with each call."""
    key = await minted(http, {"identifier": "python.run.core", "version": "1.0.0"})
    job = {"code": "1", "capability": "python.run.core", "version": "1.0.0"}
    run = {"name": "run", "kind": "call", "capability": "python.run.core"}
    for wider in ("*", "python.*", "python.run.docs"):
        sent = await http.post("/v1/jobs", json={**job, "handles": [{**run, "capability": wider}]}, headers=shown(key))
        check_problem(sent, 403, "handle_not_granted")
    sent = await http.post("/v1/jobs", json={**job, "handles": [run]}, headers=shown(key))
    assert sent.status_code == 202, sent.text
    lease = await worker.lease()
    await worker.say(Started(lease.job_id, lease.epoch))
    asking = Call(
        lease.job_id, lease.epoch, 1, "run", "python.run.core",
        version=None, args=None, code="2", files=[], mounts=[], handles=[], timeout_sec=None,
    )  # fmt: skip
    await worker.say(asking)
    answer = await worker.link.next(CallAnswer)
    assert (answer.verdict, answer.code) == ("refused", "version_not_granted")
    await worker.say(replace(asking, number=2, version="1.0.0", args={"n": 2}))
    assert (await worker.lease()).args == {"n": 2}

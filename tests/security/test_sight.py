"""What a narrow token, or a narrow key, finds of its own space: what it could have made itself, and no more."""

from dataclasses import replace

import pytest

from crank.domain.ids import JobId, MountId
from crank.domain.job import MountUse
from crank.testing.samples import sample_session
from crank.wire import Started
from crank.wire.calls import Call, CallAnswer
from tests.security.test_scoped_keys import DOCS, JOB, OWNER, authority, desk, http, minted, shown, worker
from tests.support.desk import ScriptedWorker
from tests.support.tokens import Agent
from tests.unit.api.conftest import CORE, check_problem

__all__ = ["authority", "desk", "http", "worker"]
PAPERS = "00000000-0000-7000-8000-0000000000aa"


@pytest.fixture
def agent(http, desk):
    """Give somebody who exchanges keys for tokens."""
    return Agent(http, desk)


NARROWED = [
    {"version": "1.0.0"},
    {"mounts": []},
    {"mounts": ["pictures"]},
    {"constraints": [{"properties": {"n": {"maximum": 3}}}]},
]
DOORS = [
    ("GET", "", {}),
    ("GET", "/events", {}),
    ("GET", "/artifacts", {}),
    ("POST", "/cancel", {}),
    ("POST", "/interrupt", {}),
    ("POST", "/stdin", {"json": {"text": "x"}}),
]


async def wider_jobs(desk, agent, key):
    """Return a job of the key's space with a mount and args, and one whose mounts are its session's."""
    token = await agent.token(key)
    made = (await agent.use(token, "POST", "/v1/jobs", json=JOB)).json()["job_id"]
    mounts = (MountUse("docs", MountId(PAPERS)),)
    plain = replace((await desk.store.read(lambda tx: tx.jobs.find("local", made))), job_id=JobId(made[:-2] + "aa"))
    plain = replace(plain, request=replace(plain.request, mounts=mounts, args={"n": 9}, code=None))
    session = sample_session("s")
    session = replace(session, owner=plain.owner, request=replace(session.request, capability=CORE.name, mounts=mounts))
    inner = replace(plain.request, mounts=(), session_id=session.session_id)
    within = replace(plain, job_id=JobId(made[:-2] + "bb"), request=inner)

    def keep(tx):
        tx.sessions.insert(session)
        for job in (plain, within):
            tx.jobs.insert(job)

    await desk.store.transact(keep)
    return [plain.job_id, within.job_id]


@pytest.mark.parametrize("narrowed", NARROWED, ids=["version", "no mounts", "other mounts", "args"])
async def test_a_narrowed_token_reaches_no_wider_job_of_its_own_keys_space(agent, desk, worker, narrowed):
    """Whatever field it was narrowed in: it reads, follows, stops and feeds no job that it could not have made."""
    key = (await agent.http.post("/v1/keys", json={"name": "ann"}, headers=OWNER)).json()["secret"]
    jobs = await wider_jobs(desk, agent, key)
    wide = await agent.token(key)
    narrow = await agent.token(key, details=[{"identifier": "python.*", **narrowed}])
    for token, seen in ((wide, set(jobs)), (narrow, set())):
        listed = (await agent.use(token, "GET", "/v1/jobs")).json()["jobs"]
        assert {one["job_id"] for one in listed} & set(jobs) == seen
    for job in jobs:
        assert (await agent.use(wide, "GET", f"/v1/jobs/{job}")).status_code == 200
        for method, door, parts in DOORS:
            answer = await agent.use(narrow, method, f"/v1/jobs/{job}{door}", **parts)
            check_problem(answer, 404, "job_not_found")
        records = await agent.use(narrow, "GET", f"/v1/records?job_id={job}")
        assert records.status_code == 403 or records.json()["records"] == []


async def test_a_token_reaches_what_it_could_have_made(agent, desk, worker):
    """By mounts it reaches both; by constraints what was made under all of them, and no schema is asked for that."""
    key = (await agent.http.post("/v1/keys", json={"name": "ann"}, headers=OWNER)).json()["secret"]
    jobs = await wider_jobs(desk, agent, key)
    mounted = {"identifier": "python.*", "mounts": [PAPERS]}
    first, second = {"properties": {"n": {"minimum": 9}}}, {"maxProperties": 4}
    made_by = await agent.token(key, details=[{**mounted, "constraints": [first, second]}])
    grant = (await desk.store.read(lambda tx: tx.grants.page("local", limit=1, before=None)))[0]
    await desk.store.transact(lambda tx: tx.grants.note("local", jobs[0], grant.grant_id))
    renewed = await agent.token(key, details=[{**mounted, "constraints": [second]}])
    other = await agent.token(key, details=[{**mounted, "constraints": [first, second, {"minProperties": 1}]}])
    whole = await agent.token(key, details=[mounted])
    for token, seen in ((whole, jobs), (made_by, jobs[:1]), (renewed, jobs[:1]), (other, [])):
        found = [job for job in jobs if (await agent.use(token, "GET", f"/v1/jobs/{job}")).status_code == 200]
        assert found == seen


async def test_calls_are_counted_whole_whatever_their_key_still_sees(http, desk, tmp_path_factory):
    """The root of a tree goes out of its key's sight with its mount; what was handed down is counted on."""
    worker = ScriptedWorker(desk, "w1", [CORE, DOCS], 20, version=3)
    await worker.connect()
    folder = str(tmp_path_factory.mktemp("papers"))
    mount = (await http.post("/v1/mounts", json={"path": folder, "name": "papers"}, headers=OWNER)).json()
    rights = ({"identifier": "python.run.core", "mounts": ["papers"]}, {"identifier": "python.run.docs", "mounts": []})
    key = await minted(http, *rights, mounts=["papers"])
    run = {"name": "run", "kind": "call", "capability": "python.run.docs", "calls_max": 3}
    sent = await http.post("/v1/jobs", json={**JOB, "mounts": ["papers"], "handles": [run]}, headers=shown(key))
    assert sent.status_code == 202, sent.text
    root = await worker.lease()
    await worker.say(Started(root.job_id, root.epoch))
    await worker.say(_asking(root, 1, "run"))
    middle = await worker.lease()
    await worker.say(Started(middle.job_id, middle.epoch))
    await http.delete(f"/v1/mounts/{mount['mount_id']}", headers=OWNER)
    assert (await http.get(f"/v1/jobs/{root.job_id}", headers=shown(key))).status_code == 404
    for number in (1, 2):
        await worker.say(_asking(middle, number))
        assert (await worker.lease()).job_id
    await worker.say(_asking(middle, 3))
    answer = await worker.link.next(CallAnswer)
    assert (answer.verdict, answer.code) == ("refused", "calls_spent")


def _asking(lease, number, *handles):
    return Call(
        lease.job_id, lease.epoch, number, "run", "python.run.docs",
        version=None, args=None, code="2", files=[], mounts=[], handles=list(handles), timeout_sec=None,
    )  # fmt: skip

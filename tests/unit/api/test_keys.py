"""Keys over HTTP: what they open, what they do not, and that one never sees what another did."""

import asyncio
import contextlib
import hashlib
import io
import json
import re
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from crank.api.app import build_api
from crank.api.peer import Gate
from crank.controller import dispatch
from crank.controller.keys import admit_owner
from crank.domain.ids import Digest
from crank.domain.outcome import Artifact, End, Outcome, Reason, Stream
from crank.domain.rules.access import E2B_KINDS
from crank.errors import Conflict, NotAuthenticated
from crank.testing.samples import sample_job, sample_session
from tests.support.desk import SECRET
from tests.support.pair import paired
from tests.unit.api.conftest import check_problem

RESULT = b"what the job left"
RIGHT = {"type": "urn:crank:capability", "identifier": "python.run.core"}
RESULT_DIGEST = Digest(hashlib.sha256(RESULT).hexdigest())
LEFT = Outcome(
    End(Reason.EXITED, exit_code=0),
    stdout=Stream("hi\n", 3, 3),
    artifacts=(Artifact("a.txt", len(RESULT), RESULT_DIGEST, "text/plain"),),
)


async def minted(api, name, **fields):
    """Mint a key and return its document."""
    response = await api.post("/v1/keys", json={"name": name, **fields})
    assert response.status_code == 201, response.text
    return response.json()


@contextlib.asynccontextmanager
async def speaking(desk, secret):
    """Give a client that sends this secret, of an application of its own on the same desk."""
    transport = httpx2.ASGITransport(app=build_api(desk, version="0"), raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {secret}"}
    async with httpx2.AsyncClient(transport=transport, base_url="https://node.test", headers=headers) as client:
        yield client


@pytest.fixture
async def mount(api, tmp_path_factory):
    """Add a mount and return its document."""
    folder = tmp_path_factory.mktemp("documents")
    return (await api.post("/v1/mounts", json={"path": str(folder), "name": "docs"})).json()


@pytest.fixture
async def pair_of_keys(api, desk):
    """Give clients of two api keys."""
    one, two = [(await minted(api, name))["secret"] for name in ("one", "two")]
    async with speaking(desk, one) as first, speaking(desk, two) as second:
        yield first, second


async def test_a_secret_is_shown_once_and_hashed_at_rest(api, desk, tmp_path):
    """Each kind has its form; neither the list nor the database or its log holds the secret."""
    documents = [await minted(api, kind, kind=kind) for kind in ("api", "e2b")]
    boss = await minted(api, "boss", kind="owner")
    assert re.fullmatch(r"crank_[A-Za-z0-9_-]{43}", documents[0]["secret"])
    assert re.fullmatch(r"e2b_[0-9a-f]{40}", documents[1]["secret"])
    assert boss["mounts"] is None
    listed = await api.get("/v1/keys")
    assert [key["name"] for key in listed.json()["keys"]] == ["owner", "api", "e2b", "boss"]
    await desk.store.transact(lambda tx: None)
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("crank.db*"))
    for document in (*documents, boss):
        assert document["secret"] not in listed.text
        assert document["secret"].encode() not in stored
        assert hashlib.sha256(document["secret"].encode()).hexdigest().encode() in stored


async def test_a_key_says_who_it_is_and_when_it_was_used(api, desk):
    """/v1/keys/self answers with the caller's own key; the owner reads about when it was used."""
    made = await minted(api, "agent", expires_sec=3600)
    assert (made["used_at"], made["revoked_at"], made["mounts"]) == (None, None, [])
    assert made["expires_at"] > made["created_at"]
    async with speaking(desk, made["secret"]) as agent:
        own = (await agent.get("/v1/keys/self")).json()
    assert own["key_id"] == made["key_id"]
    assert own["subject"] == f"key:agent/{made['key_id']}"
    assert own["used_at"]
    assert "secret" not in own
    assert (await api.get("/v1/keys/self")).json()["subject"] == "local"


async def test_rights_are_shown_and_recorded(api, desk):
    """The answer, the list, the key itself and the record of its making say what it may be used for; null is everything."""
    details = [{**RIGHT, "version": "1.0.0", "constraints": [{"maxProperties": 2}], "mounts": ["docs"]}]
    made = await minted(api, "narrow", authorization_details=details)
    await minted(api, "wide")
    async with speaking(desk, made["secret"]) as narrow:
        own = (await narrow.get("/v1/keys/self")).json()
    listed = [key["authorization_details"] for key in (await api.get("/v1/keys")).json()["keys"]]
    assert made["authorization_details"] == own["authorization_details"] == details
    assert listed == [None, details, None]
    records = (await api.get("/v1/records")).json()["records"]
    assert [one["facts"]["rights"] for one in records if one["kind"] == "key.minted"] == [details, None]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "missing_field"),
        ({"name": "Agent"}, 422, "invalid_name"),
        ({"name": "self"}, 422, "key_name_reserved"),
        ({"name": "owner"}, 422, "key_name_reserved"),
        ({"name": "k-0"}, 422, "key_name_reserved"),
        ({"name": "a", "kind": "root"}, 422, "invalid_field"),
        ({"name": "a", "expires_sec": 1}, 422, "key_lifetime_out_of_range"),
        ({"name": "a", "expires_sec": -1e300}, 422, "key_lifetime_out_of_range"),
        ({"name": "a", "mounts": ["nothing"]}, 404, "mount_not_found"),
        ({"name": "a", "mounts": ["m"] * 65}, 413, "too_large"),
        ({"name": "a", "subject": "local"}, 422, "unknown_field"),
        ({"name": "a", "authorization_details": []}, 422, "invalid_authorization_details"),
        ({"name": "a", "authorization_details": "*"}, 422, "invalid_field"),
        ({"name": "a", "authorization_details": [{"identifier": "*"}]}, 422, "invalid_authorization_details"),
        ({"name": "a", "authorization_details": [{**RIGHT, "constraints": [{"type": 1}]}]}, 422, "invalid_authorization_details"),
        ({"name": "a", "authorization_details": [{**RIGHT, "calls_max": 2}]}, 422, "key_right_counted"),
        ({"name": "a", "authorization_details": [{**RIGHT, "identifier": "node.*"}]}, 422, "key_right_owner_only"),
        ({"name": "a", "authorization_details": [RIGHT], "kind": "owner"}, 422, "key_rights_of_owner"),
        ({"name": "a", "authorization_details": [{**RIGHT, "version": "1.0.0"}], "kind": "e2b"}, 422, "key_right_unspoken"),
    ],
)
async def test_a_wrong_request_mints_nothing(api, body, status, code):
    """Each mistake has its code, and no key is there afterwards."""
    check_problem(await api.post("/v1/keys", json=body), status, code)
    assert [key["name"] for key in (await api.get("/v1/keys")).json()["keys"]] == ["owner"]


async def test_what_is_the_owners_is_refused_and_recorded(api, desk, mount, tmp_path_factory):
    """A key that asks for the owner's operations gets 403 each time; the trail names it, a flood in few records."""
    made = await minted(api, "agent")
    other = await minted(api, "other")
    folder = str(tmp_path_factory.mktemp("more"))
    async with speaking(desk, made["secret"]) as agent:
        for _ in range(50):
            check_problem(await agent.post("/v1/keys", json={"name": "mine", "kind": "owner"}), 403, "owner_only")
        for refused in (
            await agent.get("/v1/keys"),
            await agent.get("/v1/records"),
            await agent.post("/v1/mounts", json={"path": folder}),
            await agent.delete(f"/v1/mounts/{mount['mount_id']}"),
            await agent.delete("/v1/keys/other"),
            await agent.put("/v1/keys/agent/mounts/docs"),
            await agent.delete("/v1/keys/nobody"),
        ):
            check_problem(refused, 403, "owner_only")
    records = (await api.get("/v1/records", params={"limit": 1000})).json()["records"]
    told = [record for record in records if record["kind"] == "access.refused"]
    assert {record["subject"] for record in told} == {made["subject"]}
    assert sorted(record["facts"]["action"] for record in told) == [
        "keys.change", "keys.list", "mounts.change", "records.read",
    ]  # fmt: skip
    assert len((await api.get("/v1/mounts")).json()["mounts"]) == 1
    async with speaking(desk, other["secret"]) as still:
        assert (await still.get("/v1/jobs")).status_code == 200


async def test_a_minted_owner_may_do_what_the_owner_may_until_it_is_revoked(api, desk, mount):
    """An owner's key mints and lists and sees all; after its revocation it opens nothing."""
    boss = await minted(api, "boss", kind="owner")
    async with speaking(desk, boss["secret"]) as second:
        await minted(second, "agent", mounts=["docs"])
        assert (await second.get("/v1/records")).status_code == 200
        assert len((await second.get("/v1/mounts")).json()["mounts"]) == 1
        await api.delete("/v1/keys/boss")
        check_problem(await second.get("/v1/keys"), 401, "not_authenticated")


async def test_a_revocation_and_an_expiry_hold_at_once(api, desk):
    """The very next request is answered as if the key had never been; doing it again changes nothing."""
    made = await minted(api, "agent")
    async with speaking(desk, made["secret"]) as agent:
        assert (await agent.get("/v1/jobs")).status_code == 200
        stranger = await agent.get("/v1/jobs", headers={"Authorization": "Bearer crank_nothing"})
        revoked = (await api.delete("/v1/keys/agent")).json()
        gone = await agent.get("/v1/jobs")
        assert (gone.status_code, gone.content) == (stranger.status_code, stranger.content)
    assert revoked["revoked_at"]
    again = await api.delete(f"/v1/keys/{made['key_id']}")
    assert again.json()["revoked_at"] == revoked["revoked_at"]
    check_problem(await api.delete("/v1/keys/agent"), 404, "key_not_found")
    await minted(api, "agent")


async def test_the_token_files_own_key_is_not_revoked_by_hand(api):
    """Nobody locks the door from inside."""
    check_problem(await api.delete("/v1/keys/owner"), 409, "key_is_token_file")
    assert (await api.get("/v1/keys")).status_code == 200


async def test_a_new_token_file_ends_the_old_secret(api, desk):
    """The file is believed at each start: its old secret opens nothing, the same one again changes nothing."""
    await admit_owner(desk, SECRET)
    assert (await api.get("/v1/keys/self")).status_code == 200
    agent = await minted(api, "agent")
    await admit_owner(desk, "another secret")
    check_problem(await api.get("/v1/jobs"), 401, "not_authenticated")
    async with speaking(desk, "another secret") as owner:
        kinds = [record["kind"] for record in (await owner.get("/v1/records")).json()["records"]]
        assert kinds == ["key.minted", "key.revoked", "key.replaced"]
    for taken in (SECRET, agent["secret"]):
        with pytest.raises(Conflict) as caught:
            await admit_owner(desk, taken)
        assert caught.value.error_code == "token_file_taken"


async def test_an_e2b_key_opens_its_own_door_alone(api, desk):
    """The API takes no E2B key, and the E2B gate takes nothing else."""
    e2b, agent = await minted(api, "e2b", kind="e2b"), await minted(api, "agent")
    async with speaking(desk, e2b["secret"]) as client:
        check_problem(await client.get("/v1/jobs"), 401, "not_authenticated")
    gate = Gate(desk, E2B_KINDS)
    assert (await gate.admit_secret(e2b["secret"])).subject == e2b["subject"]
    for wrong in (agent["secret"], SECRET, "", "x" * 513, "e2b_\udcff"):
        with pytest.raises(NotAuthenticated):
            await gate.admit_secret(wrong)


# --- what is not yours is not there -----------------------------------------------------------


async def _done(desk, worker, client, **fields):
    """Run a job to its end with an artifact, and return its id."""
    accepted = await client.post("/v1/jobs", json={"code": "1", **fields})
    assert accepted.status_code == 202, accepted.text
    lease = await worker.lease()
    desk.blobs.put(io.BytesIO(RESULT), expected=RESULT_DIGEST, bytes_max=1000)
    await worker.finish(lease, LEFT)
    return accepted.json()["job_id"]


async def test_anothers_job_is_answered_as_one_that_is_not_there(desk, worker, api, pair_of_keys):
    """Every address of a job gives one key what it gives for a job that never was; the owner reads it all."""
    one, two = pair_of_keys
    job_id = await _done(desk, worker, one)
    ghost = "01a22c25-c053-75ba-a18d-e8c260b2c9b7"
    for method, tail in (
        ("GET", ""), ("GET", "/events"), ("GET", "/artifacts"), ("GET", "/artifacts/a.txt"), ("POST", "/cancel"),
        ("POST", "/interrupt"), ("POST", "/stdin"),
    ):  # fmt: skip
        body = {"json": {"text": "x"}} if tail == "/stdin" else {}
        foreign = await two.request(method, f"/v1/jobs/{job_id}{tail}", **body)
        absent = await two.request(method, f"/v1/jobs/{ghost}{tail}", **body)
        assert foreign.status_code == 404, tail
        assert foreign.text.replace(job_id, ghost) == absent.text
    assert (await two.get("/v1/jobs")).json()["jobs"] == []
    assert (await two.get("/v1/records", params={"job_id": job_id})).json()["records"] == []
    cursor = await two.get("/v1/jobs", params={"before": job_id})
    assert cursor.json() == {"jobs": [], "next": None}
    for reader in (one, api):
        assert (await reader.get(f"/v1/jobs/{job_id}/artifacts/a.txt")).content == RESULT
        assert [job["job_id"] for job in (await reader.get("/v1/jobs")).json()["jobs"]] == [job_id]
        assert (await reader.get("/v1/records", params={"job_id": job_id})).json()["records"]


async def test_every_address_of_a_job_or_session_hides_what_is_anothers(desk, worker, api, pair_of_keys):
    """Whatever operation is added later: with a foreign id it answers word for word as with one that never was."""
    one, two = pair_of_keys
    owner = (await one.get("/v1/keys/self")).json()["key_id"]
    foreign, ghost = "01a22c25-c053-75ba-a18d-e8c260b2c9b7", "01a22c25-c053-75ba-a18d-e8c260b2c9b8"
    job, session = replace(sample_job(foreign), owner=owner), replace(sample_session(foreign), owner=owner)
    await desk.store.transact(lambda tx: (tx.jobs.insert(job), tx.sessions.insert(session)))
    assert (await one.get(f"/v1/jobs/{foreign}")).status_code == 200
    assert (await one.get(f"/v1/sessions/{foreign}")).status_code == 200
    paths = (await api.get("/openapi.json")).json()["paths"]
    asked = [
        (method, path)
        for path, operations in paths.items()
        for method in operations
        if "{job_id}" in path or "{session_id}" in path
    ]
    assert len(asked) >= 14
    bodies: dict[str, Any] = {"put": {"content": b"x"}, "post": {"json": {}}}
    for method, path in asked:
        answers = []
        for name in (foreign, ghost):
            address = path.replace("{job_id}", name).replace("{session_id}", name).replace("{path}", "a")
            body = bodies.get(method, {})
            answer = await two.request(method.upper(), address, **body)
            answers.append((answer.status_code, answer.text.replace(name, "")))
        assert answers[0] == answers[1], (method, path)
        assert answers[0][0] == 404, (method, path)
    told = [await two.post("/v1/jobs", json={"code": "1", "session": name}) for name in (foreign, ghost)]
    assert told[0].status_code == 404
    assert told[0].content == told[1].content
    assert (await two.get("/v1/sessions")).json()["sessions"] == []
    assert len((await api.get("/v1/sessions")).json()["sessions"]) == 1


async def test_a_lease_is_not_given_after_a_revocation(desk, worker, api):
    """A job that the dispatcher chose a moment before its key was revoked is not sent, and ends refused."""
    made = await minted(api, "agent")
    # Held, so that the controller's own dispatcher stands still meanwhile.
    async with speaking(desk, made["secret"]) as agent, desk.roster.gate:
        job_id = (await agent.post("/v1/jobs", json={"code": "1"})).json()["job_id"]
        queue, mounts, _ = await desk.store.read(dispatch._look)
        plans = dispatch._choose(desk, queue, mounts)
        assert [plan.job.job_id for plan in plans] == [job_id]
        await api.delete("/v1/keys/agent")
        assert await desk.store.transact(lambda tx: dispatch._lease(desk, tx, plans[0])) is None
    ended = (await api.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=10"})).json()
    assert ended["end"]["code"] == "key_revoked"


async def test_records_name_the_key(worker, api, pair_of_keys):
    """Who submitted a job stands in the trail by name and id."""
    one, _ = pair_of_keys
    job_id = (await one.post("/v1/jobs", json={"code": "1"})).json()["job_id"]
    records = (await api.get("/v1/records", params={"job_id": job_id})).json()["records"]
    assert re.fullmatch(r"key:one/k-[0-9a-f]{12}", records[0]["subject"])


async def test_idempotency_keys_and_job_ids_of_two_keys_never_meet(worker, api, pair_of_keys):
    """The same idempotency key makes two jobs; an id outside of one's space is refused, taken or not."""
    one, two = pair_of_keys
    headers = {"Idempotency-Key": "nightly"}
    first = await one.post("/v1/jobs", json={"code": "1"}, headers=headers)
    second = await two.post("/v1/jobs", json={"code": "2"}, headers=headers)
    assert first.json()["job_id"] != second.json()["job_id"]
    again = await one.post("/v1/jobs", json={"code": "1"}, headers=headers)
    assert (again.json()["job_id"], again.headers["idempotency-replayed"]) == (first.json()["job_id"], "true")
    await api.post("/v1/jobs", json={"code": "1", "job_id": "taken"})
    answers = [await one.post("/v1/jobs", json={"code": "1", "job_id": name}) for name in ("taken", "free")]
    assert [check_problem(answer, 422, "job_id_not_yours")["fix"] for answer in answers]
    assert answers[0].content == answers[1].content
    own = (await one.get("/v1/keys/self")).json()["key_id"]
    named = await one.post("/v1/jobs", json={"code": "1", "job_id": f"{own}.nightly"})
    assert named.status_code == 202


async def test_anothers_request_in_flight_does_not_show(desk, worker, pair_of_keys):
    """While one key waits for its answer, another sends the same key and body and gets a job of its own."""
    one, two = pair_of_keys
    headers = {"Idempotency-Key": "nightly"}
    waiting = asyncio.ensure_future(
        one.post("/v1/jobs", json={"code": "1"}, headers={**headers, "Prefer": "wait=20"})
    )
    lease = await worker.lease()
    repeated = await one.post("/v1/jobs", json={"code": "1"}, headers=headers)
    check_problem(repeated, 409, "idempotency_in_flight")
    assert (await two.post("/v1/jobs", json={"code": "1"}, headers=headers)).status_code == 202
    await worker.finish(lease)
    assert (await waiting).status_code == 200


async def test_anothers_blob_is_answered_as_one_that_is_not_there(desk, worker, api, pair_of_keys):
    """Neither asking for a blob nor naming it in a job tells a key what another, or the owner, has stored."""
    one, two = pair_of_keys
    secret = b"a letter that only one of them has"
    digest, ghost = hashlib.sha256(secret).hexdigest(), "0" * 64
    assert (await one.put(f"/v1/blobs/{digest}", content=secret)).status_code == 201
    assert (await one.head(f"/v1/blobs/{digest}")).status_code == 200
    assert (await api.head(f"/v1/blobs/{digest}")).status_code == 200
    for asker in (two,):
        assert (await asker.head(f"/v1/blobs/{digest}")).status_code == 404
        foreign, absent = [
            await asker.post("/v1/jobs", json={"code": "1", "files": [{"path": "a", "sha256": name}]})
            for name in (digest, ghost)
        ]
        check_problem(foreign, 422, "blob_not_found")
        assert foreign.content == absent.content
    await _done(desk, worker, one, files=[{"path": "a", "sha256": digest}])
    assert (await two.head(f"/v1/blobs/{RESULT_DIGEST}")).status_code == 404
    # What a job of one's own left may go into the next one.
    onward = await one.post("/v1/jobs", json={"code": "1", "files": [{"path": "a", "sha256": RESULT_DIGEST}]})
    assert onward.status_code == 202
    assert (await two.put(f"/v1/blobs/{digest}", content=secret)).status_code == 201
    assert (await two.head(f"/v1/blobs/{digest}")).status_code == 200


# --- mounts ----------------------------------------------------------------------------------


async def test_a_mount_that_was_not_allowed_is_not_there(desk, worker, api, mount):
    """By name and by id, in a job and in a session, the answer is that for a mount that never was."""
    made = await minted(api, "agent")
    async with speaking(desk, made["secret"]) as agent:
        assert (await agent.get("/v1/mounts")).json() == {"mounts": []}
        for address in ("/v1/jobs", "/v1/sessions"):
            for name in ("docs", mount["mount_id"]):
                body = {"mounts": [name]} | ({"code": "1"} if address == "/v1/jobs" else {})
                foreign = await agent.post(address, json=body)
                absent = await agent.post(address, json={**body, "mounts": ["x" * len(name)]})
                check_problem(foreign, 403, "mount_not_allowed")
                assert foreign.text.replace(name, "x" * len(name)) == absent.text
        allowed = await api.put("/v1/keys/agent/mounts/docs")
        assert allowed.json()["mounts"] == [mount["mount_id"]]
        assert (await agent.get("/v1/mounts")).json()["mounts"] == [mount]
        assert (await agent.post("/v1/jobs", json={"code": "1", "mounts": ["docs"]})).status_code == 202


async def test_a_denied_mount_ends_what_waits_for_it(desk, worker, api, mount):
    """Jobs of the key that were accepted with the mount and did not start end refused; others' go on."""
    made = await minted(api, "agent", mounts=["docs"])
    worker.live.draining = True
    async with speaking(desk, made["secret"]) as agent:
        mine = (await agent.post("/v1/jobs", json={"code": "1", "mounts": ["docs"]})).json()["job_id"]
        owners = (await api.post("/v1/jobs", json={"code": "1", "mounts": ["docs"]})).json()["job_id"]
        await api.delete("/v1/keys/agent/mounts/docs")
        ended = (await agent.get(f"/v1/jobs/{mine}", headers={"Prefer": "wait=10"})).json()
        check_problem(await agent.post("/v1/jobs", json={"code": "1", "mounts": ["docs"]}), 403, "mount_not_allowed")
    assert (ended["status"], ended["end"]["code"]) == ("refused", "mount_not_allowed")
    assert (await api.get(f"/v1/jobs/{owners}")).json()["status"] == "queued"


async def test_a_mount_that_comes_back_starts_with_no_key(api, mount, tmp_path_factory):
    """Removing a mount takes it from every key, and adding the same folder again gives it to none."""
    await minted(api, "agent", mounts=["docs"])
    folder = str(tmp_path_factory.getbasetemp() / "documents0")
    await api.delete(f"/v1/mounts/{mount['mount_id']}")
    back = await api.post("/v1/mounts", json={"path": folder, "name": "docs"})
    keys = (await api.get("/v1/keys")).json()["keys"]
    assert back.status_code == 201
    assert keys[1]["mounts"] == []


async def test_a_revoked_key_leaves_nothing_under_way(desk, worker, api):
    """Its waiting job ends refused, its running job is cancelled, and one who follows it is cut off."""
    made = await minted(api, "agent")
    async with speaking(desk, made["secret"]) as agent:
        running = (await agent.post("/v1/jobs", json={"code": "1"})).json()["job_id"]
        await worker.lease()
        worker.live.draining = True
        waiting = (await agent.post("/v1/jobs", json={"code": "2"})).json()["job_id"]
        following = asyncio.ensure_future(agent.get(f"/v1/jobs/{running}/events"))
        await asyncio.sleep(0)
        assert (await agent.get(f"/v1/jobs/{running}")).status_code == 200
        await api.delete("/v1/keys/agent")
        told = await asyncio.wait_for(following, 10)
    assert told.status_code == 401 or "event: error" in told.text
    assert "event: end" not in told.text
    ended = (await api.get(f"/v1/jobs/{waiting}", headers={"Prefer": "wait=10"})).json()
    assert (ended["status"], ended["end"]["code"]) == ("refused", "key_revoked")
    assert (await api.get(f"/v1/jobs/{running}")).json()["cancel_requested"] is True


async def test_no_answer_of_the_api_tells_a_host_path(desk, worker, api, tmp_path_factory):
    """Whatever a key asks about a mount, the folder's path is in none of the answers."""
    folder = tmp_path_factory.mktemp("very-private-folder")
    await api.post("/v1/mounts", json={"path": str(folder), "name": "docs"})
    made = await minted(api, "agent", mounts=["docs"])
    async with speaking(desk, made["secret"]) as agent:
        job_id = (await agent.post("/v1/jobs", json={"code": "1", "mounts": ["docs"]})).json()["job_id"]
        await worker.finish(await worker.lease())
        answers = [
            await agent.get(address)
            for address in (
                "/v1/mounts", f"/v1/jobs/{job_id}", "/v1/jobs", f"/v1/jobs/{job_id}/events", "/v1/keys/self",
                f"/v1/records?job_id={job_id}", "/v1/workers", "/v1/capabilities", "/metrics",
            )
        ]  # fmt: skip
    assert all(answer.status_code == 200 for answer in answers)
    assert not [answer.url for answer in answers if "very-private" in json.dumps(answer.text)]


async def opened(client, count=1, **fields):
    """Open sessions and return their ids."""
    made = [await client.post("/v1/sessions", json={"memory_bytes": 64 << 20, **fields}) for _ in range(count)]
    assert {answer.status_code for answer in made} == {201}, [answer.text for answer in made]
    return [answer.json()["session_id"] for answer in made]


async def test_a_key_leaves_sessions_for_others(api, desk, pair_of_keys):
    """Of a worker's sessions one key opens its share, the next key its own, and the owner whatever is left."""
    first, second = pair_of_keys
    async with paired(desk, {}, count_max=9):
        mine = await opened(first, desk.policy.worker_sessions_max // 2)
        refused = await first.post("/v1/sessions", json={})
        assert "its share" in check_problem(refused, 503, "key_share_taken")["detail"]
        await opened(second, desk.policy.worker_sessions_max // 2)
        check_problem(await second.post("/v1/sessions", json={}), 503, "key_share_taken")
        await opened(api)
        assert (await first.delete(f"/v1/sessions/{mine[0]}")).status_code in (200, 204)
        await opened(first)


async def test_a_key_leaves_memory_for_others(api, desk):
    """Sessions that are few but large use a share up as well; a first one is never too large."""
    small = replace(desk, policy=replace(desk.policy, worker_sessions_bytes_max=192 << 20))
    async with paired(desk, {}), speaking(small, (await minted(api, "one"))["secret"]) as key:
        await opened(key, memory_bytes=64 << 20)
        check_problem(await key.post("/v1/sessions", json={"memory_bytes": 64 << 20}), 503, "key_share_taken")
        check_problem(await key.post("/v1/sessions", json={}), 503, "key_share_taken")
        await opened(key, memory_bytes=32 << 20)

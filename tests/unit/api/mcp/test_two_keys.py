"""Two keys at the doors for agents: neither sees what is the other's, and what is not theirs is answered as what never was."""

import json
from dataclasses import replace
from types import SimpleNamespace

import httpx2
import pytest
from fastapi import Request

from crank.api.app import build_api
from crank.api.documents import desk_of
from crank.api.mcp import prompts, resources
from crank.testing.samples import sample_session
from tests.unit.api.mcp.test_door import call, message
from tests.unit.api.mcp.test_seats import FORM, LISTING, OPENING
from tests.unit.api.test_keys import _done, minted

GHOST = "01a22c25-c053-75ba-a18d-e8c260b2c9b7"
FOREIGN_SESSION = "01a22c25-c053-75ba-a18d-e8c260b2c9b8"
NOWHERE = "nope"


class Two:
    """Clients of two keys, and what is the first one's: a job with a file, a session, a mount."""

    def __init__(self, one, two, owner, job_id):
        self.one, self.two, self.owner, self.job_id = one, two, owner, job_id

    async def same(self, ask):
        """Return what the second is told, after showing that it is told the same of what never was."""
        told = []
        for job_id, session, mount in ((self.job_id, FOREIGN_SESSION, "ledgers"), (GHOST, GHOST, NOWHERE)):
            text = json.dumps(await ask(self.two, job_id, session, mount))
            for name, kind in ((job_id, "JOB"), (session, "SESSION"), (f"'{mount}'", "MOUNT")):
                text = text.replace(name, kind)
            told.append(text)
        assert told[0].replace("SESSION", "JOB") == told[1].replace("SESSION", "JOB")
        return told[0]


@pytest.fixture
async def pair(api, desk, worker, tmp_path_factory):
    """Give the two keys; the folder, the job and the session are the first one's alone."""
    folder = tmp_path_factory.mktemp("documents")
    await api.post("/v1/mounts", json={"path": str(folder), "name": "ledgers"})
    keys = [await minted(api, "one", mounts=["ledgers"]), await minted(api, "two")]
    app = build_api(desk, version="0", more_names=["node.test"])
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    clients = [
        httpx2.AsyncClient(
            transport=transport, base_url="https://node.test", headers={"authorization": f"Bearer {key['secret']}"}
        )
        for key in keys
    ]
    job_id = await _done(desk, worker, clients[0])
    session = replace(sample_session(FOREIGN_SESSION), owner=keys[0]["key_id"])
    await desk.store.transact(lambda tx: tx.sessions.insert(session))
    yield Two(clients[0], clients[1], keys[0]["key_id"], job_id)
    for client in clients:
        await client.aclose()
    await app.state.mcp.close()


async def _ask(client, method, **params):
    """Send a request of the newest revision and return what it is answered with, or refused with."""
    request = message(method, **params)
    if "uri" in params:
        request["headers"]["mcp-name"] = params["uri"]
    told = (await client.post("/mcp", **request)).text
    lines = [line.removeprefix("data: ") for line in told.splitlines() if line.startswith("data: ")]
    found = json.loads(lines[-1] if lines else told)
    return found.get("result") or found["error"]


async def _read(client, uri):
    return await _ask(client, "resources/read", uri=uri)


OF_A_JOB = (
    ("job_wait", lambda job, _s, _m: {"job_id": job, "wait_sec": 0}),
    ("job_cancel", lambda job, _s, _m: {"job_id": job}),
    ("list_files", lambda job, _s, _m: {"job_id": job}),
    ("read_file", lambda job, _s, _m: {"job_id": job, "path": "a.txt"}),
    ("read_file", lambda job, _s, _m: {"job_id": job, "stream": "stdout"}),
)
OF_ANOTHER_PLACE = (
    ("list_files", lambda _j, session, _m: {"session": session}),
    ("read_file", lambda _j, session, _m: {"session": session, "path": "a"}),
    ("run_python", lambda _j, session, _m: {"session": session, "code": "1"}),
    ("list_files", lambda _j, _s, mount: {"mount": mount}),
    ("read_file", lambda _j, _s, mount: {"mount": mount, "path": "a"}),
    ("run_python", lambda _j, _s, mount: {"mounts": [mount], "code": "1", "wait_sec": 0}),
    ("run_python", lambda _j, _s, mount: {"mounts": [mount], "code": "1", "session": "new"}),
)


def test_without_a_proven_caller_there_is_no_desk():
    """A route that forgot to ask who calls gets no desk at all, rather than the one that sees everything."""
    app = SimpleNamespace(state=SimpleNamespace(desk="that sees everything"))
    with pytest.raises(AttributeError):
        desk_of(Request({"type": "http", "headers": [], "app": app}))


@pytest.mark.parametrize(("name", "arguments"), [*OF_A_JOB, *OF_ANOTHER_PLACE])
async def test_a_tool_finds_nothing_that_is_anothers(pair, api, name, arguments):
    """Each tool with each kind of place: refused, word for word as with what never was, and nothing is left behind."""

    async def ask(client, *places):
        return await call(client, name, **arguments(*places))

    told = json.loads(await pair.same(ask))
    assert told["isError"] is True
    assert (await pair.two.get("/v1/jobs")).json()["jobs"] == []
    assert (await pair.two.get("/v1/sessions")).json()["sessions"] == []
    job = (await api.get(f"/v1/jobs/{pair.job_id}")).json()
    assert (job["status"], job["cancel_requested"]) == ("succeeded", False)
    if (name, arguments) in OF_A_JOB:
        assert not (await ask(pair.one, pair.job_id, "", "")).get("isError")


async def test_lists_of_tools_hold_what_is_ones_own(pair):
    """Without a place the mounts are listed: those of this key."""
    listed = [(await call(client, "list_files"))["structuredContent"]["files"] for client in (pair.one, pair.two)]
    assert [[entry["path"] for entry in files] for files in listed] == [["ledgers"], []]


JOB_RESOURCES = [entry["uri_template"] for entry in resources.TEMPLATES if "{job_id}" in entry["uri_template"]]


@pytest.mark.parametrize("template", JOB_RESOURCES)
async def test_a_resource_of_anothers_job_is_none(pair, template):
    """Every address of a job, whichever is added later: the first key reads it, for the second it is not there."""

    def uri(job_id):
        return template.replace("{job_id}", job_id).replace("{+path}", "a.txt")

    async def ask(client, job_id, *_):
        return await _read(client, uri(job_id))

    assert "contents" in await _read(pair.one, uri(pair.job_id))
    told = json.loads(await pair.same(ask))
    assert "contents" not in told
    assert told["data"]["code"] in ("job_not_found", "not_found")


async def test_every_other_resource_and_prompt_tells_each_what_is_theirs(pair):
    """The shared folder stands in what the first one reads and in nothing that the second one reads."""
    assert len(JOB_RESOURCES) == len(resources.TEMPLATES) - 1
    for entry in resources.listed():
        texts = [json.dumps(await _read(client, entry["uri"])) for client in (pair.one, pair.two)]
        assert all('"contents"' in text for text in texts)
        assert "ledgers" not in texts[1]
        assert ("ledgers" in texts[0]) is (entry["name"] == "instructions")
    assert {entry["name"] for entry in prompts.LISTED} == {"process_folder", "instructions"}
    pages = [json.dumps(await _ask(client, "prompts/get", name="instructions")) for client in (pair.one, pair.two)]
    assert ["`ledgers`" in page for page in pages] == [True, False]

    async def process(client, _job, _session, mount):
        return await _ask(client, "prompts/get", name="process_folder", arguments={"mount": mount, "goal": "x"})

    assert "messages" in await process(pair.one, "", "", "ledgers")
    assert "mount_not_found" in await pair.same(process)


async def test_one_idempotency_key_of_two_is_two_jobs(pair):
    """What one key began is not answered to another that uses the same word."""
    fields = {"code": "1", "wait_sec": 0, "idempotency_key": "nightly"}
    made = [(await call(client, "run_python", **fields))["structuredContent"]["job_id"] for client in (pair.one, pair.two)]
    assert made[0] != made[1]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/actions/jobs/JOB?wait_sec=0", None),
        ("POST", "/v1/actions/jobs/JOB/cancel", None),
        ("GET", "/v1/actions/jobs/JOB/files", None),
        ("GET", "/v1/actions/jobs/JOB/files?path=a.txt", None),
        ("GET", "/v1/actions/jobs/JOB/text?path=a.txt", None),
        ("POST", "/v1/actions/run", {"code": "1", "folders": ["MOUNT"], "wait_sec": 0}),
    ],
)
async def test_an_action_finds_nothing_that_is_anothers(pair, method, path, body):
    """Each operation that names a job or a folder: for the second key it never was; the first one has it."""

    async def ask(client, job_id, _session, mount):
        sent = None if body is None else json.loads(json.dumps(body).replace("MOUNT", mount))
        answer = await client.request(method, path.replace("JOB", job_id), json=sent)
        return [answer.status_code, answer.json()]

    assert (await ask(pair.one, pair.job_id, "", "ledgers"))[0] == 200
    assert json.loads(await pair.same(ask))[0] in (403, 404)
    assert (await pair.two.get("/v1/jobs")).json()["jobs"] == []


@pytest.mark.parametrize("path", ["/llms.txt", "/v1/actions/node"])
async def test_a_page_of_instructions_is_of_its_reader(pair, path):
    """The first one's folder is named to the first one."""
    assert ["`ledgers`" in (await client.get(path)).text for client in (pair.one, pair.two)] == [True, False]


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_a_session_of_the_older_era_is_of_one_key(pair, method):
    """With its id another key gets what it gets for an unknown one, and it goes on for whom it belongs to."""
    opened = await pair.one.post("/mcp", json=OPENING, headers=FORM)
    session = opened.headers["mcp-session-id"]
    answers = []
    for name in (session, "0" * 32):
        body = {"json": LISTING} if method == "POST" else {}
        headers = {**FORM, "mcp-session-id": name}
        answer = await pair.two.request(method, "/mcp", headers=headers, **body)
        answers.append((answer.status_code, answer.text))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    own = await pair.one.post("/mcp", json=LISTING, headers={**FORM, "mcp-session-id": session})
    assert own.status_code == 200

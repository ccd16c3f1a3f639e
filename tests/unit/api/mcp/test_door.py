"""What stands before MCP: names, credentials, form and bodies, each refused in its own typed way."""

import asyncio
import contextlib
import json
import subprocess
import sys

import httpx2
import pytest

from crank.api.mcp.door import Door
from crank.api.peer import Gate
from crank.controller.submit import Submission, submit
from crank.domain.ids import LOCAL_TENANT
from crank.domain.job import Status
from tests.support.desk import SECRET, ScriptedWorker, open_desk
from tests.unit.api.conftest import CORE, check_problem

VERSION = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "0"},
}


def message(method, **params):
    """Return a request of the newest revision and its headers."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": META, **params}}
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": VERSION,
        "mcp-method": method,
        **({"mcp-name": params["name"]} if "name" in params else {}),
    }
    return {"content": json.dumps(body), "headers": headers}


async def call(client, name, /, **arguments):
    """Call a tool and return its result."""
    answer = await client.post("/mcp", **message("tools/call", name=name, arguments=arguments))
    assert answer.status_code == 200, answer.text
    text = answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        text = [line for line in text.splitlines() if line.startswith("data: ")][-1].removeprefix("data: ")
    return json.loads(text)["result"]


async def test_a_stranger_learns_nothing(house):
    """Without a credential, or with a wrong one, the answer is the same as everywhere."""
    _, door, client = house
    for secret in ("", "Bearer wrong"):
        answer = await client.post("/mcp", **_with(message("tools/list"), authorization=secret))
        check_problem(answer, 401, "not_authenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert door._manager is None


def _with(request, **headers):
    return {**request, "headers": {**request["headers"], **headers}}


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"host": "evil.example"}, 421, "wrong_host"),
        ({"origin": "https://evil.example"}, 403, "wrong_origin"),
        ({"content-type": "text/plain"}, 415, "unsupported_media_type"),
        ({"accept": "text/html"}, 406, "not_acceptable"),
    ],
)
async def test_the_form_is_checked_first(house, headers, status, code):
    """A wrong name, a strange page and a wrong form are problem documents, before anything is read."""
    _, _, client = house
    answer = await client.post("/mcp", **_with(message("tools/list"), **headers))
    check_problem(answer, status, code)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, -32700),
        (b'{"a": 1, "a": 2}', 400, -32600),
        (b"[" * 200 + b"]" * 200, 400, -32600),
        (b'{"a": NaN}', 400, -32700),
        (b"\xff", 400, -32700),
    ],
)
async def test_a_broken_body_is_a_protocol_error(house, body, status, code):
    """What is not strict JSON is refused by the one strict reader, in the protocol's form."""
    _, _, client = house
    answer = await client.post("/mcp", **{**message("tools/list"), "content": body})
    told = answer.json()
    assert (answer.status_code, told["error"]["code"], told["id"]) == (status, code, None)
    assert told["error"]["data"]["fix"]


async def test_an_endless_body_is_refused(house):
    """A body over the limit is refused without being kept."""
    _, _, client = house
    answer = await client.post("/mcp", **{**message("tools/list"), "content": b" " * (8 * 1024 * 1024 + 1)})
    assert (answer.status_code, answer.json()["error"]["data"]["code"]) == (413, "body_too_large")


async def test_other_methods_are_refused(house):
    """MCP knows three methods."""
    _, _, client = house
    check_problem(await client.put("/mcp", content=b"{}"), 405, "method_not_allowed")


def test_a_controller_starts_without_the_sdk():
    """Everything that a controller loads to start is loaded without the SDK, so that starting never waits for it."""
    script = "import sys, crank.bootstrap.controller; sys.exit(bool({'mcp', 'mcp_types', 'sse_starlette'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


async def test_the_sdk_is_loaded_by_the_first_request(house):
    """Nothing is loaded before the first good request, and one is enough for everybody."""
    _, door, client = house
    assert door._manager is None
    answers = await asyncio.gather(*(client.post("/mcp", **message("tools/list")) for _ in range(5)))
    assert [len(answer.json()["result"]["tools"]) for answer in answers] == [7] * 5


async def test_a_call_that_is_cut_off_takes_its_job_along(house):
    """A client that goes away ends the job it waits for, and a detached one stays."""
    desk, door, client = house
    worker = ScriptedWorker(desk, "w1", [CORE], slots=4)
    await worker.connect()
    for detach in (False, True):
        calling = asyncio.ensure_future(call(client, "run_python", code="1", detach=detach, wait_sec=40))
        lease = await worker.lease()
        calling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await calling

        # The transport hands the end of the connection on in its own time.
        await _until(lambda: not door._errands.calls)
        await door._errands.finish()
        job = await desk.store.read(lambda tx, job_id=lease.job_id: tx.jobs.find(LOCAL_TENANT, job_id))
        assert job.cancel_requested is not detach


async def _until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def test_a_stopping_node_answers_with_the_job(house):
    """When the node stops, a waiting call answers at once with the job, which goes on."""
    desk, door, client = house
    worker = ScriptedWorker(desk, "w1", [CORE])
    await worker.connect()
    calling = asyncio.ensure_future(call(client, "run_python", code="1", wait_sec=40))
    lease = await worker.lease()
    await door.close()
    told = (await asyncio.wait_for(calling, 30))["structuredContent"]
    assert (told["job_id"], told["ended"]) == (lease.job_id, False)
    job = await desk.store.read(lambda tx: tx.jobs.find(LOCAL_TENANT, told["job_id"]))
    assert not job.cancel_requested
    check_problem(await client.post("/mcp", **message("tools/list")), 503, "node_stopping")


async def test_a_defect_tells_nothing_of_itself(house, monkeypatch):
    """What goes wrong inside is an error without a word about it."""
    _, _, client = house
    await client.post("/mcp", **message("tools/list"))

    def broken(*_):
        raise RuntimeError("a secret path")

    monkeypatch.setattr("crank.api.mcp.calls.discovery.find", broken)
    told = await call(client, "find_capability", query="x")
    assert told["isError"] is True
    assert "secret" not in json.dumps(told)
    assert json.loads(told["content"][0]["text"])["error"]["code"] == "internal_error"


async def test_a_session_of_the_older_era_belongs_to_who_opened_it(house):
    """A session's id alone opens nothing: without the credential it is refused, and an unknown one is not found."""
    _, _, client = house
    opening = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}},
    }  # fmt: skip
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    opened = await client.post("/mcp", json=opening, headers=headers)
    session = opened.headers["mcp-session-id"]
    listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    own = {**headers, "mcp-session-id": session}
    refused = await client.post("/mcp", json=listing, headers={**own, "authorization": "Bearer other"})
    check_problem(refused, 401, "not_authenticated")
    unknown = await client.post("/mcp", json=listing, headers={**own, "mcp-session-id": "0" * 32})
    assert unknown.status_code == 404


async def test_a_full_queue_is_told_as_such(tmp_path):
    """A refusal of the node reaches the model with its code and what to do, and leaves no job."""
    async with open_desk(tmp_path, queued_max=1) as desk:
        door = Door(desk, Gate(desk), version="0", names=["localhost"])
        worker = ScriptedWorker(desk, "w1", [CORE], slots=1)
        await worker.connect()
        await submit(desk, tenant=LOCAL_TENANT, subject="t", submission=Submission({"code": "1"}))
        await worker.lease()
        await submit(desk, tenant=LOCAL_TENANT, subject="t", submission=Submission({"code": "1"}))
        transport = httpx2.ASGITransport(app=door)
        headers = {"Authorization": f"Bearer {SECRET}"}
        async with httpx2.AsyncClient(transport=transport, base_url="https://localhost", headers=headers) as client:
            told = await call(client, "run_python", code="1", wait_sec=0)
        assert json.loads(told["content"][0]["text"])["error"]["code"] == "queue_full"
        assert await desk.store.read(lambda tx: tx.jobs.count(Status.QUEUED)) == 1
        await door.close()

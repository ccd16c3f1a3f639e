"""Sessions over HTTP, from the request down to a scripted sandbox: nothing between is faked."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from crank.controller.desk import Desk
from crank.controller.reap import reap
from crank.controller.report import receive
from crank.domain.outcome import End, Reason
from crank.errors import Unavailable
from crank.testing.fake_sandbox import ScriptedRun
from crank.wire import Ended, Lease, Open
from tests.support.pair import Pair, paired, until
from tests.unit.api.conftest import check_problem

SCRIPT = {
    "20 + 22": ScriptedRun(has_result=True, result=42),
    "forever": ScriptedRun(output=(("stdout", "begun\n"),), end=None),
    "echo": ScriptedRun(echoes_stdin=True),
    "die": ScriptedRun(end=End(Reason.MEMORY, message="It passed 64 MiB.")),
    "raise": ScriptedRun(end=End(Reason.RAISED, exit_code=1, message="ValueError: no")),
    "pandoc -v": ScriptedRun(output=(("stdout", "pandoc 3\n"),)),
}
UNKNOWN = "0190a6a4-7b1c-7d2e-8f00-0123456789ab"


@pytest.fixture
async def pair(desk: Desk) -> AsyncIterator[Pair]:
    """Give a worker beside the desk."""
    async with paired(desk, SCRIPT, count_max=3) as made:
        yield made


async def opened(api: httpx2.AsyncClient, **fields: Any) -> str:
    """Open a session and return its id."""
    answered = await api.post("/v1/sessions", json=fields)
    assert answered.status_code == 201, answered.text
    return str(answered.json()["session_id"])


async def run(api: httpx2.AsyncClient, session_id: str | None, code: str | None, **fields: Any) -> dict[str, Any]:
    """Run a job to its end."""
    body = {"code": code, "session": session_id, **fields}
    answered = await api.post("/v1/jobs", json=body, headers={"Prefer": "wait=20"})
    assert answered.status_code == 200, answered.text
    return dict(answered.json())


async def begun(api: httpx2.AsyncClient, session_id: str | None, code: str = "forever", **fields: Any) -> str:
    """Start a job that runs on, and return its id."""
    job_id = str((await api.post("/v1/jobs", json={"code": code, "session": session_id, **fields})).json()["job_id"])

    async def runs() -> bool:
        return bool((await api.get(f"/v1/jobs/{job_id}")).json()["status"] == "running")

    await until(runs)
    return job_id


async def session(api: httpx2.AsyncClient, session_id: str) -> dict[str, Any]:
    """Return a session as it stands."""
    return dict((await api.get(f"/v1/sessions/{session_id}")).json())


async def ended(api: httpx2.AsyncClient, session_id: str) -> dict[str, Any]:
    """Return how a session ended, waiting for it."""

    async def over() -> bool:
        return (await session(api, session_id))["state"] == "ended"

    await until(over)
    return dict((await session(api, session_id))["end"])


async def test_a_session_opens_runs_and_closes(api, pair) -> None:
    """A session stands when it is answered, runs job after job in one sandbox, and is gone when closed."""
    answered = await api.post("/v1/sessions", json={"name": "nb", "idle_sec": 60, "memory_bytes": 64 << 20})
    document = answered.json()
    session_id = document["session_id"]
    assert (answered.status_code, answered.headers["location"]) == (201, f"/v1/sessions/{session_id}")
    assert (document["state"], document["tier"], document["name"]) == ("open", "none", "nb")
    assert (document["clocks"]["idle_sec"], document["clocks"]["lifetime_sec"]) == (60, 3600)
    assert document["clocks"]["idle_until"] < document["clocks"]["lifetime_until"]
    assert document["limits"]["memory_bytes"] == pair.sandbox.spec.limits.memory_bytes == 64 << 20
    first = await run(api, session_id, "20 + 22")
    second = await run(api, session_id, "raise", context="other")
    assert (first["result"], first["session_id"], first["context"]) == (42, session_id, "main")
    assert second["end"]["message"] == "ValueError: no"
    assert pair.sandbox.history == [("main", "20 + 22"), ("other", "raise")]
    closed = (await api.delete(f"/v1/sessions/{session_id}")).json()
    assert (closed["state"], closed["end"]["reason"]) == ("ended", "closed")
    await until(lambda: not pair.sandbox.alive)
    assert (await api.delete(f"/v1/sessions/{session_id}")).json()["end"]["reason"] == "closed"
    assert [one["session_id"] for one in (await api.get("/v1/sessions")).json()["sessions"]] == [session_id]


async def test_jobs_of_one_session_wait_for_each_other(api, pair) -> None:
    """A second job of a session is queued until the first has ended; another session does not wait."""
    one, other = await opened(api), await opened(api)
    first = await begun(api, one)
    second = (await api.post("/v1/jobs", json={"code": "20 + 22", "session": one})).json()["job_id"]
    assert (await run(api, other, "20 + 22"))["result"] == 42
    document = await session(api, one)
    assert (document["running_job_id"], document["queued_jobs"]) == (first, 1)
    assert document["clocks"]["idle_until"] is None
    assert (await api.get(f"/v1/jobs/{second}")).json()["status"] == "queued"
    await api.post(f"/v1/jobs/{first}/interrupt")
    ended_second = (await api.get(f"/v1/jobs/{second}", headers={"Prefer": "wait=20"})).json()
    assert ended_second["status"] == "succeeded"
    assert (await api.get(f"/v1/jobs/{first}")).json()["end"]["message"] == "KeyboardInterrupt"


async def test_a_resting_session_takes_no_slot(api, desk) -> None:
    """With one slot and one open session, ordinary jobs still run."""
    async with paired(desk, SCRIPT, slots=1):
        await opened(api)
        assert (await run(api, None, "20 + 22"))["result"] == 42


async def test_what_a_session_fixed_is_not_said_again(api, pair) -> None:
    """A job that wants another capability, other mounts or memory than its session is refused, each with its field."""
    session_id = await opened(api)
    job = {"code": "20 + 22", "session": session_id}
    for field, value in (("capability", "python.run.ml"), ("env_profile", "python-ml"), ("version", "1"),
                         ("mounts", ["docs"])):  # fmt: skip
        body = check_problem(await api.post("/v1/jobs", json={**job, field: value}), 422, "session_mismatch")
        assert body["field"] == field
    for name, wanted in (("memory_bytes", 64 << 20), ("accelerator", "cpu"), ("gpu_model", "x"), ("attestation", "join")):
        answered = await api.post("/v1/jobs", json={**job, "constraints": {name: wanted}})
        assert check_problem(answered, 422, "session_mismatch")["field"] == f"constraints.{name}"
    same = await run(api, session_id, "20 + 22", capability="python.run.core", constraints={"timeout_sec": 5})
    assert same["result"] == 42
    late = await api.post("/v1/jobs", json={**job, "constraints": {"timeout_sec": 9999}})
    check_problem(late, 422, "unsatisfied-capability")


async def test_sessions_that_are_not_there_look_alike(api, pair) -> None:
    """Whatever is asked of an unknown session, the answer is the same 404."""
    check_problem(await api.get(f"/v1/sessions/{UNKNOWN}"), 404, "session_not_found")
    check_problem(await api.delete(f"/v1/sessions/{UNKNOWN}"), 404, "session_not_found")
    check_problem(await api.post(f"/v1/sessions/{UNKNOWN}/touch", json={}), 404, "session_not_found")
    check_problem(await api.get(f"/v1/sessions/{UNKNOWN}/files"), 404, "session_not_found")
    check_problem(await api.post("/v1/jobs", json={"code": "1", "session": UNKNOWN}), 404, "session_not_found")
    check_problem(await api.get("/v1/sessions/not-an-id"), 422, "invalid_session_id")


async def test_an_ended_session_takes_nothing(api, pair) -> None:
    """Jobs, files and clocks of an ended session are refused with the code session_ended and why it ended."""
    session_id = await opened(api)
    await api.delete(f"/v1/sessions/{session_id}")
    refused = await api.post("/v1/jobs", json={"code": "20 + 22", "session": session_id})
    assert "closed" in check_problem(refused, 409, "session_ended")["detail"]
    check_problem(await api.get(f"/v1/sessions/{session_id}/files"), 409, "session_ended")
    check_problem(await api.post(f"/v1/sessions/{session_id}/touch", json={}), 409, "session_ended")


async def test_closing_ends_what_runs_and_what_waits(api, pair) -> None:
    """The running job ends as cancelled, the waiting one as refused, both with the code session_ended."""
    session_id = await opened(api)
    first = await begun(api, session_id)
    second = (await api.post("/v1/jobs", json={"code": "20 + 22", "session": session_id})).json()["job_id"]
    await api.delete(f"/v1/sessions/{session_id}")
    waited = (await api.get(f"/v1/jobs/{second}", headers={"Prefer": "wait=20"})).json()
    assert (waited["status"], waited["end"]["code"]) == ("refused", "session_ended")
    stopped = (await api.get(f"/v1/jobs/{first}", headers={"Prefer": "wait=20"})).json()
    assert (stopped["status"], stopped["end"]["code"], stopped["stdout"]) == ("cancelled", "session_ended", "begun\n")


async def test_cancelling_a_job_leaves_its_session(api, pair) -> None:
    """A cancelled job is interrupted: it ends as cancelled, and its session runs the next."""
    session_id = await opened(api)
    job_id = await begun(api, session_id)
    await api.post(f"/v1/jobs/{job_id}/cancel")
    job = (await api.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"})).json()
    assert (job["status"], "lives on" in job["end"]["message"]) == ("cancelled", True)
    assert (await run(api, session_id, "20 + 22"))["result"] == 42


async def test_a_job_that_breaks_its_sandbox_ends_the_session(api, pair) -> None:
    """The session ends as crashed and names the job and how that ended; jobs that wait are refused."""
    session_id = await opened(api)
    job = await run(api, session_id, "die")
    assert job["end"]["reason"] == "memory"
    end = await ended(api, session_id)
    assert (end["reason"], end["code"], end["job_id"]) == ("crashed", "memory", job["job_id"])
    assert end["job_end"]["reason"] == "memory"


async def test_the_idle_clock_runs_while_no_job_does(api, pair) -> None:
    """A session ends idle after its idle time without a job, not while one runs; a touch turns the clock."""
    session_id = await opened(api, idle_sec=60)
    job_id = await begun(api, session_id)
    pair.clock.advance(100)
    pair.worker._sessions.tick()
    assert (await session(api, session_id))["state"] == "open"
    await api.post(f"/v1/jobs/{job_id}/interrupt")
    await api.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"})
    pair.clock.advance(50)
    touched = (await api.post(f"/v1/sessions/{session_id}/touch", json={"idle_sec": 90})).json()
    assert touched["clocks"]["idle_sec"] == 90
    assert (await run(api, session_id, "20 + 22"))["result"] == 42
    pair.clock.advance(80)
    pair.worker._sessions.tick()
    assert (await session(api, session_id))["state"] == "open"
    pair.clock.advance(11)
    assert (await ended(api, session_id))["reason"] == "idle"


async def test_the_lifetime_ends_even_a_running_job(api, pair) -> None:
    """At the end of its lifetime a session ends with its running job, and both say so."""
    session_id = await opened(api, lifetime_sec=30)
    job_id = await begun(api, session_id)
    pair.clock.advance(31)
    assert (await ended(api, session_id))["reason"] == "lifetime"
    job = (await api.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"})).json()
    assert (job["status"], job["end"]["clock"], job["end"]["code"]) == ("timed_out", "lifetime", "session_ended")
    assert "lifetime" in job["end"]["message"]


async def test_clocks_have_ceilings(api, pair) -> None:
    """More than the operator allows is refused with the field, at opening and at touching."""
    session_id = await opened(api)
    for field, value in (("idle_sec", 1e5), ("lifetime_sec", 1e6), ("idle_sec", 0.1)):
        answered = await api.post("/v1/sessions", json={field: value})
        assert check_problem(answered, 422, "limit_out_of_range")["field"] == field
    check_problem(await api.post(f"/v1/sessions/{session_id}/touch", json={"idle_sec": 1e5}), 422, "limit_out_of_range")


async def test_sessions_are_bounded(api, pair) -> None:
    """A worker that is full hands a session back; nothing of the try stays open."""
    for _ in range(3):
        await opened(api)
    check_problem(await api.post("/v1/sessions", json={}), 503, "sessions_full")
    found = (await api.get("/v1/sessions")).json()["sessions"]
    assert [one["state"] for one in found] == ["ended", "open", "open", "open"]
    assert found[0]["end"]["code"] == "sessions_full"


async def test_memory_of_sessions_is_bounded(api, desk) -> None:
    """The memory limits of all sessions of a worker together stay under its bound."""
    async with paired(desk, SCRIPT, memory_bytes_max=100 << 20):
        await opened(api, memory_bytes=64 << 20)
        check_problem(await api.post("/v1/sessions", json={"memory_bytes": 64 << 20}), 503, "sessions_full")
        await opened(api, memory_bytes=32 << 20)


async def test_a_session_that_nobody_can_keep_is_refused(api, pair) -> None:
    """An unknown capability, a mount that is not there and a malformed name are refused at once."""
    check_problem(await api.post("/v1/sessions", json={"env_profile": "python-none"}), 422, "unsatisfied-capability")
    check_problem(await api.post("/v1/sessions", json={"mounts": ["nothing"]}), 403, "mount_not_allowed")
    check_problem(await api.post("/v1/sessions", json={"name": "A B"}), 422, "invalid_name")
    assert (await api.get("/v1/sessions")).json()["sessions"] == []


async def test_programs_run_with_and_without_a_session(api, pair) -> None:
    """A program that the profile lists runs; another is refused with what is listed, and nothing of it runs."""
    session_id = await opened(api)
    for where in (session_id, None):
        assert (await run(api, where, None, program=["pandoc", "-v"]))["stdout"] == "pandoc 3\n"
        refused = await run(api, where, None, program=["rm", "-r"])
        assert (refused["status"], refused["end"]["code"]) == ("failed", "program_not_listed")
        assert "pandoc" in refused["end"]["message"]
    check_problem(await api.post("/v1/jobs", json={"session": session_id}), 422, "missing_field")


@pytest.mark.parametrize("in_session", [True, False])
async def test_stdin_is_taken_once(api, pair, in_session: bool) -> None:
    """Bytes that are sent again with their offset are not taken twice; a gap is refused; the end ends the reading."""
    job_id = await begun(api, await opened(api) if in_session else None, "echo", stdin=True)
    path = f"/v1/jobs/{job_id}/stdin"
    for _ in range(2):
        taken = await api.post(path, json={"text": "one ", "offset_bytes": 0})
        assert taken.json() == {"taken_bytes": 4, "ended": False}
    check_problem(await api.post(path, json={"text": "x", "offset_bytes": 9}), 409, "stdin_gap")
    assert (await api.post(path, json={"base64": "dHdv"})).json()["taken_bytes"] == 7
    assert (await api.post(path, json={"text": "wo!", "offset_bytes": 5, "end": True})).json() == {
        "taken_bytes": 8,
        "ended": True,
    }
    job = (await api.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"})).json()
    assert job["stdout"] == "one two!"
    check_problem(await api.post(path, json={"text": "x"}), 409, "job_not_running")


async def test_calls_on_what_does_not_run_are_conflicts(api, pair) -> None:
    """A job that has ended, or whose stdin is empty, takes no call; what is malformed is refused first."""
    done = (await run(api, None, "20 + 22"))["job_id"]
    check_problem(await api.post(f"/v1/jobs/{done}/interrupt"), 409, "job_not_running")
    check_problem(await api.post(f"/v1/jobs/{done}/stdin", json={"text": "x"}), 409, "job_not_running")
    check_problem(await api.post("/v1/jobs/none/interrupt"), 404, "job_not_found")
    running = await begun(api, None)
    check_problem(await api.post(f"/v1/jobs/{running}/stdin", json={"text": "x"}), 409, "stdin_closed")
    check_problem(await api.post(f"/v1/jobs/{running}/stdin", json={"base64": "!"}), 422, "invalid_field")
    both = {"base64": "eA==", "text": "x"}
    check_problem(await api.post(f"/v1/jobs/{running}/stdin", json=both), 422, "invalid_field")
    large = {"text": "x" * (1 << 20) + "x"}
    check_problem(await api.post(f"/v1/jobs/{running}/stdin", json=large), 413, "stdin_too_large")
    assert (await api.post(f"/v1/jobs/{running}/interrupt")).status_code == 200
    job = (await api.get(f"/v1/jobs/{running}", headers={"Prefer": "wait=20"})).json()
    assert job["end"]["message"] == "KeyboardInterrupt"


async def test_files_of_a_session(api, pair) -> None:
    """Files are written, listed, read back and removed; content is never shown as something that acts."""
    session_id = await opened(api)
    files = f"/v1/sessions/{session_id}/files"
    content = bytes(range(256)) * 4096
    stored = await api.put(f"{files}/in/a b.bin", content=content)
    assert (stored.status_code, stored.json()["size_bytes"]) == (200, len(content))
    assert pair.sandbox.files == {"in/a b.bin": content}
    listed = (await api.get(files)).json()
    assert [(one["path"], one["kind"]) for one in listed["files"]] == [("in", "folder")]
    deeper = (await api.get(files, params={"path": "in"})).json()["files"]
    assert [(one["path"], one["size_bytes"]) for one in deeper] == [("in/a b.bin", len(content))]
    read = await api.get(f"{files}/in/a b.bin")
    assert (read.content, read.headers["etag"]) == (content, f'"{stored.json()["sha256"]}"')
    assert read.headers["content-disposition"] == "attachment; filename*=UTF-8''a%20b.bin"
    assert read.headers["content-security-policy"].startswith("sandbox")
    assert (await api.delete(f"{files}/in")).status_code == 204
    check_problem(await api.get(f"{files}/in/a b.bin"), 404, "file_not_found")
    check_problem(await api.delete(f"{files}/in"), 404, "file_not_found")
    check_problem(await api.get(files, params={"path": "../etc"}), 422, "invalid_path")
    check_problem(await api.put(f"{files}/a%5Cb", content=b"x"), 422, "invalid_path")


async def test_input_files_of_a_job_are_there(api, pair) -> None:
    """A job of a session may bring files, each time anew."""
    session_id = await opened(api)
    for text in ("one", "two"):
        await run(api, session_id, "20 + 22", files=[{"path": "a.txt", "text": text}])
        assert pair.sandbox.files["a.txt"] == text.encode()


async def test_a_broken_link_leaves_sessions_alone(api, pair, desk) -> None:
    """After a cut the worker says what it holds, and the session goes on with its state and its running job."""
    session_id = await opened(api)
    job_id = await begun(api, session_id)
    await pair.reconnected()
    assert (await session(api, session_id))["state"] == "open"
    assert (await api.post(f"/v1/jobs/{job_id}/interrupt")).status_code == 200
    assert (await run(api, session_id, "20 + 22"))["result"] == 42
    assert len(pair.runner.sessions) == 1


async def test_a_restarted_worker_ends_its_sessions(api, pair) -> None:
    """A worker that comes back without them has lost its sessions; running and waiting jobs end and say so."""
    session_id = await opened(api)
    running = await begun(api, session_id)
    waiting = (await api.post("/v1/jobs", json={"code": "20 + 22", "session": session_id, "effects": "pure"})).json()
    await pair.kill()
    await pair.restart()
    end = await ended(api, session_id)
    assert (end["reason"], end["code"]) == ("worker_lost", "worker_restarted")
    first = (await api.get(f"/v1/jobs/{running}", headers={"Prefer": "wait=20"})).json()
    assert (first["status"], first["attempts"]) == ("lost", 1)
    second = (await api.get(f"/v1/jobs/{waiting['job_id']}", headers={"Prefer": "wait=20"})).json()
    assert (second["status"], second["end"]["code"], second["attempts"]) == ("refused", "session_ended", 0)


async def test_a_worker_that_stays_away_loses_its_sessions(api, pair, desk, monkeypatch) -> None:
    """When the time of a lease has passed without its worker, a session ends; the worker closes it when it is back."""
    session_id = await opened(api)
    pair.connector.reachable.clear()
    pair.cut()
    await until(lambda: not desk.roster.live())
    monkeypatch.setattr(desk.roster, "away_sec", lambda worker_id, now_sec: 1e9)
    await reap(desk)
    end = await ended(api, session_id)
    assert (end["reason"], end["code"]) == ("worker_lost", "worker_silent")
    monkeypatch.undo()
    assert pair.sandbox.alive
    pair.connector.reachable.set()
    await until(lambda: not pair.sandbox.alive)


async def test_a_worker_that_leaves_ends_its_sessions(api, pair) -> None:
    """A drained worker ends resting sessions at once and a busy one when its job is over."""
    resting, busy = await opened(api), await opened(api)
    job_id = await begun(api, busy)
    pair.worker.drain(limit_sec=30)
    assert (await ended(api, resting))["code"] == "draining"
    assert (await session(api, busy))["state"] == "open"
    await api.post(f"/v1/jobs/{job_id}/interrupt")
    assert (await ended(api, busy))["reason"] == "worker_lost"
    job = (await api.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"})).json()
    assert job["end"]["message"] == "KeyboardInterrupt"


async def test_a_worker_without_jobs_tells_of_its_sessions_before_it_leaves(api, pair) -> None:
    """Draining a worker that only rests ends its sessions with a word, not by silence."""
    session_id = await opened(api)
    pair.worker.drain(limit_sec=30)
    assert (await ended(api, session_id))["code"] == "draining"
    assert await pair.running == 0
    assert not pair.sandbox.alive


async def test_another_tenants_session_looks_missing(api, pair, desk) -> None:
    """A session of another tenant is not seen, not used and not closed."""
    session_id = await opened(api)

    def give_away(tx: Any) -> None:
        (own,) = tx.sessions.live()
        other = replace(own, tenant="other", session_id=UNKNOWN)
        tx.sessions.insert(other)

    await desk.store.transact(give_away)
    check_problem(await api.get(f"/v1/sessions/{UNKNOWN}"), 404, "session_not_found")
    check_problem(await api.delete(f"/v1/sessions/{UNKNOWN}"), 404, "session_not_found")
    assert [one["session_id"] for one in (await api.get("/v1/sessions")).json()["sessions"]] == [session_id]


async def test_sessions_leave_a_trail(api, pair) -> None:
    """Opening, its end and an interrupt are recorded; the trail tells who and why."""
    session_id = await opened(api)
    job_id = await begun(api, session_id)
    await api.post(f"/v1/jobs/{job_id}/interrupt")
    await api.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"})
    await api.delete(f"/v1/sessions/{session_id}")
    records = (await api.get("/v1/records")).json()["records"]
    kinds = [record["kind"] for record in records if not record["kind"].startswith("worker.")]
    assert kinds == [
        "session.asked", "session.opened", "job.submitted", "job.leased", "job.interrupted", "job.ended", "session.ended",
    ]  # fmt: skip
    assert records[-1]["facts"] == {"session": session_id, "reason": "closed", "code": None}


async def test_many_jobs_of_one_session_run_in_order(api, pair) -> None:
    """Jobs that are sent together run one after another in the order in which they were accepted."""
    session_id = await opened(api)
    codes = [f"step {number}" for number in range(12)]
    for code in codes:
        assert (await api.post("/v1/jobs", json={"code": code, "session": session_id})).status_code == 202
    await until(lambda: len(pair.sandbox.history) == len(codes))
    assert [code for _, code in pair.sandbox.history] == codes


async def test_a_session_has_a_bounded_queue(api, pair) -> None:
    """Beyond its bound a session takes no more jobs, and says when to try again."""
    session_id = await opened(api)
    await begun(api, session_id)
    answers = [await api.post("/v1/jobs", json={"code": "20 + 22", "session": session_id}) for _ in range(64)]
    assert {answered.status_code for answered in answers[:-1]} == {202}
    check_problem(answers[-1], 503, "session_queue_full")


async def test_a_repeated_request_finds_its_job_after_the_session_ended(api, pair) -> None:
    """Idempotency is older than the session: a repeat gets its job, not a refusal."""
    session_id = await opened(api)
    job = await run(api, session_id, "20 + 22", idempotency_key="k1")
    await api.delete(f"/v1/sessions/{session_id}")
    again = await api.post("/v1/jobs", json={"code": "20 + 22", "session": session_id, "idempotency_key": "k1"})
    assert (again.json()["job_id"], again.headers["idempotency-replayed"]) == (job["job_id"], "true")


async def test_a_session_for_which_a_job_waits_does_not_rest(api, desk) -> None:
    """While a job waits for a free slot the idle clock stands still, however long that takes."""
    async with paired(desk, SCRIPT, slots=1) as pair:
        session_id = await opened(api, idle_sec=60)
        blocking = await begun(api, None)
        waiting = (await api.post("/v1/jobs", json={"code": "20 + 22", "session": session_id})).json()["job_id"]
        for _ in range(3):
            pair.clock.advance(50)
            await reap(desk)
            # The word travels over the link; an answered call shows that it has arrived.
            assert (await api.get(f"/v1/sessions/{session_id}/files")).status_code == 200
        pair.worker._sessions.tick()
        assert (await session(api, session_id))["clocks"]["idle_until"] is None
        await api.post(f"/v1/jobs/{blocking}/interrupt")
        assert (await api.get(f"/v1/jobs/{waiting}", headers={"Prefer": "wait=20"})).json()["result"] == 42


async def test_an_end_that_cannot_be_read_is_an_end(api, pair, desk) -> None:
    """A worker that tells nonsense about an end does not keep the session alive, nor lose its link."""
    session_id = await opened(api)
    (worker,) = desk.roster.live()
    await receive(desk, worker=worker, message=Ended(session_id, "made-up", None, None, None, {"reason": 3}))
    assert (await ended(api, session_id))["code"] == "end_unreadable"
    assert (await session(api, await opened(api)))["state"] == "open"


async def test_sessions_are_counted(api, pair) -> None:
    """The metrics tell how many sessions live."""
    await opened(api)
    assert 'crank_sessions{state="open"} 1' in (await api.get("/metrics")).text.splitlines()


async def test_a_session_that_its_worker_forgot_is_lost(api, pair) -> None:
    """A worker that does not know the session of a lease ends the job as refused and the session as lost."""
    session_id = await opened(api)
    pair.worker._sessions._kept.clear()
    job = await run(api, session_id, "20 + 22")
    assert (job["status"], job["end"]["code"]) == ("refused", "session_ended")
    assert (await ended(api, session_id))["reason"] == "worker_lost"


async def test_a_job_that_comes_as_its_session_ends_is_refused(api, pair) -> None:
    """When lease and end pass each other on the link, the job never begins and says for which reason."""
    session_id = await opened(api, idle_sec=60)
    pair.clock.advance(61)
    held = asyncio.Event()
    send = pair.connector.links[-1].worker.send

    async def slow(message: Any) -> None:
        if isinstance(message, Ended):
            await held.wait()
        await send(message)

    pair.connector.links[-1].worker.send = slow
    pair.worker._sessions.tick()
    job = await run(api, session_id, "20 + 22")
    assert (job["status"], job["end"]["code"], "idle" in job["end"]["message"]) == ("refused", "session_ended", True)
    assert pair.sandbox.history == []
    held.set()
    assert (await ended(api, session_id))["reason"] == "idle"


async def test_a_lease_that_was_lost_on_the_way_runs_once(api, pair) -> None:
    """A job of a session whose lease never arrived goes to the same session again, and runs one time."""
    session_id = await opened(api)
    link = pair.connector.links[-1]
    send = link.controller.send

    async def lossy(message: Any) -> None:
        if isinstance(message, Lease):
            link.cut()
            raise Unavailable("The connection is gone.")
        await send(message)

    link.controller.send = lossy
    job = await run(api, session_id, "20 + 22")
    assert (job["result"], job["session_id"]) == (42, session_id)
    assert pair.sandbox.history == [("main", "20 + 22")]
    assert len(pair.runner.sessions) == 1


async def test_a_session_that_was_asked_for_and_never_arrived_is_lost(api, pair) -> None:
    """When the link breaks before a worker hears of a session, opening it fails, and nothing stays open."""
    link = pair.connector.links[-1]
    send = link.controller.send

    async def lossy(message: Any) -> None:
        if isinstance(message, Open):
            link.cut()
            return
        await send(message)

    link.controller.send = lossy
    check_problem(await api.post("/v1/sessions", json={}), 503, "worker_restarted")
    (lost,) = (await api.get("/v1/sessions")).json()["sessions"]
    assert (lost["state"], lost["end"]["reason"]) == ("ended", "worker_lost")
    await opened(api)
    assert len(pair.runner.sessions) == 1

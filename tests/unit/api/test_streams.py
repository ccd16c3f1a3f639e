"""A job's events: in order, to the end, from any position, and never silent for long."""

import asyncio
import json

from crank.api.streams import frames
from crank.errors import Unavailable
from tests.unit.api.conftest import check_problem


def parse(text: str) -> list[tuple[int, str, dict]]:
    """Read an event stream."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


async def run_job(api, worker) -> str:
    """Submit a job and run it to its end."""
    job_id = (await api.post("/v1/jobs", json={"code": "1"})).json()["job_id"]
    await worker.finish(await worker.lease())
    return job_id


async def test_events_end_with_the_job(api, worker):
    """A followed job tells its status, its output and at last its whole document."""
    job_id = await run_job(api, worker)
    answered = await api.get(f"/v1/jobs/{job_id}/events")
    assert answered.headers["content-type"].startswith("text/event-stream")
    events = parse(answered.text)
    assert [kind for _, kind, _ in events] == ["status", "stdout", "end"]
    assert events[1][2]["text"] == "hi\n"
    assert events[-1][2] == (await api.get(f"/v1/jobs/{job_id}")).json()


async def test_a_dropped_connection_resumes(api, worker):
    """Last-Event-ID, which wins over `after`, leaves out what was seen."""
    job_id = await run_job(api, worker)
    for arguments in ({"params": {"after": 1}}, {"params": {"after": 0}, "headers": {"Last-Event-ID": "1"}}):
        events = parse((await api.get(f"/v1/jobs/{job_id}/events", **arguments)).text)
        assert [kind for _, kind, _ in events] == ["status", "end"]


async def test_a_position_that_is_none_is_refused(api, worker):
    """A Last-Event-ID that this stream never gave is refused."""
    job_id = await run_job(api, worker)
    for position in ("-1", "x", "9" * 30):
        refused = await api.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": position})
        check_problem(refused, 422, "invalid_field")


async def test_a_quiet_stream_says_that_it_lives():
    """When nothing happens a comment goes out, and the source is closed with the stream."""
    waiting = asyncio.Event()
    closed = []

    async def quiet():
        try:
            await waiting.wait()
            yield 1, "end", {}
        finally:
            closed.append(True)

    stream = frames(quiet(), heartbeat_sec=0.01)
    assert await anext(stream) == b": still here\n\n"
    waiting.set()
    found = [frame async for frame in stream]
    assert found[-1] == b"id: 1\nevent: end\ndata: {}\n\n"
    assert closed == [True]


async def test_a_fault_ends_the_stream_with_its_reason():
    """What breaks while the stream runs is told in it, in the shape of every refusal."""

    async def broken():
        yield 1, "status", {}
        raise Unavailable("The disk is full.", code="disk_full")

    found = [frame async for frame in frames(broken(), heartbeat_sec=5)]
    assert found[-1].startswith(b"event: error\ndata: {")
    assert b'"code":"disk_full"' in found[-1]

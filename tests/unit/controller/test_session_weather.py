"""Sessions in bad weather: links that break, workers that die, clocks that run out, callers that change their mind.

Whatever happens in whatever order, no job runs twice, jobs of one session run in order and in one sandbox, and in
the end every job and every session has an end that says why.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import httpx2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crank.testing.fake_sandbox import ScriptedRun
from tests.support.desk import open_api, open_desk
from tests.support.pair import Pair, paired, until

STEPS = 14
SCRIPT = {f"stay {number}": ScriptedRun(end=None) for number in range(STEPS)}
EVENTS = st.sampled_from(
    ["open", "submit", "submit", "submit", "stay", "interrupt", "cancel", "close", "cut", "restart", "idle", "breathe"]
)


class Weather:
    """One node, what was asked of it, and the events that befall it."""

    def __init__(self, api: httpx2.AsyncClient, pair: Pair) -> None:
        self.api = api
        self.pair = pair
        self.sessions: list[str] = []
        self.jobs: dict[str, str] = {}

    async def befall(self, event: str, number: int) -> None:
        """Let one event happen; refusals are answers like any other."""
        match event:
            case "open":
                answered = await self.api.post("/v1/sessions", json={"idle_sec": 60})
                if answered.status_code == 201:
                    self.sessions.append(answered.json()["session_id"])
            case "submit" | "stay" if self.sessions:
                await self.submit(f"{'stay' if event == 'stay' else 'step'} {number}", number)
            case "interrupt" | "cancel" if self.jobs:
                job_id = list(self.jobs)[number % len(self.jobs)]
                answered = await self.api.post(f"/v1/jobs/{job_id}/{event}")
                assert answered.status_code in (200, 409, 503), answered.text
            case "close" if self.sessions:
                await self.api.delete(f"/v1/sessions/{self.sessions[number % len(self.sessions)]}")
            case "cut":
                self.pair.cut()
            case "restart":
                await self.pair.kill()
                await self.pair.restart()
            case "idle":
                self.pair.clock.advance(61)
            case "breathe":
                await asyncio.sleep(0.02)

    async def submit(self, code: str, number: int) -> None:
        """Send a job to one of the sessions, whatever has become of it."""
        session_id = self.sessions[number % len(self.sessions)]
        body = {"code": code, "session": session_id, "effects": "pure"}
        answered = await self.api.post("/v1/jobs", json=body)
        # 200 where it has ended already.
        if answered.status_code in (200, 202):
            self.jobs[answered.json()["job_id"]] = session_id
        else:
            assert answered.json()["code"] == "session_ended", answered.text

    async def calm(self) -> None:
        """Close everything and wait until nothing is open."""
        await self.pair.ready()
        for session_id in self.sessions:
            await self.api.delete(f"/v1/sessions/{session_id}")

        async def over() -> bool:
            jobs = (await self.api.get("/v1/jobs", params={"limit": 200})).json()["jobs"]
            return all(job["end"] is not None for job in jobs)

        await until(over)


def check(pair: Pair, jobs: list[dict[str, Any]], sessions: list[dict[str, Any]], *, attempts_max: int) -> None:
    """Assert what always holds."""
    ran = [code for runner in pair.runners for sandbox in runner.sessions for _, code in sandbox.history]
    assert len(ran) == len(set(ran)), "a job ran twice"
    for runner in pair.runners:
        for sandbox in runner.sessions:
            order = [int(code.split()[1]) for _, code in sandbox.history]
            assert order == sorted(order), "jobs of a session overtook each other"
    for job in jobs:
        # Each cut may lose a lease on its way: then it never began, and is leased again as often as the node allows.
        assert job["attempts"] <= attempts_max
        assert job["end"]["reason"] in {"exited", "raised", "cancelled", "refused", "worker_lost", "outcome_unknown"}
        assert job["end"]["code"] == "session_ended" or job["end"]["reason"] != "refused"
    assert all(session["end"]["reason"] for session in sessions)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(events=st.lists(EVENTS, min_size=4, max_size=STEPS))
def test_no_job_runs_twice_and_everything_ends(events: list[str]) -> None:
    """After any weather the books are straight."""

    async def live(folder: Path) -> None:
        async with open_desk(folder) as desk, open_api(desk) as api, paired(desk, SCRIPT, slots=2) as pair:
            weather = Weather(api, pair)
            await weather.befall("open", 0)
            for number, event in enumerate(events):
                await weather.befall(event, number)
            await weather.calm()
            jobs = (await api.get("/v1/jobs", params={"limit": 200})).json()["jobs"]
            sessions = (await api.get("/v1/sessions", params={"limit": 200})).json()["sessions"]
            assert {job["job_id"] for job in jobs} == set(weather.jobs), "an accepted job was lost"
            check(pair, jobs, sessions, attempts_max=desk.policy.attempts_max)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(Path(folder)))

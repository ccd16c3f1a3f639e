"""Links that follow one another while jobs and sessions run: nothing is lost, run twice, or told as lost."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crank.controller.roster import LiveWorker
from crank.errors import Unavailable
from crank.testing.fake_identity import FakeIdentity
from crank.testing.fake_sandbox import ScriptedRun
from crank.wire import Held, Holding, Settled
from crank.worker import hand_over, renewing
from tests.support.desk import QueueLink, ScriptedWorker, open_api, open_desk
from tests.support.pair import paired, until
from tests.unit.api.conftest import CORE
from tests.unit.controller.test_session_weather import SCRIPT, STEPS, Weather, check

RENEWALS = st.sampled_from(["open", "submit", "submit", "stay", "renew", "renew", "renew", "breathe", "interrupt"])
WEATHER = st.sampled_from(
    ["open", "submit", "submit", "stay", "renew", "renew", "cut", "restart", "close", "cancel", "idle", "breathe"]
)
LONG = {"print('long')": ScriptedRun(output=(("stdout", "one\n"), ("stderr", "two\n")), end=None)}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Let renewals come as soon as they are due, and failures be tried again at once."""
    monkeypatch.setattr(renewing, "TICK_SEC", 0.002)
    monkeypatch.setattr(hand_over, "AGAIN_SEC", 0.01)


class Renewing(Weather):
    """Weather in which certificates are renewed."""

    async def befall(self, event: str, number: int) -> None:
        """Let one event happen."""
        if event == "renew":
            self.pair.clock.advance(1.0)
            await asyncio.sleep(0.004)
        else:
            await super().befall(event, number)


async def _live(folder: Path, events: list[str]) -> tuple[list[dict], list[dict], int]:
    own = FakeIdentity(due_sec=1.0)
    async with open_desk(folder) as desk, open_api(desk) as api, paired(desk, SCRIPT, slots=2, own=own) as pair:
        weather = Renewing(api, pair)
        await weather.befall("open", 0)
        for number, event in enumerate(events):
            await weather.befall(event, number)
        await pair.ready()
        for job_id in weather.jobs:
            await api.post(f"/v1/jobs/{job_id}/cancel")
        await weather.calm()
        jobs = (await api.get("/v1/jobs", params={"limit": 200})).json()["jobs"]
        sessions = (await api.get("/v1/sessions", params={"limit": 200})).json()["sessions"]
        assert {job["job_id"] for job in jobs} == set(weather.jobs), "an accepted job was lost"
        check(pair, jobs, sessions, attempts_max=desk.policy.attempts_max)
        return jobs, sessions, desk.tally.links_renewed


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(events=st.lists(RENEWALS, min_size=4, max_size=STEPS))
def test_renewals_alone_are_never_noticed(events: list[str]) -> None:
    """However often and whenever links are renewed, each job is tried once, and no session ends by itself."""
    with tempfile.TemporaryDirectory() as folder:
        jobs, sessions, _ = asyncio.run(_live(Path(folder), events))
    assert all(job["attempts"] <= 1 for job in jobs)
    assert {job["end"]["reason"] for job in jobs} <= {"exited", "cancelled", "raised"}
    assert {session["end"]["reason"] for session in sessions} <= {"closed"}


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(events=st.lists(WEATHER, min_size=4, max_size=STEPS))
def test_renewals_in_bad_weather_lose_nothing(events: list[str]) -> None:
    """With cuts and restarts between them no job runs twice and everything has an end."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_live(Path(folder), events))


async def test_output_goes_on_where_it_stood(tmp_path):
    """A job that prints before and after a renewal is told of once, in order, without a gap."""
    own = FakeIdentity()
    async with open_desk(tmp_path) as desk, open_api(desk) as api, paired(desk, LONG, own=own) as pair:
        job_id = (await api.post("/v1/jobs", json={"code": "print('long')"})).json()["job_id"]

        async def printed() -> bool:
            return len(await desk.streams.read(job_id, 0, 10)) == 2

        await until(printed)
        for _ in range(3):
            await pair.renew()
        assert pair.connector.links[0].closed_with == ("replaced", "A newer connection of this worker took over.")
        await api.post(f"/v1/jobs/{job_id}/cancel")

        async def ended() -> bool:
            return (await api.get(f"/v1/jobs/{job_id}")).json()["end"] is not None

        await until(ended)
        events = [event for _, event in await desk.streams.read(job_id, 0, 10)]
        assert [(event.seq, event.text) for event in events] == [(1, "one\n"), (2, "two\n")]
        assert (await api.get(f"/v1/jobs/{job_id}")).json()["attempts"] == 1
        assert desk.tally.links_renewed == 3


async def test_a_link_that_cannot_be_renewed_stays(tmp_path):
    """While the controller does not answer, the older link works on; then the next try succeeds."""
    own = FakeIdentity()
    async with open_desk(tmp_path) as desk, open_api(desk) as api, paired(desk, {}, own=own) as pair:
        connect, tries = pair.connector.connect, []

        async def failing():
            tries.append(1)
            if len(tries) < 4:
                raise Unavailable("No answer.")
            return await connect()

        pair.connector.connect = failing  # type: ignore[method-assign]
        pair.clock.advance(own.due_sec)
        await until(lambda: tries)
        done = await api.post("/v1/jobs", json={"code": "print(1)"}, headers={"Prefer": "wait=10"})
        assert done.json()["end"]["reason"] == "exited"
        await until(lambda: desk.tally.links_renewed == 1)


async def test_a_failed_renewal_is_tried_again_with_a_pause(tmp_path):
    """Faults are counted and the pause grows; the first success starts anew."""
    own = FakeIdentity(faults=[Unavailable("No."), Unavailable("No.")])
    async with open_desk(tmp_path) as desk, paired(desk, {}, own=own) as pair:
        pair.clock.advance(own.due_sec)
        await until(lambda: own.tries == 1)
        await asyncio.sleep(0.02)
        assert own.tries == 1, "the pause is kept"
        pair.clock.advance(1.0)
        await until(lambda: own.tries == 2)
        pair.clock.advance(2.0)
        await until(lambda: own.renewals == 1)
        await until(lambda: desk.tally.links_renewed == 1)


# --- a controller beside a scripted worker ----------------------------------------------------------


async def _renewed(worker: ScriptedWorker, holding: list[Holding]) -> tuple[QueueLink, LiveWorker | None]:
    """Let a scripted worker renew its link; return the older one, and what the controller keeps of it."""
    older, live = worker.link, worker.live
    await worker.connect(holding, versions=(2, 3), renews=True)
    return older, live


async def test_a_lease_on_its_way_by_the_older_link_is_not_given_twice(tmp_path):
    """A lease that the hello does not name stays with the worker until it has read its older link to the end."""
    async with open_desk(tmp_path) as desk, open_api(desk) as api:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect(versions=(2, 3))
        job_id = (await api.post("/v1/jobs", json={"code": "print(1)"})).json()["job_id"]
        lease = await worker.lease()
        older, _ = await _renewed(worker, [])
        assert older.closed == "replaced"
        await worker.say(Held([Holding(job_id, lease.epoch, "running")], []))
        await worker.finish(lease)
        job = (await api.get(f"/v1/jobs/{job_id}")).json()
        assert (job["status"], job["attempts"], job["epoch"]) == ("succeeded", 1, 1)


async def test_a_lease_that_was_lost_with_the_older_link_is_given_again(tmp_path):
    """What the worker never got goes back to the queue once it said what it holds."""
    async with open_desk(tmp_path) as desk, open_api(desk) as api:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect(versions=(2, 3))
        await api.post("/v1/jobs", json={"code": "print(1)"})
        first = await worker.lease()
        await _renewed(worker, [])
        await worker.say(Held([], []))
        again = await worker.lease()
        assert (again.job_id, again.epoch) == (first.job_id, first.epoch + 1)


async def test_what_the_older_link_says_late_changes_nothing(tmp_path):
    """From the takeover on an end is believed on the new link alone, so that nothing is told twice or out of order."""
    async with open_desk(tmp_path) as desk, open_api(desk) as api:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect(versions=(2, 3))
        job_id = (await api.post("/v1/jobs", json={"code": "print(1)"})).json()["job_id"]
        lease = await worker.lease()
        _, live = await _renewed(worker, [Holding(job_id, lease.epoch, "running")])
        newer, worker.live = worker.live, live
        await worker.finish(lease)
        assert (await api.get(f"/v1/jobs/{job_id}")).json()["end"] is None
        worker.live = newer
        await worker.finish(lease)
        await worker.link.next(Settled)
        assert (await api.get(f"/v1/jobs/{job_id}")).json()["status"] == "succeeded"


async def test_nothing_is_renewed_that_is_gone(tmp_path):
    """A hello that renews a link which the controller lost is refused: the worker then says what it holds."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        with pytest.raises(Unavailable) as refused:
            await worker.connect([], versions=(2, 3), renews=True)
        assert refused.value.error_code == "nothing_to_renew"
        await worker.connect([], versions=(2, 3))
        worker.instance_id = desk.ids.uuid7()
        with pytest.raises(Unavailable):
            await worker.connect([], versions=(2, 3), renews=True)

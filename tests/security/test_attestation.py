"""A floor of attestation: what a machine proved when it joined decides what it is given to run."""

from pathlib import Path

from crank.controller import dispatch
from crank.controller.desk import Desk
from crank.domain.trust import Attestation
from crank.wire import Lease, Started
from crank.wire.calls import Call
from tests.support.desk import ScriptedWorker, open_api, open_desk
from tests.unit.api.conftest import check_problem
from tests.unit.domain.rules.builders import CORE

JOIN = {"attestation": "join"}
RUN = {"name": "run", "kind": "call", "capability": "python.run.core"}


async def worker_at(desk: Desk, level: Attestation, slots: int = 1) -> ScriptedWorker:
    """Connect a worker whose certificate says so much of its machine."""
    worker = ScriptedWorker(desk, level.label, [CORE], slots, version=3, attestation=level)
    await worker.connect()
    return worker


def got_nothing(worker: ScriptedWorker) -> bool:
    """Tell whether nothing that was sent to a worker is a job."""
    sent = worker.link.sent
    return not any(isinstance(sent.get_nowait(), Lease) for _ in range(sent.qsize()))


async def test_a_job_goes_to_no_machine_below_the_level_that_it_asks_for(tmp_path: Path) -> None:
    """Of two workers the one with more room but less proof gets nothing; alone, it has the job refused and not stored."""
    async with open_desk(tmp_path) as desk, open_api(desk) as api:
        low = await worker_at(desk, Attestation.THUMBPRINT, slots=9)
        refused = check_problem(await api.post("/v1/jobs", json={"code": "1", "constraints": JOIN}), 422, "unsatisfied-capability")
        assert (refused["field"], "thumbprint" in refused["detail"]) == ("constraints.attestation", True)
        assert (await api.get("/v1/jobs")).json()["jobs"] == []
        high = await worker_at(desk, Attestation.JOIN)
        accepted = await api.post("/v1/jobs", json={"code": "1", "constraints": JOIN})
        assert (await high.lease()).job_id == accepted.json()["job_id"]
        assert got_nothing(low)


async def test_a_job_that_waits_is_not_handed_down(tmp_path: Path) -> None:
    """A job whose only worker went away after it was accepted waits, though a machine with less proof has room."""
    async with open_desk(tmp_path) as desk, open_api(desk) as api:
        high = await worker_at(desk, Attestation.JOIN)
        await high.disconnect()
        low = await worker_at(desk, Attestation.THUMBPRINT, slots=9)
        job_id = (await api.post("/v1/jobs", json={"code": "1", "constraints": JOIN})).json()["job_id"]
        assert await dispatch.dispatch(desk) == 0
        assert (await api.get(f"/v1/jobs/{job_id}")).json()["status"] == "queued"
        assert got_nothing(low)


async def test_the_nodes_own_floor_holds_for_jobs_and_sessions_that_ask_for_nothing(tmp_path: Path) -> None:
    """Where the operator asks for join, neither is placed on a machine with less, whatever the request says."""
    async with open_desk(tmp_path, attestation_min=Attestation.JOIN) as desk, open_api(desk) as api:
        await worker_at(desk, Attestation.THUMBPRINT)
        for body in ({"code": "1"}, {"code": "1", "constraints": {"attestation": "none"}}):
            refused = check_problem(await api.post("/v1/jobs", json=body), 422, "unsatisfied-capability")
            assert refused["field"] == "constraints.attestation"
        worker = desk.roster.live()[0]
        worker.sessions = set()
        refused = check_problem(await api.post("/v1/sessions", json={}), 422, "unsatisfied-capability")
        assert refused["field"] == "attestation"


async def test_a_floor_that_was_raised_meets_what_was_accepted_before(tmp_path: Path) -> None:
    """Jobs that waited when the operator asked for more are held to it as well."""
    async with open_desk(tmp_path) as desk, open_api(desk) as api:
        await (await worker_at(desk, Attestation.THUMBPRINT)).disconnect()
        assert (await api.post("/v1/jobs", json={"code": "1"})).status_code == 202
    async with open_desk(tmp_path, attestation_min=Attestation.JOIN) as desk:
        low = await worker_at(desk, Attestation.THUMBPRINT)
        assert await dispatch.dispatch(desk) == 0
        assert got_nothing(low)


async def test_a_called_job_asks_for_what_its_caller_asked_for(tmp_path: Path) -> None:
    """A job that must not leave machines of a level cannot tell another one what it knows by calling."""
    async with open_desk(tmp_path) as desk, open_api(desk) as api:
        high = await worker_at(desk, Attestation.JOIN)
        await api.post("/v1/jobs", json={"code": "1", "handles": [RUN], "constraints": JOIN})
        held = await high.lease()
        await high.say(Started(held.job_id, held.epoch))
        low = await worker_at(desk, Attestation.THUMBPRINT, slots=9)
        await high.say(Call(held.job_id, held.epoch, 1, "run", "python.run.core", None, None, "2", [], [], [], None))
        called = await high.lease()
        assert (called.called, called.code) == (True, "2")
        assert got_nothing(low)

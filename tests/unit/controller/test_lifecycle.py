"""The path of a job through the controller, with a worker that says what each test needs."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from crank.controller.cancel import cancel
from crank.controller.enroll import enroll
from crank.controller.follow import events, wait_ended
from crank.controller.reap import reap, sweep
from crank.controller.submit import Submission, submit
from crank.controller.views import job_document, jobs_page, records_page, workers_document
from crank.domain.ids import LOCAL_TENANT, JobId
from crank.domain.job import Status
from crank.domain.outcome import Denial, End, Outcome, Reason
from crank.domain.outcome_codec import outcome_document
from crank.errors import InvalidRequest, NotAllowed, NotFound, ProtocolError, Unavailable
from crank.wire import (
    HELLO_SINCE,
    VERSION_MAX,
    Cancel,
    Declined,
    Draining,
    Finished,
    Hello,
    Holding,
    Output,
    Settled,
    Started,
)
from tests.support.desk import DONE, QueueLink, ScriptedWorker, open_desk, peer_named
from tests.unit.domain.rules.builders import CORE

RUN = {"code": "print(1)"}


async def send(desk, **fields):
    """Submit a job and return it."""
    submission = Submission({**RUN, **fields})
    return (await submit(desk, tenant=LOCAL_TENANT, subject="local", submission=submission)).job


async def ended(desk, job, timeout_sec=10):
    """Return the job once it has ended."""
    found = await wait_ended(desk, tenant=LOCAL_TENANT, job_id=job.job_id, timeout_sec=timeout_sec)
    assert found.ended
    return found


async def test_a_job_runs_and_its_work_comes_back(tmp_path: Path) -> None:
    """Submit, lease, start, output, finish: the job ends with what the worker said, and every step is recorded."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        job = await send(desk)
        lease = await worker.lease()
        assert (lease.job_id, lease.code) == (job.job_id, "print(1)")
        await worker.finish(lease)
        assert "accepted" == (await worker.link.next(Settled)).verdict
        document = await job_document(desk, tenant=LOCAL_TENANT, job_id=job.job_id)
        assert ("succeeded", "hi\n", "exited") == (document["status"], document["stdout"], document["end"]["reason"])
        page = await records_page(desk, tenant=LOCAL_TENANT, job_id=job.job_id, after=0, limit=10)
        assert ["job.submitted", "job.leased", "job.ended"] == [record["kind"] for record in page["records"]]


async def test_a_refused_host_is_recorded_and_logged(tmp_path: Path) -> None:
    """Where a job wanted to go and could not is in its answer, in the audit trail and in the log, escaped."""
    denial = Denial("network", "connect to evil\n.example:443", 2, "job")
    outcome = replace(DONE, tier="namespaces", layers=("seccomp",), denials=(denial,), notes=("one note",))
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        job = await send(desk)
        with capture_logs() as logged:
            await worker.finish(await worker.lease(), outcome)
        document = await job_document(desk, tenant=LOCAL_TENANT, job_id=job.job_id)
        page = await records_page(desk, tenant=LOCAL_TENANT, job_id=job.job_id, after=0, limit=10)
    told = {"layer": "network", "action": "connect to evil\n.example:443", "count": 2, "told_by": "job"}
    assert (document["denials"], document["layers"], document["notes"]) == ([told], ["seccomp"], ["one note"])
    assert page["records"][-1]["facts"]["refused_hosts"] == ["evil\\n.example:443"]
    (event,) = [entry for entry in logged if entry["event"] == "job_network_refused"]
    assert (event["job_id"], event["hosts"]) == (job.job_id, ("evil\\n.example:443",))


async def test_clocks_reach_the_worker_and_no_further_than_the_profile(tmp_path: Path) -> None:
    """A request may lower CPU, idle and silence; more than the profile gives is refused with the constraint."""
    clocks = {"cpu_sec": 2.0, "idle_sec": 3.0, "no_output_sec": 4.0}
    limited = replace(CORE, limits={"cpu_sec": 10, "idle_sec": 10, "no_output_sec": 10})
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [limited])
        await worker.connect()
        await send(desk, constraints=clocks)
        lease = await worker.lease()
        assert (lease.cpu_sec, lease.idle_sec, lease.no_output_sec) == (2.0, 3.0, 4.0)
        for clock in clocks:
            with pytest.raises(InvalidRequest) as caught:
                await send(desk, constraints={clock: 10.5})
            assert caught.value.error_code == "unsatisfied-capability"
            for never in (0, -1, 1e9, True):
                with pytest.raises(InvalidRequest) as caught:
                    await send(desk, constraints={clock: never})
                assert (caught.value.error_code, caught.value.field) == ("limit_out_of_range", f"constraints.{clock}")


async def test_kept_output_stays_below_the_operators_ceiling(tmp_path: Path) -> None:
    """The one limit that a request may raise has the operator's bound over it."""
    async with open_desk(tmp_path, output_bytes_max=1000) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        await send(desk, constraints={"max_output_bytes": 1000})
        assert (await worker.lease()).max_output_bytes == 1000
        with pytest.raises(InvalidRequest) as caught:
            await send(desk, constraints={"max_output_bytes": 1001})
        assert caught.value.field == "constraints.max_output_bytes"


async def test_controllers_are_renewed_before_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of this version is turned away by an older controller with a clear code; an older worker is served."""
    hello = Hello(HELLO_SINCE, VERSION_MAX, "w1", "not looked at yet", "n1", "0", 2, [], [])
    async with open_desk(tmp_path) as desk:
        peer = peer_named("w1").spiffe_id
        monkeypatch.setattr("crank.controller.enroll.VERSION_MAX", HELLO_SINCE - 1)
        with pytest.raises(ProtocolError) as caught:
            await enroll(desk, hello=hello, peer=peer, link=QueueLink())
        assert caught.value.error_code == "version_mismatch"
        monkeypatch.undo()
        welcome = await ScriptedWorker(desk, "w1", [CORE]).connect()
        assert welcome.version == 1


async def test_nobody_can_run_it(tmp_path: Path) -> None:
    """A job that no known worker can run is refused at once, stored nowhere, and recorded."""
    async with open_desk(tmp_path) as desk:
        with pytest.raises(InvalidRequest) as caught:
            await send(desk)
        assert "unsatisfied-capability" == caught.value.error_code
        assert [] == (await jobs_page(desk, tenant=LOCAL_TENANT, limit=9, before=None, status=None))["jobs"]
        page = await records_page(desk, tenant=LOCAL_TENANT, job_id=None, after=0, limit=10)
        assert ["job.refused"] == [record["kind"] for record in page["records"]]


async def test_busy_workers_make_it_wait(tmp_path: Path) -> None:
    """A job beyond the free slots waits with a reason, and runs when one is free."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE], slots=1)
        await worker.connect()
        await send(desk)
        first = await worker.lease()
        second = await send(desk)
        document = await job_document(desk, tenant=LOCAL_TENANT, job_id=second.job_id)
        assert "0 of 1" in document["pending"]
        await worker.finish(first)
        assert second.job_id == (await worker.lease()).job_id


async def test_an_old_lease_changes_nothing(tmp_path: Path) -> None:
    """A result of an old epoch is kept as superseded and does not touch the job."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        job = await send(desk, effects="pure")
        lease = await worker.lease()
        await worker.disconnect()
        await worker.connect()
        again = await worker.lease()
        assert (lease.epoch + 1, job.job_id) == (again.epoch, again.job_id)
        await worker.say(Finished(lease.job_id, lease.epoch, outcome_document(DONE), None))
        assert "superseded" == (await worker.link.next(Settled)).verdict
        assert not (await job_document(desk, tenant=LOCAL_TENANT, job_id=job.job_id))["end"]
        await worker.finish(again)
        assert Status.SUCCEEDED is (await ended(desk, job)).status


async def test_a_repeated_result_is_accepted_once(tmp_path: Path) -> None:
    """A worker that missed the answer may tell its result again; the job is settled once."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        job = await send(desk)
        lease = await worker.lease()
        await worker.finish(lease)
        await worker.say(Finished(lease.job_id, lease.epoch, outcome_document(DONE), None))
        verdicts = [(await worker.link.next(Settled)).verdict for _ in range(2)]
        assert ["accepted", "accepted"] == verdicts
        page = await records_page(desk, tenant=LOCAL_TENANT, job_id=job.job_id, after=0, limit=10)
        assert 1 == [record["kind"] for record in page["records"]].count("job.ended")


async def test_a_running_job_survives_a_lost_connection(tmp_path: Path) -> None:
    """A worker that comes back still holding the lease goes on, and the events it resends are not doubled."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        job = await send(desk)
        lease = await worker.lease()
        await worker.say(Started(lease.job_id, lease.epoch))
        from crank.wire import JobEvent

        first = JobEvent(lease.epoch, 1, "stdout", "a", 0, None, 1)
        second = JobEvent(lease.epoch, 2, "stdout", "b", 1, None, 2)
        await worker.say(Output(lease.job_id, lease.epoch, [first]))
        await worker.disconnect()
        welcome = await worker.connect([Holding(lease.job_id, lease.epoch, "running")])
        assert [("continue", 2)] == [(entry.verdict, entry.next_seq) for entry in welcome.resumed]
        await worker.say(Output(lease.job_id, lease.epoch, [first, second]))
        await worker.say(Finished(lease.job_id, lease.epoch, outcome_document(DONE), None))
        told = [body["text"] async for _, kind, body in events(desk, tenant=LOCAL_TENANT, job_id=job.job_id, after=0)
                if kind == "stdout"]  # fmt: skip
        assert ["a", "b"] == told


async def test_a_gap_in_the_events_is_a_protocol_fault(tmp_path: Path) -> None:
    """Events that skip a number mean that something was lost, and are not accepted."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        await send(desk)
        lease = await worker.lease()
        from crank.wire import JobEvent

        with pytest.raises(ProtocolError):
            await worker.say(Output(lease.job_id, lease.epoch, [JobEvent(lease.epoch, 2, "stdout", "b", 0, None, 1)]))


@pytest.mark.parametrize(
    ("phase", "effects", "status"),
    [
        ("interrupted", "external", Status.LOST),
        ("interrupted", "pure", Status.LEASED),
        (None, "external", Status.LEASED),
    ],
)
async def test_a_restarted_worker_tells_the_truth(tmp_path: Path, phase, effects, status) -> None:
    """Code that a restart cut off is lost unless it may repeat; code that never began runs again."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        job = await send(desk, effects=effects)
        lease = await worker.lease()
        await worker.disconnect()
        await worker.connect([Holding(lease.job_id, lease.epoch, phase)] if phase else [])
        if status is Status.LOST:
            assert Reason.WORKER_LOST is (await ended(desk, job)).end.reason
        else:
            assert lease.epoch + 1 == (await worker.lease()).epoch


async def test_a_silent_worker_loses_its_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that stays away longer than a lease leaves its job with an unknown outcome."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        job = await send(desk)
        lease = await worker.lease()
        await worker.say(Started(lease.job_id, lease.epoch))
        await worker.disconnect()
        monkeypatch.setattr(desk.roster, "away_sec", lambda worker_id, now_sec: 1e9)
        await reap(desk)
        end = (await ended(desk, job)).end
        assert Reason.OUTCOME_UNKNOWN is end.reason


async def test_cancel_wherever_it_stands(tmp_path: Path) -> None:
    """A queued job is cancelled at once, a held one when its worker says so, an ended one stays as it is."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE], slots=1)
        await worker.connect()
        held = await send(desk)
        lease = await worker.lease()
        queued = await send(desk)
        now = await cancel(desk, tenant=LOCAL_TENANT, subject="local", job_id=queued.job_id)
        assert Status.CANCELLED is now.status
        asked = await cancel(desk, tenant=LOCAL_TENANT, subject="local", job_id=held.job_id)
        assert not asked.ended
        assert lease.job_id == (await worker.link.next(Cancel)).job_id
        await worker.finish(lease, Outcome(End(Reason.CANCELLED)))
        assert Status.CANCELLED is (await ended(desk, held)).status
        again = await cancel(desk, tenant=LOCAL_TENANT, subject="local", job_id=held.job_id)
        assert Status.CANCELLED is again.status
        with pytest.raises(NotFound):
            await cancel(desk, tenant=LOCAL_TENANT, subject="local", job_id=JobId("nobody"))


async def test_a_cancel_is_told_again_after_a_lost_connection(tmp_path: Path) -> None:
    """A cancellation asked for while the worker was away reaches it when it is back."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        job = await send(desk)
        lease = await worker.lease()
        await worker.disconnect()
        await cancel(desk, tenant=LOCAL_TENANT, subject="local", job_id=job.job_id)
        await worker.connect([Holding(lease.job_id, lease.epoch, "running")])
        assert lease.job_id == (await worker.link.next(Cancel)).job_id


async def test_a_declined_lease_goes_elsewhere_or_ends(tmp_path: Path) -> None:
    """A busy worker's lease is tried again; one that can never work there ends with the worker's reason."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        job = await send(desk)
        lease = await worker.lease()
        await worker.say(Declined(lease.job_id, lease.epoch, "busy", "full"))
        again = await worker.lease()
        await worker.say(Declined(again.job_id, again.epoch, "mount_missing", "The folder is gone."))
        end = (await ended(desk, job)).end
        assert (Reason.SANDBOX_FAILED, "mount_missing") == (end.reason, end.code)


async def test_a_draining_worker_gets_nothing_new(tmp_path: Path) -> None:
    """A worker that drains keeps its jobs and is offered no other."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        await worker.say(Draining())
        job = await send(desk)
        assert 0 == (await workers_document(desk))["workers"][0]["free_slots"]
        assert Status.QUEUED == (await job_document(desk, tenant=LOCAL_TENANT, job_id=job.job_id))["status"]


async def test_a_full_queue_is_unavailable(tmp_path: Path) -> None:
    """Beyond the queue's limit a job is not accepted, and the answer says when to try again."""
    async with open_desk(tmp_path, queued_max=1) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE], slots=1)
        await worker.connect()
        await send(desk)
        await worker.lease()
        await send(desk)
        with pytest.raises(Unavailable) as caught:
            await send(desk)
        assert "queue_full" == caught.value.error_code


async def test_a_certificate_speaks_for_one_worker(tmp_path: Path) -> None:
    """A worker that names itself otherwise than its certificate is not let in and nothing is stored."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        from crank.controller.enroll import enroll
        from crank.domain.capability import capability_document
        from crank.wire import Hello

        hello = Hello(1, 1, "w1", worker.instance_id, "n1", "0", 1, [capability_document(CORE)], [])
        with pytest.raises(NotAllowed):
            await enroll(desk, hello=hello, peer=peer_named("w2").spiffe_id, link=worker.link)
        assert [] == (await workers_document(desk))["workers"]


async def test_one_wrong_capability_keeps_the_worker_out(tmp_path: Path) -> None:
    """Registration validates every capability, its schemas too, before anything is stored."""
    async with open_desk(tmp_path) as desk:
        from tests.unit.domain.rules.builders import capability

        worker = ScriptedWorker(desk, "w1", [CORE, capability(name="a.b", input_schema={"type": 7})])
        with pytest.raises(InvalidRequest):
            await worker.connect()
        assert [] == (await workers_document(desk))["workers"]


async def test_the_newer_connection_wins(tmp_path: Path) -> None:
    """A second connection of the same worker replaces the first, which is told so."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        older = worker.link
        await worker.connect()
        assert "replaced" == older.closed


async def test_old_jobs_are_forgotten_with_their_blobs(tmp_path: Path) -> None:
    """Retention removes ended jobs and their streams; jobs that have not ended stay."""
    async with open_desk(tmp_path, retention_sec=-1.0) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        job = await send(desk)
        await worker.finish(await worker.lease())
        waiting = await send(desk)
        assert 1 == await sweep(desk)
        with pytest.raises(NotFound):
            await job_document(desk, tenant=LOCAL_TENANT, job_id=job.job_id)
        assert await job_document(desk, tenant=LOCAL_TENANT, job_id=waiting.job_id)


async def test_reap_leaves_living_leases_alone(tmp_path: Path) -> None:
    """A connected worker keeps its leases."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        await send(desk)
        await worker.lease()
        assert 0 == await reap(desk)


async def test_a_hundred_equal_requests_make_one_job(tmp_path: Path) -> None:
    """Concurrent duplicates under one key are one job, inside the store too."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        submission = Submission(RUN, idempotency_key="k")
        answers = await asyncio.gather(
            *(submit(desk, tenant=LOCAL_TENANT, subject="local", submission=submission) for _ in range(100))
        )
        assert 1 == len({answer.job.job_id for answer in answers})
        assert 1 == sum(not answer.replayed for answer in answers)


async def test_an_old_result_leaves_the_new_lease_on_its_worker(tmp_path: Path) -> None:
    """A superseded result of an earlier epoch does not free the slot that the job's new lease takes."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        await send(desk, effects="pure")
        lease = await worker.lease()
        await worker.disconnect()
        await worker.connect()
        again = await worker.lease()
        await worker.say(Finished(lease.job_id, lease.epoch, outcome_document(DONE), None))
        assert "superseded" == (await worker.link.next(Settled)).verdict
        (live,) = desk.roster._live.values()
        assert [lease.epoch for lease in live.leases.values()] == [again.epoch]
        await worker.finish(again)

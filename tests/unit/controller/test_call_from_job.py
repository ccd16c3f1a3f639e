"""Calls of jobs, at the controller: what it accepts from a worker, which may lie, and what becomes of it."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crank.controller import dispatch, mounts
from crank.controller.desk import Desk
from crank.controller.follow import wait_ended
from crank.controller.keys import KeyWanted, mint, revoke
from crank.controller.scope import desk_for, desk_for_grant
from crank.controller.submit import Submission, submit
from crank.controller.views import job_document, jobs_page, records_page
from crank.domain.capability import Capability
from crank.domain.grant import Grant, Right
from crank.domain.ids import LOCAL_TENANT, Digest, JobId
from crank.domain.job import Job, Status
from crank.domain.outcome import Artifact, Outcome
from crank.errors import CrankError, NotAllowed
from crank.testing.samples import sample_grant
from crank.wire import Cancel, Held, Holding, Lease, Started
from crank.wire.calls import Call, CallAnswer, CallFile, CallMount
from tests.support.desk import DONE, ScriptedWorker, open_desk
from tests.support.pair import until
from tests.unit.domain.rules.builders import CORE

RUN = {"name": "run", "kind": "call", "capability": "python.run.core"}
WITH_RESULT = replace(DONE, has_result=True, result=[42])


async def send(desk: Desk, *handles: dict[str, Any], subject: str = "local", **fields: Any) -> Job:
    """Submit a job with these handles."""
    submission = Submission({"code": "1", "handles": list(handles), **fields})
    return (await submit(desk, tenant=LOCAL_TENANT, subject=subject, submission=submission)).job


async def worker_of(desk: Desk, *capabilities: Capability, slots: int = 1) -> ScriptedWorker:
    """Connect a worker that knows handles."""
    worker = ScriptedWorker(desk, "w1", list(capabilities or (CORE,)), slots, version=3)
    await worker.connect()
    return worker


async def running(worker: ScriptedWorker) -> Lease:
    """Take the next lease and begin it."""
    lease = await worker.lease()
    await worker.say(Started(lease.job_id, lease.epoch))
    return lease


def call(lease: Lease, number: int = 1, **changes: Any) -> Call:
    """Return a call of the job under this lease."""
    plain: dict[str, Any] = {
        "handle": "run", "capability": "python.run.core", "version": None, "args": None, "code": "2", "files": [],
        "mounts": [], "handles": [], "timeout_sec": None,
    }  # fmt: skip
    return Call(lease.job_id, lease.epoch, number, **{**plain, **changes})


async def answer(worker: ScriptedWorker, message: Call) -> CallAnswer:
    """Make a call that is answered at once."""
    await worker.say(message)
    found: CallAnswer = await worker.link.next(CallAnswer)
    return found


async def test_a_call_becomes_a_job_on_the_lent_slot_and_its_end_the_answer(tmp_path: Path) -> None:
    """One slot: the caller waits, the called job is leased beside it, and its result and files come back."""
    async with open_desk(tmp_path) as desk:
        worker = await worker_of(desk)
        caller = await send(desk, RUN)
        held = await running(worker)
        assert [(handle.name, handle.capability) for handle in held.handles or []] == [("run", "python.run.core")]
        await worker.say(call(held))
        lease = await worker.lease()
        assert (lease.called, lease.handles, lease.code) == (True, None, "2")
        left = b"left"
        digest = Digest(hashlib.sha256(left).hexdigest())
        desk.blobs.put(io.BytesIO(left), expected=digest, bytes_max=100)
        kept = (Artifact("a.txt", 4, digest), Artifact(".crank/kept.tar", 4, digest))
        await worker.finish(lease, replace(WITH_RESULT, artifacts=kept))
        told: CallAnswer = await worker.link.next(CallAnswer)
        assert (told.verdict, told.status, told.result) == ("done", "succeeded", [42])
        assert (told.files, told.left_out) == ([CallFile("a.txt", digest, 4)], 0)
        # The worker may read it now: the caller's job uses it.
        assert await desk.store.read(lambda tx: tx.registry.job_refers(LOCAL_TENANT, caller.job_id, digest))
        document = await job_document(desk, tenant=LOCAL_TENANT, job_id=JobId(lease.job_id))
        assert document["called_by"] == {"job_id": caller.job_id, "epoch": 1, "number": 1, "handle": "run"}
        page = await records_page(desk, tenant=LOCAL_TENANT, job_id=caller.job_id, after=0, limit=100)
        (called,) = [record["facts"] for record in page["records"] if record["kind"] == "job.called"]
        assert (called["handle"], called["called"], called["number"]) == ("run", lease.job_id, 1)


async def test_a_call_that_is_said_again_makes_no_second_job(tmp_path: Path) -> None:
    """On the same link, on the next one, and after the end: the same number is the same job and the same answer."""
    async with open_desk(tmp_path) as desk:
        worker = await worker_of(desk)
        await send(desk, RUN)
        held = await running(worker)
        await worker.say(call(held))
        await worker.say(call(held))
        lease = await worker.lease()
        await worker.disconnect()
        await worker.connect([Holding(held.job_id, 1, "running"), Holding(lease.job_id, 1, "running")])
        await worker.say(call(held))
        await worker.finish(lease, WITH_RESULT)
        assert (await worker.link.next(CallAnswer)).result == [42]
        assert (await answer(worker, call(held))).result == [42]
        page = await jobs_page(desk, tenant=LOCAL_TENANT, limit=10, before=None, status=None)
        assert len(page["jobs"]) == 2


async def test_a_call_goes_over_to_a_link_that_follows(tmp_path: Path) -> None:
    """A renewed link, without a gap: the waiting job still lends its slot there, and has its answer once."""
    async with open_desk(tmp_path) as desk:
        worker = await worker_of(desk)
        await send(desk, RUN)
        held = await running(worker)
        await worker.say(call(held))
        lease = await worker.lease()
        holding = [Holding(held.job_id, 1, "running"), Holding(lease.job_id, 1, "running")]
        await worker.connect(holding, renews=True)
        await worker.say(Held(holding, []))
        await worker.say(call(held))
        live = worker.live
        assert live is not None
        await until(lambda: live.leases[JobId(held.job_id)].open == 1)
        assert (live.leases[JobId(held.job_id)].hands, live.leases[JobId(lease.job_id)].called) == (True, True)
        await worker.finish(lease, WITH_RESULT)
        assert (await worker.link.next(CallAnswer)).result == [42]
        left = [worker.link.sent.get_nowait() for _ in range(worker.link.sent.qsize())]
        assert not [message for message in left if isinstance(message, CallAnswer)]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"handle": "other"}, "no_handle"),
        ({"capability": "document.convert"}, "handle_capability"),
        ({"mounts": [CallMount("docs", "docs")]}, "handle_mount"),
        ({"handles": ["other"]}, "no_handle"),
        ({"files": [CallFile("a", "0" * 64, 3)]}, "blob_not_found"),
        ({"files": [CallFile("a", "no digest", 3)]}, "invalid_digest"),
        ({"files": [CallFile("a", "0" * 64, 1 << 40)]}, "files_too_large"),
        ({"number": 0}, "invalid_field"),
        ({"number": 257}, "invalid_field"),
        ({"code": None}, "missing_field"),
        ({"epoch": 2}, "caller_ended"),
        ({"job_id": "another"}, "caller_ended"),
    ],
)
async def test_a_worker_that_lies_gets_nothing(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    """Whatever a worker claims of a call is looked up in what the controller stored; each lie has its refusal."""
    async with open_desk(tmp_path) as desk:
        worker = await worker_of(desk)
        await send(desk, RUN)
        held = await running(worker)
        told = await answer(worker, replace(call(held), **changes))
        assert (told.verdict, told.code) == ("refused", code)
        page = await jobs_page(desk, tenant=LOCAL_TENANT, limit=10, before=None, status=None)
        assert len(page["jobs"]) == 1


async def test_a_blob_of_somebody_else_is_no_file_of_a_call(tmp_path: Path) -> None:
    """A worker that knows the hash of what lies here, and did not bring it, is told that it is not there."""
    async with open_desk(tmp_path) as desk:
        worker = await worker_of(desk)
        digest, size_bytes = desk.blobs.put(io.BytesIO(b"another's"), expected=None, bytes_max=100)
        await send(desk, RUN)
        held = await running(worker)
        told = await answer(worker, call(held, files=[CallFile("a", digest, size_bytes)]))
        assert told.code == "blob_not_found"


async def test_a_worker_calls_for_no_job_that_another_one_holds(tmp_path: Path) -> None:
    """The fence: only who holds the lease speaks for the job."""
    async with open_desk(tmp_path) as desk:
        worker = await worker_of(desk)
        await send(desk, RUN)
        held = await running(worker)
        stranger = ScriptedWorker(desk, "w2", [CORE], version=3)
        await stranger.connect()
        assert (await answer(stranger, call(held))).code == "caller_ended"


async def test_many_refusals_leave_one_record(tmp_path: Path) -> None:
    """A job that asks over and over for what it may not leaves one record in a minute."""
    async with open_desk(tmp_path) as desk:
        worker = await worker_of(desk)
        job = await send(desk, RUN)
        held = await running(worker)
        for number in range(1, 20):
            await answer(worker, call(held, number, handle="other"))
        page = await records_page(desk, tenant=LOCAL_TENANT, job_id=job.job_id, after=0, limit=100)
        assert [record["kind"] for record in page["records"]].count("call.refused") == 1


async def test_a_called_job_is_reached_behind_any_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More jobs wait than are looked at in one go; the lent slot still goes to the called job, and to no other."""
    monkeypatch.setattr(dispatch, "BATCH_JOBS_MAX", 3)
    async with open_desk(tmp_path) as desk:
        worker = await worker_of(desk)
        await send(desk, RUN)
        held = await running(worker)
        for _ in range(5):
            await send(desk)
        await worker.say(call(held))
        lease = await worker.lease()
        assert lease.called
        await worker.finish(lease, WITH_RESULT)
        assert (await worker.link.next(CallAnswer)).result == [42]


async def test_what_was_called_for_ends_with_its_caller(tmp_path: Path) -> None:
    """A caller that ends while one call waits and one runs: the first never starts, the second is told to end."""
    async with open_desk(tmp_path) as desk:
        worker = await worker_of(desk)
        await send(desk, RUN)
        held = await running(worker)
        await worker.say(call(held, 1))
        first = await running(worker)
        await worker.say(call(held, 2))

        async def second() -> Job | None:
            return await desk.store.read(lambda tx: tx.jobs.called(LOCAL_TENANT, JobId(held.job_id), held.epoch, 2))

        await until(second)
        await worker.finish(held)
        cancel: Cancel = await worker.link.next(Cancel)
        assert cancel.job_id == first.job_id
        waiting = await second()
        assert waiting is not None
        ended = await wait_ended(desk, tenant=LOCAL_TENANT, job_id=waiting.job_id, timeout_sec=10)
        assert ended.status is Status.CANCELLED


async def test_an_older_worker_is_sent_no_handles(tmp_path: Path) -> None:
    """A worker of version 2 runs jobs without handles; one with handles waits for a newer worker, and says so."""
    async with open_desk(tmp_path) as desk:
        worker = ScriptedWorker(desk, "w1", [CORE], version=2)
        await worker.connect()
        handed = await send(desk, RUN)
        plain = await send(desk)
        assert (await worker.lease()).job_id == plain.job_id
        document = await job_document(desk, tenant=LOCAL_TENANT, job_id=handed.job_id)
        assert (document["status"], bool(document["pending"])) == ("queued", True)


async def test_a_key_hands_over_its_own_mounts_alone(tmp_path: Path) -> None:
    """A bounded key cannot put into a job's hand what it may not name; and once it is revoked its jobs call no more."""
    for name in ("state", "a", "b"):
        (tmp_path / name).mkdir()
    async with open_desk(tmp_path / "state") as desk:
        for name in ("a", "b"):
            await mounts.add(desk, tenant=LOCAL_TENANT, subject="local", path=str(tmp_path / name), name=name)
        key = (await mint(desk, tenant=LOCAL_TENANT, subject="local", wanted=KeyWanted("agent", mounts=("a",)))).credential
        own = desk_for(desk, key)
        with pytest.raises(NotAllowed) as caught:
            await send(own, RUN, {"name": "m", "kind": "mount", "mount": "b"}, subject=key.subject)
        assert (caught.value.error_code, caught.value.field) == ("mount_not_allowed", "handles.1.mount")
        worker = await worker_of(desk)
        await send(own, RUN, {"name": "m", "kind": "mount", "mount": "a"}, subject=key.subject)
        held = await running(worker)
        await worker.say(call(held, mounts=[CallMount("docs", "m")]))
        lease = await running(worker)
        assert [mount.name for mount in lease.mounts] == ["docs"]
        made = await desk.store.read(lambda tx: tx.jobs.find(LOCAL_TENANT, JobId(lease.job_id)))
        assert made is not None
        assert made.owner == key.credential_id
        await worker.finish(lease)
        await worker.link.next(CallAnswer)
        await revoke(desk, tenant=LOCAL_TENANT, subject="local", key="agent")
        assert (await answer(worker, call(held, 2))).verdict == "refused"


async def test_a_token_hands_over_what_it_covers_and_counts_each_call(tmp_path: Path) -> None:
    """A handle for what the token does not name is refused; a call is one of the token's own count."""
    async with open_desk(tmp_path) as desk:
        key = (await mint(desk, tenant=LOCAL_TENANT, subject="local", wanted=KeyWanted("agent"))).credential
        grant: Grant = replace(
            sample_grant("g-1"),
            credential_id=key.credential_id,
            rights=(Right("python.run.core", calls_max=2),),
            issued_us=desk.clock.now_us() - 1,
            expires_us=desk.clock.now_us() + 60_000_000,
            revoked_us=None,
            parent=None,
        )
        await desk.store.transact(lambda tx: tx.grants.insert(grant))
        own = desk_for_grant(desk, key, grant)
        with pytest.raises(CrankError) as caught:
            await send(own, {**RUN, "capability": "*"}, subject=grant.holder)
        assert caught.value.error_code == "handle_not_granted"
        worker = await worker_of(desk)
        await send(own, RUN, subject=grant.holder)
        held = await running(worker)
        await worker.say(call(held, 1))
        await worker.finish(await running(worker), WITH_RESULT)
        assert (await worker.link.next(CallAnswer)).verdict == "done"
        assert (await answer(worker, call(held, 2))).code == "calls_spent"


async def test_a_result_that_is_too_large_or_was_not_kept_is_no_success(tmp_path: Path) -> None:
    """A called job that succeeded with more than can be handed over is a failed call that says so."""
    async with open_desk(tmp_path) as desk:
        worker = await worker_of(desk)
        await send(desk, RUN)
        held = await running(worker)
        large = replace(DONE, has_result=True, result="x" * ((1 << 20) + 1))
        lost: Outcome = replace(DONE, end=replace(DONE.end, message="The result was not kept: it is too large."))
        for number, (outcome, code) in enumerate(((large, "result_too_large"), (lost, "result_not_kept")), start=1):
            await worker.say(call(held, number))
            await worker.finish(await running(worker), outcome)
            told: CallAnswer = await worker.link.next(CallAnswer)
            assert (told.verdict, told.code, told.result) == ("failed", code, None)

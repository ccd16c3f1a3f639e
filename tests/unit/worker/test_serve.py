"""A worker's life on a link that breaks, with the controller played by the test."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.support.bench import Rig, lease_file, running, sample_build, sample_lease
from tests.support.staged_sandbox import FakeSandbox, Stage

from crank.adapters.signed import JwsAppraiser
from crank.domain.ids import Digest, JobId
from crank.domain.outcome import NEVER_BEGAN
from crank.domain.outcome_codec import parse_outcome
from crank.errors import SandboxError, Unavailable, UntrustedPeer
from crank.ports import PoolCount
from crank.testing.fake_gpu import fake_gpu
from crank.testing.fake_spool import MemorySpool
from crank.wire import (
    Beat,
    Declined,
    Draining,
    Finished,
    Hello,
    Holding,
    JobEvent,
    LeaseMount,
    Pool,
    Pools,
    Rejected,
    Resumed,
    Settled,
    Started,
)
from crank.worker.offers import script_offers


async def say_hello(stage: Stage) -> None:
    """Print a line and return the args."""
    await stage.write("hello\n")
    stage.result = stage.args


async def leave_files(stage: Stage) -> None:
    """Leave every input file in capitals."""
    for path, content in stage.files.items():
        stage.out[path] = content.upper()


async def forever(stage: Stage) -> None:
    """Print a line, then never end."""
    await stage.write("begun\n")
    await asyncio.Event().wait()


async def large(stage: Stage) -> None:
    """Return more than a message carries."""
    stage.result = "x" * 600_000


SCRIPTS = {"hello": say_hello, "files": leave_files, "forever": forever, "large": large}


async def test_a_job_goes_from_lease_to_settled() -> None:
    """A lease is started, told, finished and, once settled, forgotten."""
    async with running(Rig(SCRIPTS)) as rig:
        controller = await rig.accept()
        hello = await controller.welcome()
        manifest, key = JwsAppraiser().read_manifest(hello.manifest or "")
        assert [capability["name"] for capability in manifest.capabilities] == ["python.run.core"]
        assert (key, hello.capabilities) == (rig.key.jkt, [])
        said = (manifest.worker_id, manifest.instance_id, manifest.node_id)
        assert said == (hello.worker_id, hello.instance_id, hello.node_id)
        assert (hello.worker_id, hello.slots, hello.holding) == ("w1", 2, [])
        await controller.send(sample_lease("hello", args={"n": 1}))
        finished = await controller.finished()
        kinds = [type(message) for message in controller.heard if not isinstance(message, Beat)]
        assert kinds.index(Started) < kinds.index(Finished)
        outcome = parse_outcome(finished.outcome)
        assert (outcome.result, outcome.stdout.text) == ({"n": 1}, "hello\n")
        assert [event.text for event in controller.events()] == ["hello\n"]
        await rig.until(lambda: not rig.spool.attempts())


async def test_files_come_in_and_artifacts_go_out() -> None:
    """Input files are in the sandbox before the run, and what it leaves is uploaded before it is finished."""
    content = b"some text"
    digest = Digest(hashlib.sha256(content).hexdigest())
    async with running(Rig(SCRIPTS)) as rig:
        rig.connector.blobs[digest] = content
        controller = await rig.accept()
        await controller.welcome()
        await controller.send(sample_lease("files", files=[lease_file("a/b.txt", content, digest)]))
        outcome = parse_outcome((await controller.finished()).outcome)
        (artifact,) = outcome.artifacts
        assert rig.connector.blobs[artifact.sha256] == b"SOME TEXT"


@pytest.mark.parametrize(("stored", "code"), [(None, "input_missing"), (b"longer than told", "input_mismatch")])
async def test_an_input_that_is_not_right_ends_the_job_before_its_code(stored: bytes | None, code: str) -> None:
    """A missing file, or one of another size, is said with a code, and the script never runs."""
    digest = Digest("b" * 64)
    async with running(Rig(SCRIPTS)) as rig:
        if stored is not None:
            rig.connector.blobs[digest] = stored
        controller = await rig.accept()
        await controller.welcome()
        await controller.send(sample_lease("files", files=[lease_file("a", b"short", digest)]))
        outcome = parse_outcome((await controller.finished()).outcome)
        assert (outcome.end.reason, outcome.end.code) == ("sandbox_failed", code)
        assert rig.sandbox.runs == []


async def test_a_sandbox_that_cannot_be_built_is_told_as_such() -> None:
    """The code and message of the missing layer reach the controller."""
    fault = SandboxError("No user namespaces here.", code="no_user_namespace")
    async with running(Rig(SCRIPTS, sandbox=FakeSandbox(SCRIPTS, fault=fault))) as rig:
        controller = await rig.accept()
        await controller.welcome()
        await controller.send(sample_lease("hello"))
        outcome = parse_outcome((await controller.finished()).outcome)
        assert (outcome.end.reason, outcome.end.code) == ("sandbox_failed", "no_user_namespace")
        assert Started("job", 1) not in controller.heard


async def test_a_large_outcome_travels_as_a_blob() -> None:
    """What does not fit into a message is uploaded first and named by its digest."""
    async with running(Rig(SCRIPTS)) as rig:
        controller = await rig.accept()
        await controller.welcome()
        await controller.send(sample_lease("large"))
        finished = await controller.finished()
        assert finished.outcome is None
        assert b"x" * 600_000 in rig.connector.blobs[Digest(finished.outcome_blob or "")]


async def test_a_cancelled_job_keeps_what_it_printed() -> None:
    """Cancel ends the run with its reason and partial output."""
    async with running(Rig(SCRIPTS)) as rig:
        controller = await rig.accept()
        await controller.welcome()
        await controller.send(sample_lease("forever"))
        await rig.until(controller.events)
        await controller.cancel()
        outcome = parse_outcome((await controller.finished()).outcome)
        assert (outcome.end.reason, outcome.stdout.text) == ("cancelled", "begun\n")


async def test_cancelling_before_the_code_began_runs_nothing() -> None:
    """A job that is cancelled while its input is still missing ends as cancelled, without a run."""
    async with running(Rig(SCRIPTS)) as rig:
        controller = await rig.accept()
        await controller.welcome()
        blocked = asyncio.Event()

        async def stuck(digest: Digest, target: object) -> None:
            blocked.set()
            await asyncio.Event().wait()

        controller.link.worker.fetch_blob = stuck  # type: ignore[method-assign]
        await controller.send(sample_lease("files", files=[lease_file("a", b"a", "b" * 64)]))
        await blocked.wait()
        await controller.cancel()
        outcome = parse_outcome((await controller.finished()).outcome)
        assert (outcome.end.reason, rig.sandbox.runs) == ("cancelled", [])


async def test_a_broken_link_loses_nothing_and_repeats_nothing() -> None:
    """After a cut the worker says what it holds, resends from where it is told, and finishes once."""
    step = asyncio.Event()

    async def two_parts(stage: Stage) -> None:
        await stage.write("one\n")
        await step.wait()
        await stage.write("two\n")

    async with running(Rig({"two": two_parts})) as rig:
        first = await rig.accept()
        await first.welcome()
        await first.send(sample_lease("two"))
        await rig.until(first.events)
        first.link.cut()
        second = await rig.accept()
        hello = await second.welcome([Resumed("job", 1, "continue", 2)])
        assert hello.holding == [Holding("job", 1, "running")]
        step.set()
        await second.finished()
        assert [event.text for event in first.events()] == ["one\n"]
        assert [(event.seq, event.text) for event in second.events()] == [(2, "two\n")]
        assert rig.sandbox.runs == ["two"]


async def test_an_abandoned_lease_is_killed_and_forgotten() -> None:
    """A job that the controller has given up is ended, and its slot is free again."""
    async with running(Rig(SCRIPTS, slots=1)) as rig:
        first = await rig.accept()
        await first.welcome()
        await first.send(sample_lease("forever"))
        await rig.until(first.events)
        first.link.cut()
        second = await rig.accept()
        await second.welcome([Resumed("job", 1, "abandon", 1)])
        await rig.until(lambda: rig.sandbox.opened[0].closed and not rig.spool.attempts())
        await second.send(sample_lease("hello", job_id="next"))
        await second.finished("next")


async def test_a_newer_lease_of_a_job_replaces_the_older() -> None:
    """When the controller leases the same job again, the older attempt dies."""
    async with running(Rig(SCRIPTS)) as rig:
        controller = await rig.accept()
        await controller.welcome()
        await controller.send(sample_lease("forever"))
        await rig.until(controller.events)
        await controller.send(sample_lease("hello", epoch=2))
        assert (await controller.finished()).epoch == 2
        assert rig.sandbox.opened[0].closed


async def test_a_repeated_lease_runs_once() -> None:
    """The same lease twice is one attempt."""
    async with running(Rig(SCRIPTS)) as rig:
        controller = await rig.accept()
        await controller.welcome()
        await controller.send(sample_lease("hello"))
        await controller.send(sample_lease("hello"))
        await controller.finished()
        assert rig.sandbox.runs == ["hello"]


async def test_leases_it_cannot_take_are_declined_with_a_code() -> None:
    """Too many, or unknown: each is handed back, and nothing runs."""
    async with running(Rig(SCRIPTS, slots=1)) as rig:
        controller = await rig.accept()
        await controller.welcome()
        await controller.send(sample_lease("forever"))
        await controller.send(sample_lease("hello", job_id="full"))
        await controller.send(sample_lease("hello", job_id="odd", capability="python.run.other"))
        await controller.send(sample_lease("hello", job_id="gpu", accelerator="gpu"))
        declined = [await controller.next(Declined, nth=nth) for nth in (1, 2, 3)]
        assert [(one.job_id, one.code) for one in declined] == [
            ("full", "busy"),
            ("odd", "unknown_capability"),
            ("gpu", "unknown_capability"),
        ]


async def test_a_mount_reaches_the_sandbox(tmp_path: Path) -> None:
    """A folder that is there is bound under its name."""
    async with running(Rig(SCRIPTS)) as rig:
        controller = await rig.accept()
        await controller.welcome()
        await controller.send(sample_lease("hello", mounts=[LeaseMount("docs", str(tmp_path))]))
        await controller.finished()
        (binding,) = rig.sandbox.opened[0].spec.mounts
        assert (binding.name, binding.host_path) == ("docs", tmp_path)


async def test_one_gpu_goes_to_one_job_at_a_time() -> None:
    """A second GPU job is handed back while the device is held, and gets it afterwards."""
    gpus = [fake_gpu(0)]
    build = sample_build(name="python-ml", accelerator="gpu")
    rig = Rig(SCRIPTS, offers=script_offers([build], gpus), devices=gpus)
    async with running(rig):
        controller = await rig.accept()
        hello = await controller.welcome()
        manifest, _ = JwsAppraiser().read_manifest(hello.manifest or "")
        assert manifest.capabilities[0]["gpu_model"] == gpus[0].model
        wanted: dict[str, Any] = {"capability": "python.run.ml", "accelerator": "gpu"}
        await controller.send(sample_lease("forever", job_id="a", **wanted))
        await controller.send(sample_lease("hello", job_id="b", **wanted))
        assert (await controller.next(Declined)).code == "busy"
        await rig.until(lambda: controller.events("a"))
        assert rig.sandbox.opened[0].spec.devices == gpus[0].nodes
        await controller.cancel("a")
        await controller.finished("a")
        await controller.send(sample_lease("hello", job_id="b", epoch=2, **wanted))
        await controller.finished("b")


async def test_what_a_restart_cut_off_is_said() -> None:
    """An attempt that was begun and not finished before a restart is reported, then forgotten."""
    spool = MemorySpool()
    spool.begin(JobId("cut"), 3)
    async with running(Rig(SCRIPTS, spool=spool)) as rig:
        controller = await rig.accept()
        hello = await controller.welcome([Resumed("cut", 3, "abandon", 1)])
        assert hello.holding == [Holding("cut", 3, "interrupted")]
        await rig.until(lambda: not spool.attempts())


async def test_an_outcome_survives_a_restart_of_the_worker() -> None:
    """A finished attempt that nobody settled is told again by the next process, artifacts included."""
    content = b"text"
    digest = Digest(hashlib.sha256(content).hexdigest())
    spool = MemorySpool()
    async with running(Rig(SCRIPTS, spool=spool)) as rig:
        rig.connector.blobs[digest] = content
        controller = await rig.accept()
        await controller.welcome()
        await controller.send(sample_lease("files", files=[lease_file("a", content, digest)]))
        first = await controller.next(Finished)
    async with running(Rig(SCRIPTS, spool=spool)) as rig:
        controller = await rig.accept()
        hello = await controller.welcome([Resumed("job", 1, "continue", 1)])
        assert hello.holding == [Holding("job", 1, "finished")]
        assert await controller.finished() == first
        assert Digest(hashlib.sha256(b"TEXT").hexdigest()) in rig.connector.blobs
        await rig.until(lambda: not spool.attempts())
        assert rig.sandbox.runs == []


async def test_an_interrupted_worker_leaves_its_note() -> None:
    """A worker that ends in the middle of a run leaves the note by which its next process says so."""
    spool = MemorySpool()
    async with running(Rig(SCRIPTS, spool=spool)) as rig:
        controller = await rig.accept()
        await controller.welcome()
        await controller.send(sample_lease("forever"))
        await rig.until(controller.events)
    assert [(one.job_id, one.finished) for one in spool.attempts()] == [("job", False)]
    assert rig.sandbox.opened[0].closed


async def test_draining_finishes_what_runs_and_takes_nothing_new() -> None:
    """A draining worker says so, hands new leases back, and leaves with code 0 when its job is settled."""
    step = asyncio.Event()

    async def waits(stage: Stage) -> None:
        await stage.write("begun\n")
        await step.wait()

    async with running(Rig({"waits": waits})) as rig:
        controller = await rig.accept()
        await controller.welcome()
        await controller.send(sample_lease("waits"))
        await rig.until(controller.events)
        rig.worker.drain()
        await controller.next(Draining)
        await controller.send(sample_lease("waits", job_id="late"))
        assert (await controller.next(Declined)).code == "draining"
        step.set()
        await controller.finished()
        assert await rig.ended() == 0


async def test_draining_has_an_end() -> None:
    """A job that does not end in time is cut off and the worker leaves all the same."""
    async with running(Rig(SCRIPTS)) as rig:
        controller = await rig.accept()
        await controller.welcome()
        await controller.send(sample_lease("forever"))
        await rig.until(controller.events)
        rig.worker.drain(limit_sec=0.01)
        assert await rig.ended() == 0
        assert [one.finished for one in rig.spool.attempts()] == [False]


async def test_beats_go_on_while_jobs_run() -> None:
    """The worker beats from the first moment on, and tells how many slots are free."""
    async with running(Rig(SCRIPTS, slots=2)) as rig:
        controller = await rig.accept()
        await controller.welcome()
        assert (await controller.next(Beat)).free_slots == 2
        await controller.send(sample_lease("forever"))
        await rig.until(lambda: Beat(1) in controller.heard)
        await controller.next(Beat, nth=5)


async def test_parked_sandboxes_are_told_when_they_change() -> None:
    """Pools go with a beat when their counts changed, and not again while they stay."""
    async with running(Rig(SCRIPTS)) as rig:
        rig.sandbox.pooled = (PoolCount("python-core", 2, 0),)
        controller = await rig.accept()
        await controller.welcome()
        assert (await controller.next(Pools)).pools == [Pool("python-core", 2, 0)]
        await controller.next(Beat, nth=5)
        rig.sandbox.pooled = (PoolCount("python-core", 1, 1),)
        assert (await controller.next(Pools, nth=2)).pools == [Pool("python-core", 1, 1)]
        assert sum(isinstance(message, Pools) for message in controller.heard) == 2


async def test_an_untrusted_controller_is_refused_in_a_sentence() -> None:
    """The log says that the worker refuses the controller, why, and what to do; then it tries again."""
    rig = Rig(SCRIPTS)
    rig.connector.faults.append(UntrustedPeer("The controller cannot prove who it is: another authority."))
    with capture_logs() as logs:
        async with running(rig):
            await (await rig.accept()).welcome()
    (line,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert line["event"].startswith("This worker refuses the controller: The controller cannot prove who it is")
    assert line["fix"]


async def test_a_worker_that_is_not_wanted_ends_with_code_4() -> None:
    """A capability that the controller cannot accept will not be accepted later either."""
    async with running(Rig(SCRIPTS)) as rig:
        controller = await rig.accept()
        await controller.send(Rejected("invalid_capability", "Its version is wrong.", "Correct it."))
        assert await rig.ended() == 4


async def test_a_worker_that_is_turned_away_for_now_comes_back() -> None:
    """Nobody there, busy, or silent: the worker tries until it is let in."""
    rig = Rig(SCRIPTS)
    rig.connector.faults += [Unavailable("Nobody answers."), Unavailable("Nobody answers.")]
    async with running(rig):
        controller = await rig.accept()
        await controller.send(Rejected("starting", "Not yet.", "Wait."))
        controller = await rig.accept()
        await controller.send(Settled("what", 1, "accepted"))
        controller = await rig.accept()
        controller.link.cut()
        await (await rig.accept()).welcome()
        assert rig.connector.tries == 6


async def _play(cuts: list[int], parts: int) -> tuple[list[JobEvent], int, list[str]]:
    """Run one job while the link is cut after as many messages as `cuts` say; return what a controller keeps."""

    async def talk(stage: Stage) -> None:
        for number in range(parts):
            await stage.write(f"{number}\n")
            await asyncio.sleep(0.001)

    kept: list[JobEvent] = []
    ends = 0
    async with running(Rig({"talk": talk})) as rig:
        leased = False
        for cut_after in [*cuts, None]:
            controller = await rig.accept()
            hello = await controller.next(Hello)
            await controller.welcome(
                [Resumed(one.job_id, one.epoch, "continue", len(kept) + 1) for one in hello.holding]
            )
            if not leased:
                await controller.send(sample_lease("talk"))
                leased = True
            if cut_after is not None:
                await rig.until(lambda c=controller, n=cut_after: len(c.heard) > n)
                controller.link.cut()
            else:
                await controller.next(Finished)
            for event in controller.events():
                assert event.seq <= len(kept) + 1, "events have no gap"
                if event.seq == len(kept) + 1:
                    kept.append(event)
            if any(isinstance(message, Finished) for message in controller.heard):
                ends += 1
        return kept, ends, rig.sandbox.runs


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cuts=st.lists(st.integers(1, 6), max_size=4), parts=st.integers(0, 30))
def test_no_cut_loses_or_repeats_output(cuts: list[int], parts: int) -> None:
    """Wherever the link breaks, the controller ends up with every line once, in order, and one end; the code ran once."""
    kept, ends, runs = asyncio.run(_play(cuts, parts))
    assert "".join(event.text for event in kept) == "".join(f"{number}\n" for number in range(parts))
    assert ends >= 1
    assert runs == ["talk"]


@pytest.mark.parametrize(("deaths", "reason"), [(1, "exited"), (4, "exited"), (5, "sandbox_failed")])
async def test_a_job_whose_sandbox_died_before_its_first_line_gets_another(deaths: int, reason: str) -> None:
    """Sandboxes that die ready cost time and no job, as often as all that stood ready may have died; then it is told."""
    left = [deaths]

    async def dies(stage: Stage) -> None:
        if left[0]:
            left[0] -= 1
            raise SandboxError("It died while it waited.", code=NEVER_BEGAN)
        stage.result = "right"

    async with running(Rig({"dies": dies})) as rig:
        controller = await rig.accept()
        await controller.welcome()
        await controller.send(sample_lease("dies"))
        outcome = parse_outcome((await controller.finished()).outcome)
        assert outcome.end.reason == reason
        assert outcome.result == ("right" if reason == "exited" else None)

"""What a job leaves on its way to the controller, with the controller played by the test."""

from tests.support.bench import Rig, running, sample_lease
from tests.support.staged_sandbox import Stage

from crank.domain.outcome_codec import parse_outcome
from crank.wire import Finished, Resumed
from crank.worker.deliver import UPLOADS_AT_ONCE


async def test_equal_contents_are_brought_once_and_some_at_a_time() -> None:
    """Of files with one content one travels, several contents travel at once, and never more than may."""

    async def leave(stage: Stage) -> None:
        stage.out.update({f"equal/{number}": b"the same" for number in range(300)})
        stage.out.update({f"own/{number}": b"%d" % number for number in range(20)})

    async with running(Rig({"leave": leave})) as rig:
        controller = await rig.accept()
        link = controller.link
        link.gate.clear()
        await controller.welcome()
        await controller.send(sample_lease("leave"))
        await rig.until(lambda: link.sending == UPLOADS_AT_ONCE)
        assert not any(isinstance(message, Finished) for message in controller.heard)
        link.gate.set()
        outcome = parse_outcome((await controller.finished()).outcome)
        assert len(outcome.artifacts) == 320
        assert (len(link.sent), len(set(link.sent))) == (21, 21)
        # It was the first to bring each: there was nothing to ask for, so nothing could be learned of others.
        assert link.asked == []


async def test_a_cut_delivery_brings_only_what_is_missing() -> None:
    """After a cut the controller is asked for what it had from this job, and for nothing else."""

    async def leave(stage: Stage) -> None:
        stage.out.update({f"{number}": b"%d" % number for number in range(20)})

    async with running(Rig({"leave": leave})) as rig:
        first = await rig.accept()
        first.link.blobs_max = 6
        await first.welcome()
        await first.send(sample_lease("leave"))
        await rig.until(lambda: len(first.link.sent) == 6 and first.link.sending == 0)
        first.link.cut()
        second = await rig.accept()
        await second.welcome([Resumed("job", 1, "continue", 1)])
        outcome = parse_outcome((await second.finished()).outcome)
        assert len(outcome.artifacts) == 20
        assert set(second.link.asked) == set(first.link.sent)
        assert len(second.link.sent) == 14
        assert not set(second.link.sent) & set(first.link.sent)

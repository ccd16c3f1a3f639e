"""The promises of `ports.FunctionRunner` as tests: what a call returns, how it is stopped, what is left of it."""

import asyncio

import pytest

from crank.domain.capability import Isolation
from crank.domain.outcome import Reason
from crank.ports import FunctionRunner, FunctionSpec
from crank.testing.contracts_sandbox import RecordingSink

SOON_SEC = 60.0
ISOLATIONS = tuple(Isolation)


class FunctionContract:
    """What every FunctionRunner promises."""

    async def make_runner(self, *, waits: bool) -> FunctionRunner:
        """Return a runner whose function returns 42, or prints `begun` and never ends by itself."""
        raise NotImplementedError

    def make_spec(self, isolation: Isolation, *, waits: bool) -> FunctionSpec:
        """Name that function."""
        raise NotImplementedError

    @pytest.mark.parametrize("isolation", ISOLATIONS)
    async def test_a_call_returns_what_the_function_returned(self, isolation: Isolation) -> None:
        """Again and again, with the tier that held."""
        runner = await self.make_runner(waits=False)
        try:
            for _ in range(3):
                call = await runner.open(self.make_spec(isolation, waits=False))
                outcome = await asyncio.wait_for(call.run({}, RecordingSink()), SOON_SEC)
                await call.close()
                assert (outcome.end.reason, outcome.result) == (Reason.EXITED, 42)
                assert outcome.tier == call.tier == runner.tier
        finally:
            await runner.stop()

    @pytest.mark.parametrize("isolation", ISOLATIONS)
    async def test_a_stopped_call_tells_the_reason(self, isolation: Isolation) -> None:
        """It returns what it had printed, and the next call is none the worse."""
        runner = await self.make_runner(waits=True)
        try:
            for _ in range(2):
                call, sink = await runner.open(self.make_spec(isolation, waits=True)), RecordingSink()
                running = asyncio.ensure_future(call.run({}, sink))
                await asyncio.wait_for(sink.arrived.wait(), SOON_SEC)
                await call.stop(Reason.CANCELLED)
                outcome = await asyncio.wait_for(running, SOON_SEC)
                await call.close()
                assert (outcome.end.reason, outcome.stdout.text) == (Reason.CANCELLED, "begun\n")
                assert not outcome.has_result
        finally:
            await runner.stop()

    @pytest.mark.parametrize("isolation", ISOLATIONS)
    async def test_closing_is_safe_at_any_time(self, isolation: Isolation) -> None:
        """Twice, without a run, in the middle of a run that was given up, and of the runner itself."""
        runner = await self.make_runner(waits=True)
        unused = await runner.open(self.make_spec(isolation, waits=True))
        await unused.close()
        await unused.close()
        call, sink = await runner.open(self.make_spec(isolation, waits=True)), RecordingSink()
        running = asyncio.ensure_future(call.run({}, sink))
        await asyncio.wait_for(sink.arrived.wait(), SOON_SEC)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await call.close()
        await runner.stop()
        await runner.stop()

"""One attempt as the worker knows it, from the lease until the controller has settled it."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from crank.domain.ids import Digest, JobId
from crank.domain.json import JsonObject
from crank.domain.outcome import Reason
from crank.ports import Clock, Failpoints, FunctionRunner, IdSource, SandboxRunner, Spool
from crank.wire.calls import CallAnswer
from crank.worker.feed import Feed
from crank.worker.stdin import StdinQueue

Key = tuple[JobId, int]


@dataclass(frozen=True, slots=True)
class Bench:
    """What every attempt of a worker works with. One without scripts has no sandbox, one without functions no runner."""

    sandbox: SandboxRunner | None
    functions: FunctionRunner | None
    spool: Spool
    clock: Clock
    ids: IdSource
    failpoints: Failpoints


class Reachable(Protocol):
    """A run that can be ended, interrupted and written to from outside."""

    async def stop(self, reason: Reason) -> None:
        """End the run now with this reason."""
        ...

    async def interrupt(self) -> None:
        """Send SIGINT. Raises Conflict when nothing runs."""
        ...


class OpenCalls(Protocol):
    """The calls that the code of a run makes."""

    @property
    def waiting(self) -> bool:
        """Tell whether the code waits for an answer."""
        ...

    def answered(self, message: CallAnswer) -> None:
        """Hand an answer to the call that it is for."""
        ...


class Attempt:
    """The state of one attempt; `execute` moves it forward and `deliver` tells the controller of it."""

    def __init__(self, job_id: JobId, epoch: int, *, live_bytes_max: int, outcome: JsonObject | None = None) -> None:
        self.job_id = job_id
        self.epoch = epoch
        self.feed = Feed(epoch, live_bytes_max=live_bytes_max)
        self.started = False
        self.outcome = outcome
        # Done when there is an outcome.
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if outcome is not None:
            self.over.set_result(None)
        self.cancelled = False
        # Blobs of its own that the controller had once: only for these it is asked whether it has them still.
        self.known: set[Digest] = set()
        # While its artifacts are brought, which a change of links does not cut; then its events may be wanted again.
        self.carrying = False
        self.retell = False
        self.work: asyncio.Task[None] | None = None
        self._preparing: asyncio.Task[Any] | None = None
        self._running: Reachable | None = None
        # None unless the lease says that stdin stays open.
        self.stdin: StdinQueue | None = None
        # None unless the lease brings handles; and whether another job waits for this one.
        self.calls: OpenCalls | None = None
        self.called = False

    @property
    def key(self) -> Key:
        """Return what tells this attempt from every other."""
        return self.job_id, self.epoch

    @property
    def waiting(self) -> bool:
        """Tell whether its code waits for a job that it called for."""
        return self.calls is not None and self.calls.waiting

    def answered(self, message: CallAnswer) -> None:
        """Hand an answer to the call of its code that waits for it."""
        if self.calls is not None:
            self.calls.answered(message)

    @property
    def phase(self) -> Literal["running", "finished"]:
        """Return how the attempt is named in `hello`."""
        return "running" if self.outcome is None else "finished"

    async def prepare(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do the work before the run; `cancel` ends it with CancelledError."""
        if self.cancelled:
            work.close()
            raise asyncio.CancelledError
        self._preparing = preparing = asyncio.ensure_future(work)
        try:
            return await preparing
        except asyncio.CancelledError:
            # Cut off between its last step and ours: what it opened must not stay open.
            if preparing.done() and not preparing.cancelled() and preparing.exception() is None:
                await asyncio.shield(preparing.result().close())
            raise
        finally:
            self._preparing = None

    def begin(self, running: Reachable) -> None:
        """Note that the job's own code is about to run, so that `cancel` ends the run itself."""
        self._running = running
        self.started = True
        self.feed.changed.set()

    def finish(self, outcome: JsonObject) -> None:
        """Note the outcome; there is no way back."""
        assert self.outcome is None, "an attempt ends once"
        self._running = None
        self.outcome = outcome
        self.over.set_result(None)
        self.feed.changed.set()

    @property
    def running(self) -> Reachable | None:
        """Return what runs now, or None before the run and after it."""
        return self._running

    async def cancel(self) -> None:
        """End the attempt; its partial outcome follows. Doing it twice, or too late, changes nothing."""
        self.cancelled = True
        if self._running is not None:
            await self._running.stop(Reason.CANCELLED)
        elif self._preparing is not None:
            self._preparing.cancel()

    async def abandon(self) -> None:
        """Kill the attempt with everything that runs for it; nobody wants its outcome."""
        if self.work is not None and self.work is not asyncio.current_task():
            self.work.cancel()
            await asyncio.wait([self.work])

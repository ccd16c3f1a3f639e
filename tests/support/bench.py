"""A worker on fakes, and the controller that a test plays at the other end of its link."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from crank.domain.ids import Digest
from crank.domain.profile import Limits, Profile
from crank.domain.worker import GpuDevice
from crank.ports import ProfileBuild, Spool
from crank.testing.fake_link import FakeConnector, FakeLink
from crank.testing.fake_spool import MemorySpool
from crank.testing.fakes import FakeClock, FakeFailpoints, FakeIdSource
from crank.wire import Cancel, Finished, Hello, JobEvent, Lease, LeaseFile, Message, Output, Resumed, Settled, Welcome
from crank.worker.attempt import Bench
from crank.worker.identity import WorkerIdentity
from crank.worker.offers import Offer, script_offers
from crank.worker.serve import Worker
from tests.support.signing import OwnKey
from tests.support.staged_sandbox import FakeSandbox, Script

SOON_SEC = 20.0
BEAT_SEC = 0.05
Kind = TypeVar("Kind")


def sample_build(
    *, name: str = "python-core", accelerator: str = "cpu", limits: Limits | None = None, version: str = "1.0.0"
) -> ProfileBuild:
    """Return a built profile of which only the values matter."""
    profile = Profile(
        name=name,
        capability=f"python.run.{name.removeprefix('python-')}",
        version=version,
        python="3.11",
        summary="Runs Python.",
        packages=(),
        programs=(),
        preimports=(),
        locks={"cpu": "cpu.txt", "gpu": "gpu.txt"},
        limits=limits or Limits(),
        self_tests=(),
    )
    return ProfileBuild(profile, Path("/nowhere"), "/python", "/site", Digest("a" * 64), accelerator)


def sample_lease(code: str | None, *, job_id: str = "job", epoch: int = 1, **changed: Any) -> Lease:
    """Return a lease for a script."""
    fields: dict[str, Any] = {
        "capability": "python.run.core",
        "accelerator": "cpu",
        "args": None,
        "files": [],
        "mounts": [],
        "timeout_sec": None,
        "max_output_bytes": None,
        "memory_bytes": None,
        "traceparent": None,
    }
    return Lease(job_id=job_id, epoch=epoch, code=code, **{**fields, **changed})


def lease_file(path: str, content: bytes, digest: str) -> LeaseFile:
    """Return an input file as a lease names it."""
    return LeaseFile(path, digest, len(content))


class PlayedController:
    """Reads one link and keeps what it heard; a test says what it answers."""

    def __init__(self, link: FakeLink) -> None:
        self.link = link
        self.heard: list[Message] = []
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.link.controller.messages():
            self.heard.append(message)
            self._changed.set()
        self._changed.set()

    async def send(self, message: Message) -> None:
        """Send one message to the worker."""
        await self.link.controller.send(message)

    async def next(self, kind: type[Kind], *, nth: int = 1) -> Kind:
        """Return the nth message of a kind, waiting for it."""

        async def look() -> Kind:
            while True:
                found = [message for message in self.heard if isinstance(message, kind)]
                if len(found) >= nth:
                    return found[nth - 1]
                self._changed.clear()
                await self._changed.wait()

        return await asyncio.wait_for(look(), SOON_SEC)

    async def welcome(self, resumed: Sequence[Resumed] = ()) -> Hello:
        """Read hello and let the worker in."""
        hello = await self.next(Hello)
        await self.send(Welcome(1, "c1", BEAT_SEC, 10.0, list(resumed)))
        return hello

    async def finished(self, job_id: str = "job") -> Finished:
        """Return how a job ended, and settle it."""
        while True:
            nth = 1
            while True:
                finished = await self.next(Finished, nth=nth)
                if finished.job_id == job_id:
                    await self.send(Settled(job_id, finished.epoch, "accepted"))
                    return finished
                nth += 1

    async def cancel(self, job_id: str = "job", epoch: int = 1) -> None:
        """Cancel a job."""
        await self.send(Cancel(job_id, epoch))

    def events(self, job_id: str = "job") -> list[JobEvent]:
        """Return every event that was heard of a job, repeats included."""
        outputs = [message for message in self.heard if isinstance(message, Output) and message.job_id == job_id]
        return [event for output in outputs for event in output.events]


class Rig:
    """One worker that runs, with everything a test may look at."""

    def __init__(
        self,
        scripts: Mapping[str, Script],
        *,
        spool: Spool | None = None,
        offers: Sequence[Offer] | None = None,
        devices: Sequence[GpuDevice] = (),
        slots: int = 2,
        sandbox: FakeSandbox | None = None,
    ) -> None:
        self.connector = FakeConnector()
        self.sandbox = sandbox or FakeSandbox(scripts)
        self.spool = spool or MemorySpool()
        self.failpoints = FakeFailpoints()
        ids = FakeIdSource(jitters=(0.01,))
        self.bench = Bench(self.sandbox, None, self.spool, FakeClock(), ids, self.failpoints)
        self.key = OwnKey()
        self.worker = Worker(
            self.connector,
            WorkerIdentity("w1", ids.uuid7(), "n1", "test", self.key),
            offers=offers if offers is not None else script_offers([sample_build()], devices),
            bench=self.bench,
            slots=slots,
            devices=devices,
        )
        self.running: asyncio.Task[int] | None = None

    async def accept(self) -> PlayedController:
        """Return the controller's end of the worker's next connection."""
        return PlayedController(await asyncio.wait_for(self.connector.accepted.get(), SOON_SEC))

    async def until(self, condition: Any) -> None:
        """Wait until a condition holds."""
        async with asyncio.timeout(SOON_SEC):
            while not condition():
                await asyncio.sleep(0.005)

    async def ended(self) -> int:
        """Return the worker's exit code."""
        assert self.running is not None
        return await asyncio.wait_for(self.running, SOON_SEC)


@contextlib.asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    """Run the rig's worker while the block does, then end it as a kill would."""
    rig.running = asyncio.create_task(rig.worker.run())
    try:
        yield rig
    finally:
        rig.running.cancel()
        await asyncio.wait([rig.running])

"""A desk and a whole worker beside each other in one process: real use cases on both sides, a scripted sandbox below."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

from crank.controller.desk import Desk
from crank.controller.enroll import enroll, leave
from crank.controller.report import receive
from crank.domain.enrolment import Manifest
from crank.domain.ids import Digest
from crank.domain.quantity import BLOB_BYTES_MAX
from crank.domain.trust import Peer
from crank.errors import CrankError, Unavailable
from crank.ports import ControllerLink
from crank.testing.fake_identity import FakeIdentity
from crank.testing.fake_link import FakeLink
from crank.testing.fake_sandbox import FakeSandboxRunner, FakeSandboxSession, ScriptedRun
from crank.testing.fake_spool import MemorySpool
from crank.testing.fakes import FakeClock, FakeFailpoints, FakeIdSource
from crank.wire import Hello
from crank.worker.attempt import Bench
from crank.worker.identity import WorkerIdentity
from crank.worker.offers import script_offers
from crank.worker.serve import Worker
from crank.worker.sessions import SessionBounds
from tests.support.bench import SOON_SEC, sample_build
from tests.support.desk import peer_named
from tests.support.signing import OwnKey


class DeskBlobs(dict[Digest, bytes]):
    """The blobs of a desk, where a fake link looks for blobs."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk

    def __contains__(self, digest: object) -> bool:
        return self._desk.blobs.size(Digest(str(digest))) is not None

    def __getitem__(self, digest: Digest) -> bytes:
        with self._desk.blobs.open(digest) as source:
            return source.read()

    def __setitem__(self, digest: Digest, content: bytes) -> None:
        self._desk.blobs.put(io.BytesIO(content), expected=digest, bytes_max=BLOB_BYTES_MAX)


class DeskKey(OwnKey):
    """Signs by the desk's own clock and ids, because a pair's worker has a clock that stands still and repeats its ids."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk

    def sign_manifest(self, manifest: Manifest) -> str:
        """Sign it as of now."""
        now_sec = self._desk.clock.now_us() // 1_000_000
        return super().sign_manifest(replace(manifest, manifest_id=self._desk.ids.uuid7(), signed_sec=now_sec))


class DeskConnector:
    """The Connector port: each `connect` enrolls at the desk, as the worker listener would."""

    def __init__(self, desk: Desk, name: str) -> None:
        self._desk = desk
        self._name = name
        self.links: list[FakeLink] = []
        self.key = DeskKey(desk)
        self.reachable = asyncio.Event()
        self.reachable.set()
        self._serving: set[asyncio.Task[None]] = set()
        # What the certificate of a new connection says; None: there is none.
        self.shows: Callable[[], Peer | None] = lambda: None

    async def connect(self) -> ControllerLink:
        """Open a link, waiting while the desk is not reachable."""
        await self.reachable.wait()
        link = FakeLink(DeskBlobs(self._desk))
        self.links.append(link)
        serving = asyncio.create_task(self._serve(link, self.shows()))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)
        return link.worker

    async def _serve(self, link: FakeLink, shown: Peer | None) -> None:
        messages = link.controller.messages()
        hello = await anext(messages, None)
        if not isinstance(hello, Hello):
            return
        peer = peer_named(self._name, jkt=self.key.jkt)
        try:
            worker = await enroll(self._desk, hello=hello, peer=peer.spiffe_id, link=link.controller, shown=shown or peer)
        except CrankError as fault:
            # As the worker listener does: the link ends, and the worker comes back.
            await link.controller.close(fault.error_code, fault.message)
            return
        try:
            async for message in messages:
                await receive(self._desk, worker=worker, message=message)
        except CrankError as fault:
            await link.controller.close(fault.error_code, fault.message)
        finally:
            # The desk may be closing too.
            with contextlib.suppress(Unavailable):
                await leave(self._desk, worker=worker)


class Pair:
    """A worker that runs beside a desk, with what a test may turn: its clock, its link, its sandbox."""

    def __init__(
        self, desk: Desk, script: Mapping[str, ScriptedRun], *, slots: int = 2, name: str = "w1",
        own: FakeIdentity | None = None, **bounds: Any,
    ) -> None:  # fmt: skip
        self.desk = desk
        self.own = own
        self.clock = FakeClock()
        self._script = script
        self.runners: list[FakeSandboxRunner] = []
        self.connector = DeskConnector(desk, name)
        self.spool = MemorySpool()
        self.name = name
        self._slots = slots
        self._bounds = SessionBounds(**bounds)
        self.worker = self._make()
        self.running: asyncio.Task[int] | None = None

    @property
    def runner(self) -> FakeSandboxRunner:
        """Return what the worker of now runs jobs with."""
        return self.runners[-1]

    def _make(self) -> Worker:
        self.runners.append(FakeSandboxRunner(self._script))
        ids = FakeIdSource(jitters=(0.01,))
        build = sample_build()
        build = replace(build, profile=replace(build.profile, programs=("pandoc",)))
        return Worker(
            self.connector,
            WorkerIdentity(self.name, self.desk.ids.uuid7(), "n1", "test", self.connector.key, self.own),
            offers=script_offers([build], (), "none"),
            bench=Bench(self.runner, None, self.spool, self.clock, ids, FakeFailpoints()),
            slots=self._slots,
            bounds=self._bounds,
        )

    @property
    def sandbox(self) -> FakeSandboxSession:
        """Return the sandbox that was opened last."""
        return self.runner.sessions[-1]

    async def start(self) -> None:
        """Run the worker and wait until the desk knows which sessions it holds."""
        self.running = asyncio.create_task(self.worker.run())
        await self.ready()

    async def ready(self) -> None:
        """Wait until the worker is connected and has said what it holds."""
        await until(lambda: any(worker.sessions is not None for worker in self.desk.roster.live()))

    async def reconnected(self) -> None:
        """Cut the link, and wait until the worker stands on another one and has said there what it holds."""
        before = self.desk.roster.live()
        self.cut()
        await until(
            lambda: any(worker.sessions is not None and worker not in before for worker in self.desk.roster.live())
        )

    async def kill(self) -> None:
        """End the worker as a kill would: no word, and nothing of it lives on."""
        assert self.running is not None
        self.running.cancel()
        await asyncio.wait([self.running])

    async def restart(self) -> None:
        """Start the worker again after `kill`, as a fresh process with the same name."""
        self.worker = self._make()
        await self.start()

    async def renew(self) -> None:
        """Let the worker renew its certificate and hand its link over; wait until it did."""
        assert self.own is not None
        before, handed = len(self.connector.links), self.desk.tally.links_renewed
        self.clock.advance(self.own.due_sec)
        await until(lambda: len(self.connector.links) > before and self.desk.tally.links_renewed > handed)
        await until(lambda: not any(live.carried or live.carried_sessions for live in self.desk.roster.live()))

    def cut(self) -> None:
        """Lose the link; the worker comes back by itself."""
        self.connector.links[-1].cut()


async def until(condition: Any) -> None:
    """Wait until a condition holds, awaiting it when it must be asked."""
    async with asyncio.timeout(SOON_SEC):
        while True:
            held = condition()
            if await held if asyncio.iscoroutine(held) else held:
                return
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def paired(desk: Desk, script: Mapping[str, ScriptedRun], **options: Any) -> AsyncIterator[Pair]:
    """Give a desk with a running worker beside it."""
    pair = Pair(desk, script, **options)
    await pair.start()
    try:
        yield pair
    finally:
        await pair.kill()

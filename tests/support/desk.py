"""A controller's desk on real adapters in a temporary folder, with a scripted worker at its link."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

from crank.adapters.blobs import FileBlobStore
from crank.adapters.clock import SystemClock, SystemIdSource
from crank.adapters.failpoints import NoFailpoints
from crank.adapters.json_schema import JsonSchemaChecker
from crank.adapters.signed import JwsAppraiser
from crank.adapters.sqlite import SqliteStore
from crank.adapters.streams import FileStreamLog
from crank.bootstrap.federation import open_trust
from crank.controller.desk import Desk, Policy
from crank.controller.enroll import enroll, leave
from crank.controller.keys import admit_owner
from crank.controller.loop import ControllerLoop
from crank.controller.report import receive
from crank.controller.roster import LiveWorker
from crank.domain.capability import Capability, capability_document
from crank.domain.enrolment import Manifest
from crank.domain.identity import make_spiffe_id
from crank.domain.ids import InstanceId
from crank.domain.json import JsonObject
from crank.domain.outcome import End, Outcome, Reason, Stream
from crank.domain.outcome_codec import outcome_document
from crank.domain.trust import Attestation, Peer, Workload
from crank.errors import Unavailable
from crank.ports import Authority, Clock
from crank.testing.memory_authority import MemoryAuthority
from crank.wire import MANIFEST_SINCE, Finished, Hello, Holding, JobEvent, Lease, Message, Output, Started, Welcome
from tests.support.signing import OwnKey

TRUST_DOMAIN = "test.internal"
SECRET = "a-secret-for-tests"
DONE = Outcome(End(Reason.EXITED, exit_code=0), stdout=Stream("hi\n", 3, 3))


class QueueLink:
    """A worker's end of a link, as two lists that a test reads."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.closed: str | None = None

    async def send(self, message: Message) -> None:
        """Keep a message for the test; a closed link is gone."""
        if self.closed is not None:
            raise Unavailable("closed")
        await self.sent.put(message)

    async def close(self, code: str, message: str) -> None:
        """Note why the link was closed."""
        self.closed = code

    async def next(self, kind: type) -> Any:
        """Return the next message of a kind, passing over others."""
        while True:
            message = await asyncio.wait_for(self.sent.get(), 10)
            if isinstance(message, kind):
                return message


def peer_named(name: str, *, jkt: str = "") -> Peer:
    """Return what a verifier would say of a worker's certificate."""
    return Peer(make_spiffe_id(TRUST_DOMAIN, "worker", name), None, ("0a",), 0, 1 << 60, jkt)


class ScriptedWorker:
    """A worker that says exactly what a test tells it to."""

    def __init__(
        self, desk: Desk, name: str, capabilities: list[Capability], slots: int = 2, *, version: int = 1,
        attestation: Attestation | None = None,
    ) -> None:
        self.desk = desk
        self.version = version
        self.name = name
        self.capabilities = capabilities
        self.slots = slots
        self.instance_id = desk.ids.uuid7()
        self.key = OwnKey()
        self.attestation = attestation
        self.link = QueueLink()
        self.live: LiveWorker | None = None

    async def connect(
        self, holding: list[Holding] | None = None, *, versions: tuple[int, int] | None = None, renews: bool = False
    ) -> Welcome:
        """Enroll over a fresh link."""
        self.link = QueueLink()
        documents = [capability_document(capability) for capability in self.capabilities]
        peer = peer_named(self.name, jkt=self.key.jkt)
        if self.attestation is not None:
            peer = replace(peer, workload=Workload("worker", InstanceId(self.instance_id), self.attestation))
        offered = versions or (1, self.version)
        signed = self._signed(documents) if offered[1] >= MANIFEST_SINCE else None
        hello = Hello(
            *offered, self.name, self.instance_id, "n1", "0", self.slots,
            documents if signed is None else [], holding or [], renews=renews, manifest=signed,
        )  # fmt: skip
        shown = None if signed is None else peer
        self.live = await enroll(self.desk, hello=hello, peer=peer.spiffe_id, link=self.link, shown=shown)
        welcome: Welcome = await self.link.next(Welcome)
        return welcome

    def _signed(self, documents: list[JsonObject]) -> str:
        now_sec = self.desk.clock.now_us() // 1_000_000
        ids = self.desk.ids.uuid7(), self.name, self.instance_id, "n1"
        return self.key.sign_manifest(Manifest(*ids, now_sec, tuple(documents)))

    async def disconnect(self) -> None:
        """Lose the connection."""
        assert self.live is not None
        self.link.closed = "lost"
        await leave(self.desk, worker=self.live)

    async def say(self, message: Message) -> None:
        """Send one message."""
        assert self.live is not None
        await receive(self.desk, worker=self.live, message=message)

    async def lease(self) -> Lease:
        """Return the next lease."""
        lease: Lease = await self.link.next(Lease)
        return lease

    async def finish(self, lease: Lease, outcome: Outcome = DONE) -> None:
        """Run a lease to its end."""
        await self.say(Started(lease.job_id, lease.epoch))
        event = JobEvent(lease.epoch, 1, "stdout", outcome.stdout.text, 0, None, 1)
        await self.say(Output(lease.job_id, lease.epoch, [event]))
        await self.say(Finished(lease.job_id, lease.epoch, outcome_document(outcome), None))


@contextlib.asynccontextmanager
async def open_desk(
    folder: Path, *, issuer: Authority | None = None, clock: Clock | None = None, **policy: Any
) -> AsyncIterator[Desk]:
    """Give a desk whose services run; `issuer` is its authority, `clock` the system's unless another is given."""
    store = SqliteStore(folder / "crank.db", failpoints=NoFailpoints())
    await store.start()
    controller_id = policy.pop("controller_id", "c1")
    rules = Policy("n1", controller_id, TRUST_DOMAIN, (str(folder),), **policy)
    clock, ids = clock or SystemClock(), SystemIdSource()
    authority = issuer or MemoryAuthority(TRUST_DOMAIN, clock, ids)
    desk = Desk(
        store,
        FileBlobStore(folder / "blobs", quota_bytes=1 << 30),
        FileStreamLog(folder / "streams"),
        clock,
        ids,
        JsonSchemaChecker(),
        NoFailpoints(),
        rules,
        appraiser=JwsAppraiser(),
        authority=authority,
        trust=open_trust(authority, clock),
    )
    await admit_owner(desk, SECRET)
    loop = ControllerLoop(desk)
    await loop.start()
    try:
        yield desk
    finally:
        await loop.stop()
        await store.stop()


@contextlib.asynccontextmanager
async def open_api(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    """Give a client of the API, without a network."""
    from crank.api.app import build_api

    app = build_api(desk, version="0", more_names=["node.test"])
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {SECRET}"}
    async with httpx2.AsyncClient(transport=transport, base_url="https://node.test", headers=headers) as client:
        yield client

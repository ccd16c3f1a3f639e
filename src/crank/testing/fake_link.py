"""A link between a worker and a controller in memory: the same messages, encoded and decoded, and no network."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import BinaryIO

from crank.domain.ids import Digest
from crank.domain.rules.standing import IDENTITY_EXPIRED, IDENTITY_REVOKED
from crank.errors import NotFound, Unavailable
from crank.ports import ControllerLink
from crank.wire import Message, decode, encode


class _End:
    """Stands behind the last message of a queue."""


_Queue = asyncio.Queue[str | _End]


class FakeLink:
    """One connection with its two sides, `worker` and `controller`; `cut` loses it as a network would."""

    def __init__(self, blobs: dict[Digest, bytes]) -> None:
        to_worker: _Queue = asyncio.Queue()
        to_controller: _Queue = asyncio.Queue()
        self._queues = (to_worker, to_controller)
        self.blobs = blobs
        self.lost = False
        self.closed_with: tuple[str, str] | None = None
        # Blobs asked for and brought, and how many are on their way; a test closes the gate, or says how many may pass.
        self.asked: list[Digest] = []
        self.sent: list[Digest] = []
        self.sending = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.blobs_max: int | None = None
        self.worker = WorkerSide(self, to_controller, to_worker)
        self.controller = ControllerSide(self, to_worker, to_controller)

    def cut(self) -> None:
        """Lose the connection: what was sent and not yet read is gone, and both sides notice."""
        self.lost = True
        for queue in self._queues:
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(_End())

    def end(self) -> None:
        """End the connection in order: what was sent is still read."""
        self.lost = True
        for queue in self._queues:
            queue.put_nowait(_End())


class _Side:
    def __init__(self, link: FakeLink, outgoing: _Queue, incoming: _Queue) -> None:
        self._link = link
        self._outgoing = outgoing
        self._incoming = incoming

    async def send(self, message: Message) -> None:
        """Send one message. Raises Unavailable when the connection is gone."""
        raw = encode(message)
        # A real send gives the loop a turn; so does this one, or a test would see an order that never is.
        await asyncio.sleep(0)
        if self._link.lost:
            raise Unavailable("The connection is gone.", code="link_lost")
        self._outgoing.put_nowait(raw)

    async def messages(self) -> AsyncIterator[Message]:
        """Yield messages until the connection ends."""
        while not isinstance(raw := await self._incoming.get(), _End):
            yield decode(raw)
        # Whoever asks again learns the same.
        self._incoming.put_nowait(raw)


class WorkerSide(_Side):
    """What the worker holds: the ControllerLink port."""

    async def messages(self) -> AsyncIterator[Message]:
        """Yield messages until the connection ends. Raises Unavailable when the worker's identity is why."""
        async for message in super().messages():
            yield message
        code, said = self._link.closed_with or ("", "")
        if code in (IDENTITY_REVOKED, IDENTITY_EXPIRED):
            raise Unavailable(said, code=code)

    async def fetch_blob(self, digest: Digest, target: BinaryIO) -> None:
        """Copy a blob into `target`. Raises NotFound, Unavailable."""
        await asyncio.sleep(0)
        self._check()
        if digest not in self._link.blobs:
            raise NotFound(f"The controller has no blob {digest}.")
        target.write(self._link.blobs[digest])

    async def has_blob(self, digest: Digest) -> bool:
        """Tell whether the controller has a blob."""
        await asyncio.sleep(0)
        self._check()
        self._link.asked.append(digest)
        return digest in self._link.blobs

    async def send_blob(self, digest: Digest, source: BinaryIO, size_bytes: int) -> None:
        """Copy a blob to the controller."""
        self._link.sending += 1
        try:
            await asyncio.sleep(0)
            await self._link.gate.wait()
            self._check()
            self._take(digest, source, size_bytes)
        finally:
            self._link.sending -= 1

    def _take(self, digest: Digest, source: BinaryIO, size_bytes: int) -> None:
        content = source.read()
        assert len(content) == size_bytes, "a blob has the size that was told"
        assert hashlib.sha256(content).hexdigest() == digest, "a blob has the name of its bytes"
        if self._link.blobs_max is not None and len(self._link.sent) >= self._link.blobs_max:
            raise Unavailable("The transfer of a blob was cut.", code="blob_cut")
        self._link.sent.append(digest)
        self._link.blobs[digest] = content

    async def close(self) -> None:
        """End the connection."""
        if not self._link.lost:
            self._link.end()

    def _check(self) -> None:
        if self._link.lost:
            raise Unavailable("The connection is gone.", code="link_lost")


class ControllerSide(_Side):
    """What the controller holds: the WorkerLink port, and the messages of the worker."""

    def send_raw(self, raw: str) -> None:
        """Send what may not be a message."""
        self._outgoing.put_nowait(raw)

    async def close(self, code: str, message: str) -> None:
        """End the connection, telling why."""
        if not self._link.lost:
            self._link.closed_with = (code, message)
            self._link.end()


class FakeConnector:
    """The Connector port: each `connect` makes a link whose other side waits in `accepted`."""

    def __init__(self, *, faults: list[Exception] | None = None) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.accepted: asyncio.Queue[FakeLink] = asyncio.Queue()
        self.faults = faults if faults is not None else []
        self.tries = 0

    async def connect(self) -> ControllerLink:
        """Open a link, or raise the next of the faults."""
        self.tries += 1
        await asyncio.sleep(0)
        if self.faults:
            raise self.faults.pop(0)
        link = FakeLink(self.blobs)
        self.accepted.put_nowait(link)
        return link.worker

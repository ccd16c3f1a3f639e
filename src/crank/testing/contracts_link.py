"""The promises of `ports.Connector` and `ports.ControllerLink` as tests, against a controller that a test holds."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from crank.domain.ids import Digest
from crank.errors import NotFound, ProtocolError, Unavailable
from crank.ports import Connector
from crank.testing.expect import faults
from crank.wire import Beat, Cancel, Message, Settled

_SOON_SEC = 20.0


class Peer(Protocol):
    """The controller's end of one connection, as the suite needs it."""

    async def send(self, message: Message) -> None:
        """Send a message to the worker."""
        ...

    async def send_raw(self, raw: str) -> None:
        """Send what may not be a message."""
        ...

    def messages(self) -> AsyncIterator[Message]:
        """Yield what the worker sends."""
        ...

    async def hang_up(self) -> None:
        """End the connection."""
        ...


class Side(Protocol):
    """A controller that waits for workers."""

    @property
    def connector(self) -> Connector:
        """Return what a worker connects with."""
        ...

    @property
    def blobs(self) -> dict[Digest, bytes]:
        """Return the blobs that the controller has."""
        ...

    async def accept(self) -> Peer:
        """Return the next connection."""
        ...


class ControllerLinkContract:
    """What every ControllerLink promises, and the Connector that opens it."""

    def controller(self) -> AbstractAsyncContextManager[Side]:
        """Give a controller that runs while the block does."""
        raise NotImplementedError

    async def test_messages_go_both_ways_in_order(self) -> None:
        """Both sides get what the other sent, equal and in order."""
        async with self.controller() as side:
            link = await side.connector.connect()
            peer = await asyncio.wait_for(side.accept(), _SOON_SEC)
            for free in range(20):
                await link.send(Beat(free))
            heard = peer.messages()
            assert [await anext(heard) for _ in range(20)] == [Beat(free) for free in range(20)]
            down: list[Message] = [Cancel("j", 1), Settled("j", 1, "accepted")]
            for message in down:
                await peer.send(message)
            told = link.messages()
            assert [await anext(told) for _ in down] == down
            await link.close()
            await link.close()

    async def test_the_end_of_the_connection_ends_the_messages(self) -> None:
        """When the controller hangs up, the messages end and sending says that nobody is there."""
        async with self.controller() as side:
            link = await side.connector.connect()
            peer = await asyncio.wait_for(side.accept(), _SOON_SEC)
            await peer.hang_up()
            assert [message async for message in link.messages()] == []
            with faults(Unavailable):
                await link.send(Beat(1))
            await link.close()

    async def test_what_is_not_a_message_is_a_fault(self) -> None:
        """Nonsense from the other side is named as what it is."""
        async with self.controller() as side:
            link = await side.connector.connect()
            peer = await asyncio.wait_for(side.accept(), _SOON_SEC)
            await peer.send_raw('{"t":"nonsense"}')
            with faults(ProtocolError):
                await anext(link.messages())
            await link.close()

    async def test_blobs_travel_both_ways_whole(self) -> None:
        """A blob arrives with every byte; sending it again, or an empty one, works."""
        content = bytes(range(256)) * 4_000
        digest = _digest(content)
        async with self.controller() as side:
            link = await side.connector.connect()
            for body in (content, content, b""):
                await link.send_blob(_digest(body), io.BytesIO(body), len(body))
                assert side.blobs[_digest(body)] == body
            target = io.BytesIO()
            await link.fetch_blob(digest, target)
            assert target.getvalue() == content
            await link.close()

    async def test_what_was_brought_is_there(self) -> None:
        """The controller is asked for a blob before and after it was brought."""
        async with self.controller() as side:
            link = await side.connector.connect()
            assert not await link.has_blob(_digest(b"abc"))
            await link.send_blob(_digest(b"abc"), io.BytesIO(b"abc"), 3)
            assert await link.has_blob(_digest(b"abc"))
            await link.close()

    async def test_a_blob_that_is_not_there_is_not_found(self) -> None:
        """A missing blob is told apart from a broken connection."""
        async with self.controller() as side:
            link = await side.connector.connect()
            with faults(NotFound):
                await link.fetch_blob(_digest(b"missing"), io.BytesIO())
            await link.close()


def _digest(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest())

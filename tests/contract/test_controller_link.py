"""The WebSocket link and the one in memory keep the promises of `ports.ControllerLink`."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from tests.support.certificates import Authority
from tests.support.controller_side import TRUST_DOMAIN, LinkSide, TlsController

from crank.testing.contracts_link import ControllerLinkContract, Peer, Side
from crank.testing.fake_link import FakeConnector, FakeLink
from crank.wire import Message


class TestWebSocketLink(ControllerLinkContract):
    """Real sockets and real TLS on loopback."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[Side]:
        authority = Authority(self.folder, "one")
        server = authority.context(f"spiffe://{TRUST_DOMAIN}/controller/c1", server=True)
        async with TlsController(server).open() as controller:
            client = authority.context(f"spiffe://{TRUST_DOMAIN}/worker/w1", server=False)
            yield LinkSide(controller, client, authority.verifier(TRUST_DOMAIN))

    def controller(self) -> AbstractAsyncContextManager[Side]:
        return self._open()


class MemoryPeer:
    """The controller's end of a link in memory."""

    def __init__(self, link: FakeLink) -> None:
        self._link = link

    async def send(self, message: Message) -> None:
        """Send a message to the worker."""
        await self._link.controller.send(message)

    async def send_raw(self, raw: str) -> None:
        """Send what may not be a message."""
        self._link.controller.send_raw(raw)

    def messages(self) -> AsyncIterator[Message]:
        """Yield what the worker sends."""
        return self._link.controller.messages()

    async def hang_up(self) -> None:
        """End the connection."""
        await self._link.controller.close("bye", "The test ended it.")


class MemorySide:
    """A controller in memory that waits for workers."""

    def __init__(self) -> None:
        self.connector = FakeConnector()
        self.blobs = self.connector.blobs

    async def accept(self) -> Peer:
        """Return the next connection."""
        return MemoryPeer(await self.connector.accepted.get())


class TestFakeLink(ControllerLinkContract):
    """The one for tests."""

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[Side]:
        yield MemorySide()

    def controller(self) -> AbstractAsyncContextManager[Side]:
        return self._open()

"""The link of the moment: attempts outlive links, so they ask for it each time they need it."""

import asyncio
from collections.abc import AsyncIterator
from typing import BinaryIO

from crank.domain.ids import Digest
from crank.ports import ControllerLink
from crank.wire import Message


class Relay:
    """A ControllerLink that stays while the connection below it is followed by a newer one.

    Whoever sends meanwhile waits; what is said is said on one link or on the next, never on both.
    """

    def __init__(self, link: ControllerLink) -> None:
        self._link = link
        self._open = asyncio.Event()
        self._open.set()

    @property
    def below(self) -> ControllerLink:
        """Return the connection of the moment."""
        return self._link

    def hold(self) -> None:
        """Let whoever sends wait."""
        self._open.clear()

    def go_on(self, link: ControllerLink) -> None:
        """Let whoever waits send on this link."""
        self._link = link
        self._open.set()

    async def send(self, message: Message) -> None:
        """Send one message. Raises Unavailable when the connection is gone."""
        await self._open.wait()
        await self._link.send(message)

    def messages(self) -> AsyncIterator[Message]:
        """Yield messages of the connection of the moment. Raises ProtocolError, Unavailable."""
        return self._link.messages()

    async def fetch_blob(self, digest: Digest, target: BinaryIO) -> None:
        """Copy a blob into `target`. Raises NotFound, Unavailable."""
        await self._link.fetch_blob(digest, target)

    async def has_blob(self, digest: Digest) -> bool:
        """Tell whether the controller has a blob of this worker's own. Raises Unavailable."""
        return await self._link.has_blob(digest)

    async def send_blob(self, digest: Digest, source: BinaryIO, size_bytes: int) -> None:
        """Copy a blob to the controller. Raises Unavailable, TooLarge, InvalidRequest."""
        await self._link.send_blob(digest, source, size_bytes)

    async def close(self) -> None:
        """End the connection of the moment; nobody waits any more."""
        self._open.set()
        await self._link.close()


class CurrentLink:
    """Holds the enrolled link, or nothing while the worker is cut off."""

    def __init__(self) -> None:
        self._link: ControllerLink | None = None
        self._there = asyncio.Event()
        self._changed = asyncio.Event()

    @property
    def link(self) -> ControllerLink | None:
        """Return the link, or None."""
        return self._link

    def put(self, link: ControllerLink) -> None:
        """Make this the link of the moment."""
        self._link = link
        self._there.set()
        self._change()

    def clear(self) -> None:
        """Note that there is no link."""
        self._link = None
        self._there.clear()
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def lost(self, link: ControllerLink) -> None:
        """Return when this is not the link of the moment any more."""
        while self._link is link:
            await self._changed.wait()

    async def wait(self) -> ControllerLink:
        """Return the link, waiting until there is one."""
        while self._link is None:
            await self._there.wait()
        return self._link

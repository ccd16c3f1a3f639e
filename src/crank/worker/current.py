"""The link of the moment: attempts outlive links, so they ask for it each time they need it."""

import asyncio

from crank.ports import ControllerLink


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

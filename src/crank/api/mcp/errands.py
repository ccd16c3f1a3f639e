"""What outlives the call that began it, and how calls learn that the node stops."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Errands:
    """Work that must be done although the call that began it was cut off.

    closing  set when the node stops: calls answer with what they know then, and their jobs go on
    calls    tools that are being called now
    """

    def __init__(self) -> None:
        self.closing = asyncio.Event()
        self.calls = 0
        self._running: set[asyncio.Task[Any]] = set()

    def send(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Begin a work that no cancelled call takes along."""
        errand = asyncio.create_task(work)
        self._running.add(errand)
        errand.add_done_callback(self._running.discard)
        return errand

    async def finish(self) -> None:
        """Wait until every work is done."""
        while self._running:
            await asyncio.gather(*self._running, return_exceptions=True)

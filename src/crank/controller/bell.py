"""Wakes everybody who waits for the next change, and tells each how many there were."""

import asyncio


class Bell:
    """Rings; only the event loop touches it."""

    def __init__(self) -> None:
        self.rung = 0
        self._next = asyncio.Event()

    def ring(self) -> None:
        """Wake all who wait now."""
        self.rung += 1
        self._next.set()
        self._next = asyncio.Event()

    async def after(self, seen: int) -> None:
        """Return once it has rung since it had rung `seen` times."""
        while self.rung == seen:
            await self._next.wait()

"""Places for uploads into sandboxes: how many are received at once, on the whole node and for one key."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from crank.errors import Unavailable

# Each takes a temporary file of up to what a sandbox holds, and a thread while it is stored.
UPLOADS_MAX = 4
KEY_UPLOADS_MAX = 2
# Uploads of one key that wait for a place, unread; a client may well send a hundred files at once.
WAITING_MAX = 256
WAIT_SEC_MAX = 120.0


@dataclass(slots=True)
class _Key:
    places: asyncio.Semaphore
    users_count: int = 0


class Uploads:
    """Gives places, in the order in which they are asked for; of one key's, some always wait for each other."""

    def __init__(self, *, uploads_max: int = UPLOADS_MAX, key_uploads_max: int = KEY_UPLOADS_MAX) -> None:
        self._places = asyncio.Semaphore(uploads_max)
        self._key_uploads_max = key_uploads_max
        self._keys: dict[str, _Key] = {}

    @asynccontextmanager
    async def place(self, key: str, *, wait_sec_max: float = WAIT_SEC_MAX) -> AsyncIterator[None]:
        """Hold a place for an upload of this key. Raises Unavailable (`uploads_full`)."""
        own = self._keys.setdefault(key, _Key(asyncio.Semaphore(self._key_uploads_max)))
        if own.users_count >= self._key_uploads_max + WAITING_MAX:
            raise _full()
        own.users_count += 1
        try:
            async with AsyncExitStack() as held:
                try:
                    async with asyncio.timeout(wait_sec_max):
                        await held.enter_async_context(own.places)
                        await held.enter_async_context(self._places)
                except TimeoutError as late:
                    raise _full() from late
                yield
        finally:
            own.users_count -= 1
            if not own.users_count:
                del self._keys[key]


def _full() -> Unavailable:
    return Unavailable(
        "Too many files are uploaded at this moment.",
        code="uploads_full",
        fix="Send the file again in a moment, and fewer at the same time.",
        retry_after_sec=10,
    )

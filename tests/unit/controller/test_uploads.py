"""Places for uploads: how many there are, who waits, and that none is lost."""

import asyncio

import pytest

from crank.controller.uploads import WAITING_MAX, Uploads
from crank.errors import Unavailable


async def settle() -> None:
    """Let everything that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_key_leaves_places_for_others() -> None:
    """Of one key so many are received at once, of all keys together so many; the others follow, in order."""
    uploads = Uploads(uploads_max=3, key_uploads_max=2)
    inside: list[str] = []
    leave = asyncio.Event()

    async def upload(key: str) -> None:
        async with uploads.place(key):
            inside.append(key)
            await leave.wait()

    waiting = [asyncio.create_task(upload(key)) for key in "aaaabb"]
    await settle()
    assert inside == ["a", "a", "b"]
    leave.set()
    await asyncio.gather(*waiting)
    assert sorted(inside) == sorted("aaaabb")
    assert uploads._keys == {}


async def test_nobody_waits_for_ever() -> None:
    """Who gets no place in time is refused, as is one too many that waits; a place that was given up is free again."""
    uploads = Uploads(uploads_max=1, key_uploads_max=1)
    async with uploads.place("a"):
        for key in ("a", "b"):
            with pytest.raises(Unavailable, match="Too many files"):
                async with uploads.place(key, wait_sec_max=0.01):
                    raise AssertionError("there was a place")
        waiting = [asyncio.create_task(uploads.place("a").__aenter__()) for _ in range(WAITING_MAX)]
        await settle()
        with pytest.raises(Unavailable, match="Too many files"):
            await uploads.place("a").__aenter__()
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    async with uploads.place("b", wait_sec_max=0.01):
        assert list(uploads._keys) == ["b"]

"""A session in the worker: what its supervisor says reaches whoever waits, and harms nothing when nobody does."""

import asyncio
from typing import Any

import pytest

from crank.domain.profile import Limits
from crank.sandbox.frames import encode
from crank.sandbox.session import NamespaceSession


async def test_a_sandbox_that_stands_when_nobody_waits_any_more_is_no_fault() -> None:
    """When the wait for a sandbox is given up in the moment in which it stands, nothing fails behind anybody's back."""
    loop, faults = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, fault: faults.append(fault))
    session = NamespaceSession(Limits())
    waiting = asyncio.create_task(session.stand())
    await asyncio.sleep(0)
    session.channel.theirs.sendall(encode("R", b"{}"))
    # In the next turn of the loop the wait is cancelled first, and then the word is read.
    loop.call_soon(waiting.cancel)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await session.close()
    assert faults == []

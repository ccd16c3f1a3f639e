"""A session in the worker: what its supervisor says reaches whoever waits, and harms nothing when nobody does."""

import asyncio
from typing import Any

import pytest

from crank.domain.handle import OPEN_CALLS_MAX, JobCall
from crank.domain.json import JsonObject
from crank.domain.profile import Limits
from crank.sandbox.calls import refusal
from crank.sandbox.frames import encode
from crank.sandbox.session import NamespaceSession
from crank.sandbox.session_run import SessionRun
from crank.testing.contracts_sandbox import RecordingSink
from tests.unit.sandbox.test_calls import word


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


class _Taker:
    """Answers every call at once."""

    told = ()

    async def take(self, call: JobCall) -> JsonObject:
        """Refuse it."""
        return refusal(call.number, "no", "No.", None)


async def test_a_call_that_is_answered_is_open_no_more() -> None:
    """The code may ask again as soon as its answer is out, however long whoever handed it over takes to be done with it."""
    run = SessionRun(Limits(), RecordingSink(), _Taker())
    out, done = asyncio.Semaphore(0), asyncio.Event()

    async def send(_: bytes) -> None:
        out.release()
        await done.wait()

    for number in range(1, 3 * OPEN_CALLS_MAX + 1):
        run.begin_call(word(number=number), send)
        async with asyncio.timeout(10):
            await out.acquire()
    assert run.broken is None
    done.set()
    await asyncio.gather(*run.calling)
    for number in range(OPEN_CALLS_MAX + 1):
        run.begin_call(word(number=100 + number), send)
    assert run.broken is not None, "so many at once are more than the supervisor lets through"
    run.finish()

"""Hostile sessions in the real sandbox: a session is right in every run, or says that it is over."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from crank.domain.outcome import Outcome
from crank.domain.profile import Limits
from crank.errors import Conflict, CrankError, SandboxError
from crank.ports import SandboxSession, SandboxSpec
from tests.attacks import judge
from tests.attacks.arena import Arena, Quiet, bare_build
from tests.attacks.case import ANY
from tests.attacks.sessions import SESSIONS, HostileSession, Run

pytestmark = [pytest.mark.attacks, pytest.mark.system, pytest.mark.timeout(120), pytest.mark.xdist_group("attacks")]

_READY_SEC = 20.0


async def _open(arena: Arena, hostile: HostileSession) -> SandboxSession:
    limits = replace(Limits(wall_sec=judge.WALL_SEC), **hostile.limits)  # type: ignore[arg-type]
    build = bare_build(arena.rootfs, programs=hostile.programs)
    return await arena.runner.open(SandboxSpec(build, limits, lasting=True))


@contextlib.asynccontextmanager
async def opened(arena: Arena, hostile: HostileSession) -> AsyncIterator[SandboxSession]:
    """Give a lasting session, closed afterwards."""
    session = await _open(arena, hostile)
    try:
        yield session
    finally:
        await session.close()


async def _one(session: SandboxSession, run: Run, base: Limits) -> tuple[Outcome, float]:
    sink, began = Quiet(), time.monotonic()
    limits = replace(base, wall_sec=run.wall_sec)
    running = asyncio.ensure_future(session.run_python(run.code, {}, sink, context=run.context, limits=limits))
    if run.interrupt:
        await asyncio.wait_for(sink.arrived.wait(), _READY_SEC)
        with contextlib.suppress(Conflict):
            # It may have ended by itself meanwhile.
            await session.signal("SIGINT")
    return await running, time.monotonic() - began


def _wrongs(number: int, run: Run, outcome: Outcome, took_sec: float) -> list[str]:
    wrong = []
    told = f"run {number}: ended as {outcome.end}, stderr {outcome.stderr.text[-500:]!r}"
    if outcome.end.reason.value not in run.reasons:
        wrong.append(told)
    if run.result is not ANY and outcome.result != run.result and (outcome.has_result or not run.may_fail):
        wrong.append(f"run {number}: result {outcome.result!r}; {told}")
    if run.stdout is not None and outcome.stdout.text != run.stdout and not run.may_fail:
        wrong.append(f"run {number}: stdout {outcome.stdout.text[-300:]!r}")
    if took_sec > run.wall_sec + 10:
        wrong.append(f"run {number}: it took {took_sec:.1f} s")
    return wrong


@pytest.mark.parametrize("hostile", SESSIONS, ids=lambda hostile: hostile.name)
async def test_hostile_session(hostile: HostileSession, arena: Arena) -> None:
    """Every run of the session ends as it must, or the session says that it is over; the next session is right."""
    before = await arena.before()
    wrong: list[str] = []
    base = replace(Limits(wall_sec=judge.WALL_SEC), **hostile.limits)  # type: ignore[arg-type]
    async with opened(arena, hostile) as session:
        for number, run in enumerate(hostile.runs):
            if not session.alive:
                break
            try:
                outcome, took_sec = await _one(session, run, base)
            except SandboxError as fault:
                # What an earlier run broke may come to light only when the next one is handed over.
                assert run.may_fail, fault
                assert not session.alive
                break
            wrong += _wrongs(number, run, outcome, took_sec)
            if run.must_live is not None and session.alive != run.must_live:
                wrong.append(f"run {number}: alive is {session.alive}, after {outcome.end}")
        if not session.alive:
            with pytest.raises(CrankError):
                await session.run_python("1", {}, Quiet())
    outcome, _ = await arena.run(judge.NEXT)
    wrong += [f"the next job: {what}" for what in judge.wrongs(judge.NEXT, judge.seen_outcome(outcome))]
    wrong += arena.canary.wrongs()
    deadline = time.monotonic() + 5
    while arena.traces().has_more_than(before) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    if (after := arena.traces()).has_more_than(before):
        wrong.append(f"left behind: {after} instead of {before}")
    assert wrong == []


async def test_two_sessions_share_nothing(arena: Arena) -> None:
    """L01 L10: what one session keeps, another beside it does not have."""
    hostile = HostileSession("V05 two", ())
    async with opened(arena, hostile) as one, opened(arena, hostile) as other:
        await one.run_python("import os\nkept = 1\nos.environ['LEAK'] = 'x'\nopen('/tmp/kept', 'w')", {}, Quiet())
        code = "import os\n['kept' in globals(), os.environ.get('LEAK'), os.path.exists('/tmp/kept')]"
        assert (await other.run_python(code, {}, Quiet())).result == [False, None, False]

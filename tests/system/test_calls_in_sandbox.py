"""Calls from inside a real sandbox, answered by a scripted taker: what the module does, and what a hostile guest gets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from crank.domain.handle import JobCall
from crank.domain.json import JsonObject
from crank.domain.outcome import Outcome, Reason
from crank.domain.profile import Limits
from crank.ports import SandboxSpec
from crank.sandbox.link import launch
from crank.sandbox.runner import NamespaceRunner
from crank.testing.contracts_sandbox import RecordingSink
from tests.support.rootfs import make_build, make_rootfs

_SOON_SEC = 30.0
_HANDLES: tuple[JsonObject, ...] = (
    {"name": "convert", "kind": "call", "capability": "document.*", "version": None, "mounts": None, "calls_max": 3},
    {"name": "docs", "kind": "mount", "capability": None, "version": None, "mounts": None, "calls_max": None},
)
Reply = Callable[[JobCall], Awaitable[JsonObject]]


def answer(call: JobCall, **changed: object) -> JsonObject:
    """Return an answer as the worker would give it."""
    plain: JsonObject = {
        "number": call.number, "verdict": "done", "status": "succeeded", "reason": "exited", "code": None, "message": None,
        "fix": None, "result": call.args, "folder": f"calls/{call.number}", "files": [], "left_out": 0,
    }  # fmt: skip
    return {**plain, **changed}


async def echo(call: JobCall) -> JsonObject:
    """Answer with the args."""
    return answer(call)


class Taker:
    """Answers calls as a test says."""

    def __init__(self, reply: Reply = echo, told: Sequence[JsonObject] = _HANDLES) -> None:
        self.told = told
        self.calls: list[JobCall] = []
        self._reply = reply

    async def take(self, call: JobCall) -> JsonObject:
        """Note the call and answer it."""
        self.calls.append(call)
        return await self._reply(call)


class Bench:
    """A runner, and one way to run code with a taker."""

    def __init__(self, runner: NamespaceRunner, rootfs: Path) -> None:
        self._runner = runner
        self._build = make_build(rootfs)

    async def run(self, code: str, taker: Taker | None = None, **limits: float) -> Outcome:
        """Run code in a sandbox of its own."""
        asked = replace(Limits(wall_sec=20.0), **limits)  # type: ignore[arg-type]
        session = await self._runner.open(SandboxSpec(self._build, asked))
        try:
            return await asyncio.wait_for(session.run_python(code, None, RecordingSink(), calls=taker), _SOON_SEC)
        finally:
            await session.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Give a runner in a launcher of its own."""
    link = launch()
    runner = NamespaceRunner(link)
    await runner.start()
    try:
        make_rootfs(tmp_path / "root")
        yield Bench(runner, tmp_path / "root")
    finally:
        await runner.stop()
        link.close()


async def test_a_call_goes_out_and_its_answer_comes_back(bench: Bench) -> None:
    """The code gets the result of what it called for; the taker sees who was asked for what, by which handle."""
    taker = Taker()
    outcome = await bench.run("import crank\n[crank.call('document.convert', {'n': 1}), sorted(crank.handles())]", taker)
    assert (outcome.end.reason, outcome.result) == (Reason.EXITED, [{"n": 1}, ["convert", "docs"]]), outcome.stderr.text
    assert [(call.number, call.handle, call.capability) for call in taker.calls] == [(1, "convert", "document.convert")]

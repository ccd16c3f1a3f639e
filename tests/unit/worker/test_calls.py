"""Calls of an attempt on the worker: what goes up, what is said again, what comes back into the sandbox."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
from tests.support.rootfs import make_build

from crank.domain.handle import JobCall
from crank.domain.ids import Digest
from crank.domain.json import JsonObject
from crank.domain.profile import Limits
from crank.errors import CrankError
from crank.ports import SandboxSpec
from crank.testing.fake_link import FakeLink
from crank.testing.fake_sandbox import FakeSandboxSession, ScriptedRun
from crank.testing.fake_spool import MemorySpool
from crank.testing.fakes import FakeClock, FakeFailpoints, FakeIdSource
from crank.wire import Lease
from crank.wire.calls import Call, CallAnswer, CallFile, LeaseHandle
from crank.worker.attempt import Bench
from crank.worker.calls import JobCalls
from crank.worker.current import CurrentLink

SOON_SEC = 10.0


def _lease() -> Lease:
    handles = [
        LeaseHandle("run", "call", "python.run.core", None, None, 3),
        LeaseHandle("docs", "mount", None, None, None, None),
    ]
    return Lease("j", 1, "python.run.core", "cpu", "1", None, [], [], None, None, None, None, handles=handles)


class Stand:
    """The calls of one attempt, with a link whose other end the test plays."""

    def __init__(self) -> None:
        self.sandbox = FakeSandboxSession(SandboxSpec(make_build(Path("/nowhere")), Limits()), {}, ScriptedRun())
        self.current = CurrentLink()
        self.blobs: dict[Digest, bytes] = {}
        bench = Bench(None, None, MemorySpool(), FakeClock(), FakeIdSource(jitters=(0.01,)), FakeFailpoints())
        self.calls = JobCalls(_lease(), self.sandbox, bench, self.current)

    def connect(self) -> FakeLink:
        """Give the worker a fresh link."""
        link = FakeLink(self.blobs)
        self.current.put(link.worker)
        return link

    def take(self, **changes: Any) -> "asyncio.Task[JsonObject]":
        """Begin a call."""
        plain = {"number": 1, "handle": "run", "capability": "python.run.core", "code": "2"}
        return asyncio.create_task(self.calls.take(JobCall(**{**plain, **changes})))


async def _heard(link: FakeLink) -> Call:
    message = await asyncio.wait_for(anext(link.controller.messages()), SOON_SEC)
    assert isinstance(message, Call)
    return message


def _answer(**changes: Any) -> CallAnswer:
    plain = {
        "job_id": "j", "epoch": 1, "number": 1, "verdict": "done", "status": "succeeded", "reason": "exited", "code": None,
        "message": None, "fix": None, "has_result": True, "result": 42, "files": [], "left_out": 0,
    }  # fmt: skip
    return CallAnswer(**{**plain, **changes})


def _digest(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest())


async def test_files_go_up_and_come_back(tmp_path: Path) -> None:
    """What the code names is brought before the call is said; what the called job left lies below calls/<number>."""
    stand = Stand()
    stand.sandbox.files |= {"a.txt": b"one", "b.txt": b"two"}
    link = stand.connect()
    taking = stand.take(files={"in/a": "a.txt", "in/b": "b.txt"})
    said = await _heard(link)
    assert [(file.path, file.sha256) for file in said.files] == [("in/a", _digest(b"one")), ("in/b", _digest(b"two"))]
    assert link.sent == [_digest(b"one"), _digest(b"two")]
    assert stand.calls.waiting
    stand.blobs[_digest(b"left")] = b"left"
    left = [CallFile("deep/x.txt", _digest(b"left"), 4), CallFile("gone", _digest(b"gone"), 4), CallFile("../x", _digest(b"left"), 4)]
    stand.calls.answered(_answer(files=left, left_out=2))
    told = await asyncio.wait_for(taking, SOON_SEC)
    assert (told["verdict"], told["result"], told["files"], told["left_out"]) == ("done", 42, ["deep/x.txt"], 4)
    assert stand.sandbox.files["calls/1/deep/x.txt"] == b"left"
    assert not stand.calls.waiting


async def test_a_call_is_said_again_on_each_link_until_it_is_answered() -> None:
    """A link that is cut before the answer, and one that cannot take the file, cost nothing but another word."""
    stand = Stand()
    stand.sandbox.files["a.txt"] = b"one"
    first = stand.connect()
    taking = stand.take(files={"a": "a.txt"})
    once = await _heard(first)
    first.cut()
    stand.current.clear()
    second = stand.connect()
    second.blobs_max = 0
    await asyncio.sleep(0.05)
    assert not taking.done()
    second.blobs_max = None
    assert await _heard(second) == once
    stand.calls.answered(_answer(number=2))
    stand.calls.answered(_answer())
    stand.calls.answered(_answer(result="late"))
    assert (await asyncio.wait_for(taking, SOON_SEC))["result"] == 42


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"handle": "other"}, "no_handle"),
        ({"handle": "docs"}, "no_handle"),
        ({"handles": ("other",)}, "no_handle"),
        ({"mounts": {"in": "run"}}, "handle_mount"),
        ({"files": {"../a": "a.txt"}}, "invalid_path"),
        ({"files": {"a": "none"}}, "file_not_found"),
        ({"files": {"a": "large"}}, "files_too_large"),
    ],
)
async def test_what_the_lease_does_not_say_is_not_even_asked(changes: dict[str, Any], code: str) -> None:
    """A call outside of what was handed over, or whose files cannot be taken, never reaches the link."""
    stand = Stand()
    stand.sandbox.files["large"] = bytes((64 << 20) + 1)
    link = stand.connect()
    with pytest.raises(CrankError) as caught:
        await asyncio.wait_for(stand.take(**changes), SOON_SEC)
    assert (caught.value.error_code, link.sent) == (code, [])

"""Calls from inside a real sandbox, answered by a scripted taker: what the module does, and what a hostile guest gets."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from crank.domain.handle import JobCall
from crank.domain.isolation import Tier
from crank.domain.json import JsonObject
from crank.domain.outcome import Clock, Outcome, Reason
from crank.domain.profile import Limits
from crank.errors import NotAllowed
from crank.ports import ProfileBuild, SandboxSession, SandboxSpec
from crank.sandbox.link import LauncherLink, launch
from crank.sandbox.runner import NamespaceRunner
from crank.sandbox.tiers import LandlockRunner
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

    def __init__(self, runner: NamespaceRunner, build: ProfileBuild) -> None:
        self._runner = runner
        self._build = build

    async def open(self, *, lasting: bool, **limits: float) -> SandboxSession:
        """Open a sandbox."""
        asked = replace(Limits(wall_sec=20.0), **limits)  # type: ignore[arg-type]
        return await self._runner.open(SandboxSpec(self._build, asked, lasting=lasting))

    async def run(self, code: str, taker: Taker | None = None, **limits: float) -> Outcome:
        """Run code in a sandbox of its own."""
        session = await self.open(lasting=False, **limits)
        try:
            return await asyncio.wait_for(session.run_python(code, None, RecordingSink(), calls=taker), _SOON_SEC)
        finally:
            await session.close()


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> ProfileBuild:
    """Give a bare build."""
    return make_build(make_rootfs(tmp_path_factory.mktemp("calls") / "rootfs"))


@pytest.fixture
def link() -> Iterator[LauncherLink]:
    """Give a launcher of this test's own."""
    opened = launch()
    yield opened
    opened.close()


@pytest.fixture
async def bench(link: LauncherLink, build: ProfileBuild) -> AsyncIterator[Bench]:
    """Give a runner that keeps nothing ready."""
    runner = NamespaceRunner(link, parked=0)
    yield Bench(runner, build)
    await runner.stop()


async def test_a_call_goes_out_and_its_answer_comes_back(bench: Bench) -> None:
    """The code gets the result of what it called for; the taker sees who was asked for what, by which handle."""
    taker = Taker()
    outcome = await bench.run("import crank\n[crank.call('document.convert', {'n': 1}), sorted(crank.handles())]", taker)
    assert (outcome.end.reason, outcome.result) == (Reason.EXITED, [{"n": 1}, ["convert", "docs"]]), outcome.stderr.text
    assert [(call.number, call.handle, call.capability) for call in taker.calls] == [(1, "convert", "document.convert")]


async def test_each_run_of_a_session_has_its_own_hand(bench: Bench) -> None:
    """Handles go with the run: the next one without has none, one with begins to count anew, and answers that nobody
    waited for, whole or in part, disturb neither.
    """

    async def late(call: JobCall) -> JsonObject:
        await asyncio.sleep(0.2 if call.args == "late" else 0)
        return answer(call, result="x" * 900_000 if call.args == "large" else call.args)

    session = await bench.open(lasting=True)
    leaves = (
        "import crank, threading, time\nfor what in ('late', 'large', 'large', 'large'):\n"
        "    threading.Thread(target=crank.call, args=('document.convert', what), daemon=True).start()\n"
        "kept = crank.call('document.convert', 'first')\nkept"
    )
    refused = "import crank\ntry:\n    crank.call('document.convert')\nexcept crank.CallRefused as fault:\n    kept = [kept, fault.code]\nkept"
    again = "import crank, time\ntime.sleep(0.3)\n[crank.call('document.convert', n) for n in range(3)]"
    try:
        for _ in range(3):
            for code, taker, result in (
                (leaves, Taker(late), "first"),
                (refused, None, ["first", "no_handle"]),
                (again, Taker(), [0, 1, 2]),
            ):
                running = session.run_python(code, None, RecordingSink(), calls=taker)
                outcome = await asyncio.wait_for(running, _SOON_SEC)
                assert (outcome.end.reason, outcome.result) == (Reason.EXITED, result), (outcome.end, outcome.stderr.text)
    finally:
        await session.close()


async def test_a_call_that_is_interrupted_leaves_its_session_usable(bench: Bench) -> None:
    """SIGINT at any moment of a call, over and over: the session goes on, and the next answers are its own."""

    async def slow(call: JobCall) -> JsonObject:
        await asyncio.sleep(0.01)
        return answer(call, result="x" * 100_000)

    session = await bench.open(lasting=True)
    endless = "import crank\nwhile True:\n    crank.call('document.convert')"
    try:
        for pause in (0.05, 0.11, 0.17, 0.23):
            running = asyncio.ensure_future(session.run_python(endless, None, RecordingSink(), calls=Taker(slow)))
            await asyncio.sleep(pause + 0.3)
            await session.signal("SIGINT")
            outcome = await asyncio.wait_for(running, _SOON_SEC)
            assert (outcome.end.reason, outcome.end.message) == (Reason.RAISED, "KeyboardInterrupt"), outcome.end
            after = await session.run_python("import crank\ncrank.call('document.convert', 7)", None, RecordingSink(), calls=Taker())
            assert after.result == 7, (after.end, after.stderr.text)
    finally:
        await session.close()


async def test_the_tier_without_namespaces_has_the_same_pipe() -> None:
    """Calls, files by their promised names and refusals work where paths are only translated."""
    place = Path(tempfile.mkdtemp(prefix="tests-of-crank-"))
    place.chmod(0o755)
    runner = LandlockRunner(launch(tier=Tier.LANDLOCK), parked=0)
    try:
        bench = Bench(runner, make_build(make_rootfs(place / "rootfs")))
        taker = Taker()
        code = (
            "import crank\nopen('a.txt', 'w').write('a')\n"
            "result = crank.call('document.convert', 5, files={'a': 'a.txt', 'b': '/scratch/a.txt', 'c': b'c'})"
        )
        outcome = await bench.run(code, taker)
        assert outcome.result == 5, outcome.stderr.text
        assert dict(taker.calls[0].files) == {"a": "a.txt", "b": "a.txt", "c": ".crank-calls/1"}
        raw = await bench.run(RAW + "send(word(number=2))\ntime.sleep(5)", Taker())
        assert raw.end.reason is Reason.PROTOCOL_VIOLATION
    finally:
        await runner.stop()
        shutil.rmtree(place)


# --- a hostile guest -----------------------------------------------------------------------------

# Finds the channel's secret prefix, as any job can, and writes frames of its own.
RAW = """
import gc, json, os, struct, sys, threading, time
hand = next(each for each in gc.get_objects() if type(each).__name__ == "_Hand")
channel = next(each for each in gc.get_objects() if type(each).__name__ == "_Channel" and getattr(each, "_descriptor", 0) == 4)
def word(**changed):
    plain = {"number": 1, "handle": "convert", "capability": "document.convert", "version": None, "args": None, "code": None,
             "files": {}, "mounts": {}, "handles": [], "timeout_sec": None}
    return json.dumps({**plain, **changed}).encode()
def send(payload, kind="c", length=None):
    frame = channel._token + struct.pack("!BI", ord(kind), len(payload) if length is None else length) + payload
    while frame:
        frame = frame[os.write(4, frame):]
"""

DISTURBED = [
    ("a number out of turn", "send(word(number=2))"),
    ("a number twice", "send(word())\nsend(word())"),
    ("a number that is none", "send(word(number=True))"),
    ("garbage", "send(b'\\xff' * 100)"),
    ("no object", "send(b'[]')"),
    ("a field too many", "send(word(more=1))"),
    ("a key twice", "send(word()[:-1] + b', \"handle\": \"other\"}')"),
    ("too long", "send(b'', length=(1 << 20) + 1)"),
    ("half a frame", "send(word()[:-5], length=len(word()))\ntime.sleep(5)"),
    ("files without end", "send(word(files={str(n): 'x' for n in range(100)}))"),
    ("a name without end", "send(word(handle='x' * 2000))"),
    ("a time that is none", "send(word(timeout_sec=-1))"),
    ("an answer of its own", "send(b'{}', kind='a')"),
]


async def test_a_guest_that_writes_frames_of_its_own_is_ended(bench: Bench) -> None:
    """What is no well-formed call in its turn ends the job as a violation of the protocol; so does any without handles."""
    outcomes = await asyncio.gather(*(bench.run(RAW + code + "\ntime.sleep(5)", Taker()) for _, code in DISTURBED))
    for (what, _), outcome in zip(DISTURBED, outcomes, strict=True):
        assert outcome.end.reason is Reason.PROTOCOL_VIOLATION, (what, outcome.end, outcome.stderr.text)
    without = await bench.run(RAW + "send(word())\ntime.sleep(5)")
    assert without.end.reason is Reason.PROTOCOL_VIOLATION


async def test_a_forged_handle_is_refused_by_the_supervisor(bench: Bench) -> None:
    """A frame that names what was not handed over never reaches the taker, and is told as the sandbox's own evidence."""
    taker = Taker()
    outcome = await bench.run(RAW + "send(word(handle='docs'))\ntime.sleep(0.2)\n1", taker)
    assert (outcome.end.reason, taker.calls) == (Reason.EXITED, [])
    assert [(each.layer, each.told_by) for each in outcome.denials] == [("handle", "sandbox")]


async def test_a_guest_that_floods_and_never_reads_is_not_listened_to(bench: Bench) -> None:
    """Calls whose large answers nobody reads: past a backlog nothing more is heard of the guest, until its clock ends it."""
    large = "x" * 500_000

    async def much(call: JobCall) -> JsonObject:
        return answer(call, result=large)

    taker = Taker(much)
    code = RAW + "number = 0\nwhile True:\n    number += 1\n    send(word(number=number))\n    time.sleep(1 if number == 8 else 0)"
    outcome = await bench.run(code, taker, wall_sec=3.0)
    assert (outcome.end.reason, outcome.end.clock) == (Reason.TIMEOUT, Clock.WALL), outcome.end
    assert len(taker.calls) <= 32


async def test_a_guest_that_asks_without_end_is_refused_and_then_ended(bench: Bench) -> None:
    """Whoever reads the answers and asks on gets refusals after so many, and is ended after four times as many."""
    code = (
        "import crank\nseen = {}\nwhile True:\n    try:\n        crank.call('document.convert')\n"
        "    except crank.CallRefused as fault:\n        seen[fault.code] = seen.get(fault.code, 0) + 1\n"
        "        if seen == {'too_many_calls': 1}:\n            print(seen, flush=True)"
    )
    taker = Taker()
    outcome = await bench.run(code, taker)
    assert outcome.end.reason is Reason.PROTOCOL_VIOLATION, outcome.end
    assert len(taker.calls) == 256
    assert "too_many_calls" in outcome.stdout.text


async def test_more_than_eight_at_once_wait_their_turn_in_the_module_and_are_refused_past_it(bench: Bench) -> None:
    """Twenty threads get twenty answers, eight at a time; raw frames beyond eight are refused."""
    most = 0
    open_now = 0

    async def slow(call: JobCall) -> JsonObject:
        nonlocal most, open_now
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0.02)
        open_now -= 1
        return answer(call)

    code = (
        "import crank, concurrent.futures\nwith concurrent.futures.ThreadPoolExecutor(20) as pool:\n"
        "    result = sorted(pool.map(lambda n: crank.call('document.convert', n), range(20)))"
    )
    outcome = await bench.run(code, Taker(slow))
    assert outcome.result == list(range(20)), outcome.stderr.text
    assert most <= 8

    async def never(call: JobCall) -> JsonObject:
        await asyncio.sleep(60)
        return answer(call)

    taker = Taker(never)
    outcome = await bench.run(RAW + "for n in range(1, 13):\n    send(word(number=n))\ntime.sleep(3)", taker)
    assert len(taker.calls) == 8
    assert sum(each.count for each in outcome.denials if each.layer == "handle") == 4


async def test_a_call_that_is_refused_or_fails_is_an_exception_with_its_parts(bench: Bench) -> None:
    """Code, cause and fix reach the code; a refusal of the taker's is evidence in the outcome."""

    async def refuse(call: JobCall) -> JsonObject:
        raise NotAllowed("Not for you.", code="handle_mount", fix="Ask for more.")

    code = "import crank\ntry:\n    crank.call('document.convert')\nexcept crank.CallRefused as fault:\n    result = [fault.code, fault.cause, fault.fix]"
    outcome = await bench.run(code, Taker(refuse))
    assert outcome.result == ["handle_mount", "Not for you.", "Ask for more."]
    assert [each.action for each in outcome.denials] == ["call 'document.convert': handle_mount"]

    async def defect(call: JobCall) -> JsonObject:
        raise RuntimeError("boom")

    outcome = await bench.run(code, Taker(defect))
    assert outcome.result[0] == "internal_error"


async def test_a_file_of_the_jobs_own_stands_before_the_module(bench: Bench) -> None:
    """The module never hides what the job brought: its own crank.py is imported, as any module of its own is."""
    code = "open('/scratch/crank.py', 'w').write('mine = 1')\nimport crank\ncrank.mine"
    assert (await bench.run(code)).result == 1


async def test_an_interrupt_ends_the_waiting_and_the_next_call_works(bench: Bench) -> None:
    """A call that was given up is answered to nobody; the answer of the next one is its own."""

    given_up = asyncio.Event()

    async def late(call: JobCall) -> JsonObject:
        if call.number == 1:
            await given_up.wait()
        given_up.set()
        return answer(call, result=call.number)

    code = (
        "import crank, os, signal, threading\nthreading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try:\n    crank.call('document.convert')\nexcept KeyboardInterrupt:\n    result = ['interrupted', crank.call('document.convert')]\n"
        "import time\ntime.sleep(0.6)\nresult.append(crank.call('document.convert'))"
    )
    assert (await bench.run(code, Taker(late))).result == ["interrupted", 2, 3]


async def test_a_forked_process_does_not_call(link: LauncherLink, build: ProfileBuild) -> None:
    """Only the process that the job began in has the pipe."""
    runner = NamespaceRunner(link, parked=0)
    forks = replace(build, profile=replace(build.profile, processes=True))
    code = (
        "import crank, os\nreading, writing = os.pipe()\nif not os.fork():\n    try:\n        crank.call('document.convert')\n"
        "    except crank.CallRefused as fault:\n        os.write(writing, fault.code.encode())\n    os._exit(0)\n"
        "[os.read(reading, 100).decode(), crank.call('document.convert', 1)]"
    )
    assert (await Bench(runner, forks).run(code, Taker())).result == ["not_this_process", 1]
    await runner.stop()

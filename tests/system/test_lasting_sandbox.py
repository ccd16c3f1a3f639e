"""Sandboxes that run more than once: limits of one run, what is between runs, programs, and how they end."""

import asyncio
import contextlib
import io
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from crank.domain.ids import Digest
from crank.domain.outcome import Clock, Outcome, Reason
from crank.domain.profile import Limits
from crank.errors import Conflict, InvalidRequest, NotFound, SandboxError
from crank.ports import ProfileBuild, SandboxSession, SandboxSpec
from crank.sandbox.link import LauncherLink, launch
from crank.sandbox.runner import NamespaceRunner
from crank.testing.contracts_sandbox import RecordingSink
from tests.support.profiles import project_store
from tests.support.rootfs import make_build, make_rootfs
from tests.support.tree import GUEST, INIT, SUPERVISOR, alive, named

pytestmark = pytest.mark.system

_MIB = 1 << 20
_SOON_SEC = 30.0
_LIMITS = Limits(wall_sec=20.0, memory_bytes=512 * _MIB)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> ProfileBuild:
    """Give a bare build."""
    return make_build(make_rootfs(tmp_path_factory.mktemp("lasting") / "rootfs"))


@pytest.fixture
def link() -> Iterator[LauncherLink]:
    """Give a launcher of this test's own."""
    link = launch()
    yield link
    link.close()


@contextlib.asynccontextmanager
async def _lasting(link: LauncherLink, build: ProfileBuild, **limits: float) -> AsyncIterator[SandboxSession]:
    runner = NamespaceRunner(link, parked=0)
    wanted = replace(_LIMITS, **limits)  # type: ignore[arg-type]
    session = await runner.open(SandboxSpec(build, wanted, lasting=True))
    try:
        yield session
    finally:
        await session.close()
        await runner.stop()


async def _run(session: SandboxSession, code: str, *, sink: RecordingSink | None = None, **limits: float) -> Outcome:
    wanted = replace(_LIMITS, **limits) if limits else None  # type: ignore[arg-type]
    return await asyncio.wait_for(session.run_python(code, None, sink or RecordingSink(), limits=wanted), _SOON_SEC)


@pytest.mark.parametrize(
    ("code", "reason", "clock", "limits"),
    [
        ("while True:\n    pass", Reason.TIMEOUT, Clock.WALL, {"wall_sec": 0.4}),
        ("while True:\n    pass", Reason.TIMEOUT, Clock.CPU, {"cpu_sec": 0.4}),
        ("import time\ntime.sleep(60)", Reason.TIMEOUT, Clock.IDLE, {"idle_sec": 0.4}),
        ("while True:\n    pass", Reason.TIMEOUT, Clock.NO_OUTPUT, {"no_output_sec": 0.4}),
        ("x = bytearray(200 << 20)", Reason.MEMORY, None, {"memory_bytes": 64 * _MIB}),
        ("import os\nos.kill(os.getpid(), 11)", Reason.SIGNALLED, None, {}),
        ("import os\nos._exit(3)", Reason.EXITED, None, {}),
    ],
    ids=["wall", "cpu", "idle", "no-output", "memory", "crash", "exit"],
)
async def test_what_kills_a_run_ends_the_session_with_its_own_reason(
    link: LauncherLink, build: ProfileBuild, code: str, reason: Reason, clock: Clock | None, limits: dict[str, float]
) -> None:
    """A run that passes a limit of its own, or crashes, says so; the session says that it is over, and is gone."""
    async with _lasting(link, build) as session:
        assert (await _run(session, "kept = 1\nkept")).result == 1
        tree = [pid for title in (SUPERVISOR, INIT, GUEST) for pid in named(link.process.pid, title)]
        outcome = await _run(session, code, **limits)  # type: ignore[arg-type]  # `sink` is not among them
        assert (outcome.end.reason, outcome.end.clock) == (reason, clock), outcome.end
        assert not session.alive
        with pytest.raises(SandboxError, match="has ended"):
            await _run(session, "1")
    deadline = asyncio.get_running_loop().time() + _SOON_SEC
    while any(alive(pid) for pid in tree):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("code", "reason", "limits"),
    [
        ("held = [open('/dev/null') for _ in range(500)]", Reason.FILES, {"open_files": 64}),
        ("with open('/scratch/big', 'wb') as f:\n    f.write(bytes(4 << 20))", Reason.FILE_SIZE, {"file_bytes": 2 * _MIB}),
        ("for n in range(40):\n    open(f'/scratch/{n}', 'wb').write(bytes(1 << 20))", Reason.DISK, {"disk_bytes": 4 * _MIB}),
        ("for n in range(9000):\n    open(f'/out/{n}', 'wb').close()", Reason.INODES, {"inodes": 200}),
        ("1 / 0", Reason.RAISED, {}),
    ],
    ids=["open-files", "file-size", "disk", "inodes", "raised"],
)  # fmt: skip
async def test_an_error_that_is_raised_leaves_the_session(
    link: LauncherLink, build: ProfileBuild, code: str, reason: Reason, limits: dict[str, float]
) -> None:
    """A limit that the job meets as an exception names itself, and what the session knows is still there."""
    async with _lasting(link, build, **limits) as session:
        await _run(session, "kept = 41")
        outcome = await _run(session, code)
        assert outcome.end.reason is reason, outcome.end
        assert session.alive
        assert (await _run(session, "held = None\nkept + 1")).result == 42


@pytest.mark.parametrize("once_more", range(3))
async def test_a_child_killed_for_memory_ends_the_session(link: LauncherLink, build: ProfileBuild, once_more: int) -> None:
    """Also when the script ends before anybody had time to look: its session is not what it was, and says so."""
    if link.cgroup is None:
        pytest.skip("no control group holds jobs here: the kernel kills nobody for a job's memory")
    forking = replace(build, profile=replace(build.profile, processes=True))
    code = "import os\nif os.fork() == 0:\n    x = bytearray(b'1') * (200 << 20)\nos.wait()"
    async with _lasting(link, forking, memory_bytes=64 * _MIB) as session:
        outcome = await _run(session, code)
        assert outcome.end.reason is Reason.MEMORY
        assert not session.alive
        with pytest.raises(SandboxError):
            await _run(session, "1")


async def test_a_lower_limit_is_that_of_one_run(link: LauncherLink, build: ProfileBuild) -> None:
    """Memory and descriptors that one run was given less of are whole again in the next run."""
    async with _lasting(link, build) as session:
        lowered = await _run(session, "x = bytearray(8 << 20)\nx = None\n'small'", memory_bytes=96 * _MIB)
        assert lowered.result == "small"
        whole = await _run(session, "x = bytearray(256 << 20)\nlen(x)")
        assert whole.result == 256 * _MIB, whole.end
        await _run(session, "x = None")
        few = await _run(session, "held = [open('/dev/null') for _ in range(100)]", open_files=64)
        assert few.end.reason is Reason.FILES
        many = await _run(session, "held = [open('/dev/null') for _ in range(100)]\nlen(held)")
        assert many.result == 100, many.end


async def test_cpu_time_is_counted_for_each_run(link: LauncherLink, build: ProfileBuild) -> None:
    """Runs that each stay below the limit of CPU time go on, however much they use together."""
    work = "import time\nuntil = time.process_time() + 0.9\nwhile time.process_time() < until:\n    pass\n'worked'"
    async with _lasting(link, build, cpu_sec=1.5) as session:
        for _ in range(5):
            outcome = await _run(session, work)
            assert outcome.result == "worked", outcome.end
            assert 0.5 < outcome.usage.cpu_sec < 1.5


async def test_what_is_written_between_runs_is_nobodys(link: LauncherLink, build: ProfileBuild) -> None:
    """A thread that goes on printing after its run does not put its lines into the next one's beginning."""
    code = (
        "import itertools, threading, time\nstop = threading.Event()\nlines = itertools.count()\n"
        "def chatter():\n    while not stop.wait(0.01):\n        print('between', next(lines), flush=True)\n"
        "thread = threading.Thread(target=chatter)\nthread.start()\n'started'"
    )
    async with _lasting(link, build) as session:
        assert (await _run(session, code)).result == "started"
        # What came while nothing ran was dropped.
        await asyncio.sleep(0.3)
        sink = RecordingSink()
        outcome = await _run(session, "stop.set()\nthread.join()\nprint('mine')", sink=sink)
        assert outcome.stdout.text.endswith("mine\n")
        assert "between 0\n" not in outcome.stdout.text
        assert session.alive


async def test_a_silent_flood_between_runs_harms_nobody(link: LauncherLink, build: ProfileBuild) -> None:
    """A thread that fills its pipe while nothing runs waits there; the next run is right."""
    code = (
        "import os, threading\n"
        "def flood():\n    for _ in range(3000):\n        os.write(1, bytes(1024))\n"
        "thread = threading.Thread(target=flood, daemon=True)\nthread.start()\n1"
    )
    async with _lasting(link, build) as session:
        assert (await _run(session, code)).result == 1
        assert (await _run(session, "6 * 7")).result == 42
        assert session.alive


async def test_each_run_has_its_own_lines(link: LauncherLink, build: ProfileBuild) -> None:
    """An error in a function of an earlier run shows that run's line, not one of the run that called it."""
    async with _lasting(link, build) as session:
        await _run(session, "def broken():\n    raise ValueError('of the first run')")
        outcome = await _run(session, "# another\nbroken()")
        assert outcome.end.reason is Reason.RAISED
        assert "raise ValueError('of the first run')" in outcome.stderr.text


async def test_an_interrupt_that_comes_before_the_first_line_is_heard(link: LauncherLink, build: ProfileBuild) -> None:
    """Sent in the moment in which the order goes out, it waits for the code to begin; one that nobody hears reaches no later code."""
    async with _lasting(link, build) as session:
        for delay_sec in (0.0, 0.001, 0.002, 0.004) * 4:
            running = asyncio.create_task(_run(session, "import time\ntime.sleep(60)"))
            await asyncio.sleep(delay_sec)
            while True:
                try:
                    await session.signal("SIGINT")
                except Conflict:
                    await asyncio.sleep(0)
                else:
                    break
            outcome = await asyncio.wait_for(running, _SOON_SEC)
            assert outcome.end.reason is Reason.RAISED, outcome.end
            assert (outcome.end.message or "").startswith("KeyboardInterrupt")
            broken = asyncio.create_task(_run(session, "this is no code"))
            await asyncio.sleep(delay_sec)
            with contextlib.suppress(Conflict):
                await session.signal("SIGINT")
            assert (await broken).end.reason is Reason.RAISED
            assert (await _run(session, "6 * 7")).result == 42


async def test_an_interrupt_at_any_moment_costs_no_session(link: LauncherLink, build: ProfileBuild) -> None:
    """Interrupts before, in and after a run end that run or nothing; what the session counts is never lost."""
    codes = ("n += 1\nn", "import time\ntime.sleep(0.002)\nn += 1", "import json\njson.dumps([1] * 2000)\nn += 1")
    async with _lasting(link, build) as session:
        await _run(session, "n = 0")
        ended = 0
        for number in range(60):
            running = asyncio.create_task(_run(session, codes[number % 3]))
            # Spread over what a run takes, with no need to hit any one moment.
            await asyncio.sleep((number % 7) / 1_500)
            for _ in range(2):
                with contextlib.suppress(Conflict):
                    await session.signal("SIGINT")
            outcome = await running
            assert session.alive, outcome.end
            assert outcome.end.reason is Reason.EXITED or "KeyboardInterrupt" in (outcome.end.message or "")
            ended += outcome.end.reason is Reason.EXITED
        assert (await _run(session, "n")).result >= ended


async def test_an_unlisted_program_is_refused_and_the_session_goes_on(link: LauncherLink, build: ProfileBuild) -> None:
    """Only programs of the profile are run; a refusal costs nothing."""
    async with _lasting(link, build) as session:
        for argv in (["sh", "-c", "true"], [], ["/usr/bin/env"]):
            with pytest.raises(InvalidRequest) as fault:
                await session.run_program(argv, RecordingSink())
            assert fault.value.error_code == "program_not_listed"
        assert (await _run(session, "1")).result == 1


async def test_a_program_of_the_profile_runs_between_scripts(link: LauncherLink, builds: Path) -> None:
    """In python-docs pandoc runs as a program, sees the session's files, and leaves its state alone."""
    build = project_store(builds).find("python-docs", "cpu")
    if build is None:
        pytest.skip("python-docs is not built; make profiles-small builds it")
    runner = NamespaceRunner(link, parked=0)
    session = await runner.open(SandboxSpec(build, build.profile.limits, lasting=True))
    try:
        assert (await _run(session, "open('/scratch/a.md', 'w').write('# Title')")).result == 7
        version = await asyncio.wait_for(session.run_program(["pandoc", "--version"], RecordingSink()), _SOON_SEC)
        assert (version.end.reason, version.end.exit_code) == (Reason.EXITED, 0)
        assert version.stdout.text.startswith("pandoc ")
        argv = ["pandoc", "/scratch/a.md", "-t", "html"]
        made = await asyncio.wait_for(session.run_program(argv, RecordingSink()), _SOON_SEC)
        assert made.stdout.text.startswith("<h1")
        wrong = await asyncio.wait_for(session.run_program(["pandoc", "--no-such"], RecordingSink()), _SOON_SEC)
        assert (wrong.end.reason, bool(wrong.end.exit_code)) == (Reason.EXITED, True)
        assert session.alive
        reading = asyncio.create_task(session.run_program(["pandoc"], RecordingSink(), stdin=True))
        while not reading.done():
            # Again and again: one that comes before pandoc has started is nobody's yet.
            with contextlib.suppress(Conflict):
                await session.signal("SIGINT")
            await asyncio.wait({reading}, timeout=0.2)
        assert reading.result().end.exit_code == 130
        refused = await _run(session, "import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''])")
        assert "PermissionError" in (refused.end.message or "")
        assert (await _run(session, "6 * 7")).result == 42
    finally:
        await session.close()
        await runner.stop()


async def test_a_thread_that_speaks_between_runs_harms_nothing(link: LauncherLink, build: ProfileBuild) -> None:
    """A thread that goes on telling of progress after its run has nobody to tell; the session and its state live on."""
    code = """
import threading, time
def speak():
    while True:
        progress(0.5, "still here")
        display("still here")
        time.sleep(0.001)
threading.Thread(target=speak, daemon=True).start()
kept = 41
"""
    async with _lasting(link, build) as session:
        assert (await _run(session, code)).end.reason is Reason.EXITED
        outcomes = [await _run(session, "kept += 1\nkept") for _ in range(20)]
        assert [outcome.result for outcome in outcomes] == list(range(42, 62)), outcomes[-1].end


async def test_a_file_that_grows_is_taken_as_far_as_it_was_counted_or_not_at_all(
    link: LauncherLink, build: ProfileBuild
) -> None:
    """A thread that writes on while /out is collected cannot make the worker store more than the session may leave."""
    code = """
import threading
def write():
    with open("/out/grows", "ab", 0) as f:
        while True:
            f.write(bytes(65536))
open("/out/grows", "wb").write(b"x")
threading.Thread(target=write, daemon=True).start()
"""
    stored: list[int] = []

    def slow_store(source: BinaryIO) -> Digest:
        size = 0
        while chunk := source.read(1 << 10):
            size += len(chunk)
            assert size <= 8 * _MIB
        stored.append(size)
        return Digest("0" * 64)

    async with _lasting(link, build, disk_bytes=8 * _MIB) as session:
        outcome = await _run(session, code)
        outcome = await asyncio.to_thread(session.collect, slow_store, outcome)
        told = {artifact.path: artifact.size_bytes for artifact in outcome.artifacts}
        assert told.get("grows", 0) in (0, *stored)
        assert "grows" in told or [each.path for each in outcome.skipped] == ["grows"]


async def test_an_answer_goes_to_who_asked(link: LauncherLink, build: ProfileBuild) -> None:
    """Questions about files may be asked together and given up; each answer reaches its own question or nobody."""
    async with _lasting(link, build) as session:
        for number in range(8):
            await session.put_file(f"f{number}", io.BytesIO(b"x" * number))
        for _ in range(5):
            asked = [asyncio.ensure_future(session.get_file(f"f{number}", io.BytesIO())) for number in range(8)]
            await asyncio.sleep(0)
            for gone in asked[::2]:
                gone.cancel()
            sizes = await asyncio.gather(*asked, return_exceptions=True)
            assert sizes[1::2] == [1, 3, 5, 7]
        with pytest.raises(NotFound):
            await session.get_file("none", io.BytesIO())
        assert [entry.size_bytes for entry in await session.list_files()] == list(range(8))
    assert not [name for name in os.listdir("/proc/self/fd") if "f7" in _target(name)]


def _target(number: str) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/self/fd/{number}")
    return ""


async def test_input_that_nobody_reads_waits_outside(link: LauncherLink, build: ProfileBuild) -> None:
    """A run that does not read its stdin makes the sender wait, holds nothing in its supervisor, and ends as told."""
    async with _lasting(link, build) as session:
        running = asyncio.ensure_future(
            session.run_python("import sys, time\ntime.sleep(1)\nlen(sys.stdin.buffer.read())", None, RecordingSink(), stdin=True)
        )  # fmt: skip
        await asyncio.sleep(0)
        sending = asyncio.ensure_future(session.write_stdin(bytes(4 * _MIB)))
        await asyncio.wait([sending], timeout=0.5)
        assert not sending.done()
        (supervisor,) = named(link.process.pid, SUPERVISOR)
        lines = Path(f"/proc/{supervisor}/status").read_text().splitlines()
        assert next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) < 40_000
        await asyncio.wait_for(sending, _SOON_SEC)
        await session.close_stdin()
        assert (await asyncio.wait_for(running, _SOON_SEC)).result == 4 * _MIB


async def test_input_for_a_run_that_ends_is_given_up(link: LauncherLink, build: ProfileBuild) -> None:
    """Whoever waits to write to a run that ends without reading is told that it runs no more; the next run reads its own."""
    async with _lasting(link, build) as session:
        running = asyncio.ensure_future(
            session.run_python("import time\ntime.sleep(0.3)", None, RecordingSink(), stdin=True)
        )
        await asyncio.sleep(0)
        with pytest.raises(Conflict):
            await asyncio.wait_for(session.write_stdin(bytes(4 * _MIB)), _SOON_SEC)
        assert (await running).end.reason is Reason.EXITED
        second = asyncio.ensure_future(
            session.run_python("import sys\nsys.stdin.read()", None, RecordingSink(), stdin=True)
        )
        await asyncio.sleep(0)
        await session.write_stdin(b"own")
        await session.close_stdin()
        assert (await asyncio.wait_for(second, _SOON_SEC)).result == "own"

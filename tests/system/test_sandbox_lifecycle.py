"""The sandbox when its own parts die, when a folder is private, and when a wall is missing."""

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from crank.domain.ids import Digest
from crank.domain.isolation import Tier
from crank.domain.outcome import End, Outcome, Reason
from crank.domain.profile import Limits
from crank.errors import SandboxError
from crank.ports import MountBinding, ProfileBuild, SandboxSession, SandboxSpec
from crank.sandbox import host
from crank.sandbox.link import LauncherLink, launch
from crank.sandbox.runner import NamespaceRunner
from crank.testing.contracts_sandbox import FOREVER, RecordingSink
from tests.support.rootfs import make_build, make_rootfs
from tests.support.tree import GUEST, INIT, SUPERVISOR, ZYGOTE, alive, descendants, named

pytestmark = pytest.mark.system

_SOON_SEC = 20.0


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> ProfileBuild:
    """Give a bare build; its folder lies in one that only its owner may enter."""
    return make_build(make_rootfs(tmp_path_factory.mktemp("lifecycle") / "rootfs"))


@pytest.fixture
def link() -> Iterator[LauncherLink]:
    """Give a launcher of this test's own."""
    link = launch()
    yield link
    link.close()


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _SOON_SEC
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


def _groups(launcher: int) -> list[Path]:
    # os.walk passes over what other sandboxes of this machine remove meanwhile; Path.glob does not.
    found = (Path(place) for place, _, _ in os.walk("/sys/fs/cgroup"))
    return [path for path in found if path.name.startswith(f"crank-{launcher}-")]


@contextlib.asynccontextmanager
async def _running(
    link: LauncherLink, build: ProfileBuild
) -> AsyncIterator[tuple[SandboxSession, asyncio.Task[Outcome]]]:
    """Give a session whose job has begun and goes on for ever."""
    session = await NamespaceRunner(link, parked=0).open(SandboxSpec(build, Limits(wall_sec=60)))
    sink = RecordingSink()
    task = asyncio.create_task(session.run_python(FOREVER, None, sink))
    await asyncio.wait_for(sink.arrived.wait(), _SOON_SEC)
    try:
        yield session, task
    finally:
        await session.close()
        await asyncio.wait({task}, timeout=_SOON_SEC)


async def test_a_closed_session_is_gone_with_its_last_reference(link: LauncherLink, build: ProfileBuild) -> None:
    """What a job returned lies nowhere once its session is closed and its outcome dropped, although no collector ran."""
    gc.disable()
    try:
        for code in ("1", FOREVER):
            session = await NamespaceRunner(link, parked=0).open(SandboxSpec(build, Limits(wall_sec=1)))
            await session.run_python(code, None, RecordingSink())
            await session.close()
            kept = weakref.ref(session)
            del session
            # Callbacks of what has just ended are still to be called.
            for _ in range(10):
                await asyncio.sleep(0)
            assert kept() is None, code
    finally:
        gc.enable()


async def test_every_supervisor_has_a_session_of_its_own(link: LauncherLink, build: ProfileBuild) -> None:
    """Where processors are shared out by session, a storm in one cannot take the time of its own supervisor or another's."""
    runner = NamespaceRunner(link, parked=0)
    sessions = [await runner.open(SandboxSpec(build, Limits())) for _ in range(2)]
    try:
        supervisors = named(link.process.pid, SUPERVISOR)
        assert len(supervisors) == 2
        assert [os.getsid(pid) for pid in supervisors] == supervisors
    finally:
        for session in sessions:
            await session.close()


async def test_a_killed_supervisor_takes_its_job_with_it(link: LauncherLink, build: ProfileBuild) -> None:
    """When the supervisor is killed the job dies, the outcome says that the sandbox failed, nothing stays."""
    async with _running(link, build) as (_, task):
        (supervisor,) = named(link.process.pid, SUPERVISOR)
        (init,), (guest,) = named(link.process.pid, INIT), named(link.process.pid, GUEST)
        os.kill(supervisor, signal.SIGKILL)
        outcome = await asyncio.wait_for(task, _SOON_SEC)
    assert outcome.end.reason is Reason.SANDBOX_FAILED
    assert outcome.stdout.text.startswith("begun")
    _until(lambda: not any(alive(pid) for pid in (supervisor, init, guest)), "the tree to die")
    _until(
        lambda: not [group for place in _groups(link.process.pid) for group in place.iterdir() if group.is_dir()],
        "its group",
    )


async def test_a_sandbox_whose_supervisor_died_is_counted_as_burnt(build: ProfileBuild) -> None:
    """Nobody saw what it left, so it counts as doubtful, for its profile and in all; one that ended well does not."""
    runner = NamespaceRunner()
    await runner.start()
    try:
        well = await runner.open(SandboxSpec(build, build.profile.limits))
        await well.run_python("1", None, RecordingSink())
        await asyncio.to_thread(well.collect, lambda _: Digest("0" * 64), Outcome(End(Reason.EXITED)))
        await well.close()
        assert runner.pool_counts().burnt == 0
        session = await runner.open(SandboxSpec(build, build.profile.limits))
        await runner.settled(build)
        sink = RecordingSink()
        task = asyncio.create_task(session.run_python(FOREVER, None, sink))
        await asyncio.wait_for(sink.arrived.wait(), _SOON_SEC)
        assert runner._link is not None
        parked = runner.pools()[0].parked
        supervisors = named(runner._link.process.pid, SUPERVISOR)
        for supervisor in supervisors:
            os.kill(supervisor, signal.SIGKILL)
        outcome = await asyncio.wait_for(task, _SOON_SEC)
        assert outcome.end.reason is Reason.SANDBOX_FAILED
        assert runner.pool_counts().burnt == 1
        _until(lambda: not any(alive(pid) for pid in supervisors), "every supervisor to die")
        # Their ends can be read now; the loop needs one turn to do so.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        again = await runner.open(SandboxSpec(build, build.profile.limits))
        await again.close()
        # Those that died while they waited were passed over and are counted as well.
        assert runner.pool_counts().burnt == 1 + parked
        assert sum(pool.burnt for pool in runner.pools()) == 1 + parked
    finally:
        await runner.stop()


async def test_a_killed_init_is_a_failed_sandbox(link: LauncherLink, build: ProfileBuild) -> None:
    """When the sandbox's first process is killed from outside, the job is not called failed by itself."""
    async with _running(link, build) as (_, task):
        (init,) = named(link.process.pid, INIT)
        os.kill(init, signal.SIGKILL)
        outcome = await asyncio.wait_for(task, _SOON_SEC)
    assert outcome.end.reason is Reason.SANDBOX_FAILED
    assert outcome.stdout.text.startswith("begun")


async def test_a_killed_launcher_ends_every_job(build: ProfileBuild) -> None:
    """When the launcher is killed its sessions end, and a runner of its own starts another launcher."""
    runner = NamespaceRunner(parked=0)
    await runner.start()
    try:
        session = await runner.open(SandboxSpec(build, Limits(wall_sec=60)))
        sink = RecordingSink()
        task = asyncio.create_task(session.run_python(FOREVER, None, sink))
        await asyncio.wait_for(sink.arrived.wait(), _SOON_SEC)
        assert runner._link is not None
        launcher = runner._link.process.pid
        tree = descendants(launcher)
        assert len(tree) >= 5
        os.kill(launcher, signal.SIGKILL)
        outcome = await asyncio.wait_for(task, _SOON_SEC)
        assert outcome.end.reason in (Reason.CANCELLED, Reason.SANDBOX_FAILED)
        await session.close()
        _until(lambda: not any(alive(pid) for pid in tree), "the tree to die")
        session = await runner.open(SandboxSpec(build, Limits()))
        assert (await session.run_python("1 + 1", None, RecordingSink())).result == 2
        await session.close()
        assert _groups(launcher) == []
    finally:
        await runner.stop()


_WORKER = """
import asyncio, sys
from pathlib import Path
from crank.domain.profile import Limits
from crank.ports import SandboxSpec
from crank.sandbox.runner import NamespaceRunner
from crank.testing.contracts_sandbox import FOREVER, RecordingSink
from tests.support.rootfs import make_build

async def main():
    runner = NamespaceRunner()
    sink = RecordingSink()
    session = await runner.open(SandboxSpec(make_build(Path(sys.argv[1])), Limits()))
    task = asyncio.ensure_future(session.run_python(FOREVER, None, sink))
    await sink.arrived.wait()
    print(runner._link.process.pid, flush=True)
    await task

asyncio.run(main())
"""


def test_a_killed_worker_leaves_nothing(build: ProfileBuild) -> None:
    """When the worker is killed outright, its launcher, supervisors and jobs are gone moments later."""
    with subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(build.rootfs)], stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        launcher = int(worker.stdout.readline())
        tree = [launcher, *descendants(launcher)]
        worker.kill()
    _until(lambda: not any(alive(pid) for pid in tree), "everything to die")
    assert _groups(launcher) == []


async def test_sessions_that_never_run_are_closed(link: LauncherLink, build: ProfileBuild) -> None:
    """A sandbox that was prepared and not used goes away with its session."""
    session = await NamespaceRunner(link, parked=0).open(SandboxSpec(build, Limits()))
    assert named(link.process.pid, SUPERVISOR)
    await session.close()
    gone = (SUPERVISOR, INIT, GUEST)
    _until(lambda: not any(named(link.process.pid, title) for title in gone), "the supervisor and its cell to end")


async def test_private_folders_can_be_mounted(link: LauncherLink, build: ProfileBuild, tmp_path: Path) -> None:
    """A folder that only its owner may read is readable as /in/<name>, and cannot be changed."""
    folder = tmp_path / "docs"
    folder.mkdir(mode=0o700)
    (folder / "secret.txt").write_text("for the job")
    (folder / "secret.txt").chmod(0o600)
    (folder / "tool").write_text("#!/bin/sh\n")
    (folder / "tool").chmod(0o755)
    spec = SandboxSpec(build, Limits(), mounts=(MountBinding("docs", folder),))
    session = await NamespaceRunner(link).open(spec)
    code = (
        "import errno, os\nwrong = []\n"
        "for attempt in (lambda: open('/in/docs/secret.txt', 'a'), lambda: open('/in/docs/new', 'w'),\n"
        "                lambda: os.remove('/in/docs/secret.txt'), lambda: os.chmod('/in/docs/secret.txt', 0o777),\n"
        "                lambda: os.mkdir('/in/other')):\n"
        "    try:\n        attempt()\n        wrong.append('allowed')\n"
        "    except OSError as fault:\n"
        "        if fault.errno not in (errno.EROFS, errno.EACCES):\n            wrong.append(str(fault))\n"
        "[open('/in/docs/secret.txt').read(), os.listdir('/in'), wrong]\n"
    )
    code += "result = [_value, open('/proc/self/mountinfo').read()]\n"
    outcome = await session.run_python(code.replace("[open('/in", "_value = [open('/in"), None, RecordingSink())
    await session.close()
    assert outcome.result[0] == ["for the job", ["docs"], []]
    # Agents see names of mounts, never where they lie.
    assert str(tmp_path) not in outcome.result[1]
    assert str(build.rootfs) not in outcome.result[1]
    assert sorted(os.listdir(folder)) == ["secret.txt", "tool"]


async def test_a_folder_that_is_not_there_is_named(link: LauncherLink, build: ProfileBuild, tmp_path: Path) -> None:
    """A missing profile or mount is a fault that says so, before anything starts."""
    runner = NamespaceRunner(link)
    with pytest.raises(SandboxError, match="the profile") as fault:
        await runner.open(SandboxSpec(replace(build, rootfs=tmp_path / "none"), Limits()))
    assert fault.value.error_code == "folder_missing"
    with pytest.raises(SandboxError, match="docs") as fault:
        await runner.open(SandboxSpec(build, Limits(), mounts=(MountBinding("docs", tmp_path / "none"),)))
    assert fault.value.error_code == "mount_missing"


async def test_a_broken_interpreter_is_a_missing_layer(link: LauncherLink, build: ProfileBuild, tmp_path: Path) -> None:
    """A root without a working interpreter never runs a job, and says what is wrong."""
    (tmp_path / "opt").mkdir()
    with pytest.raises(SandboxError) as fault:
        await NamespaceRunner(link).open(SandboxSpec(replace(build, rootfs=tmp_path), Limits()))
    assert fault.value.error_code == "layer_interpreter"
    assert fault.value.fix
    _until(lambda: not descendants(link.process.pid), "the nest to end")


async def test_a_missing_module_of_the_profile_is_a_missing_layer(link: LauncherLink, build: ProfileBuild) -> None:
    """A module that the profile promises and that cannot be imported keeps the job from running."""
    broken = make_build(build.rootfs, preimports=("json", "no_such_module"))
    with pytest.raises(SandboxError, match="no_such_module") as fault:
        await NamespaceRunner(link).open(SandboxSpec(broken, Limits()))
    assert fault.value.error_code == "layer_preimports"


async def test_what_the_zygote_imported_is_not_the_jobs(link: LauncherLink, build: ProfileBuild) -> None:
    """A module larger than the job's memory may be imported ahead; writing to all of it ends the job for memory."""
    if link.cgroup is None:
        pytest.skip("no control group counts memory here")
    (build.rootfs / "opt/site/huge.py").write_text("x = bytearray(96 << 20)\n")
    greedy = make_build(build.rootfs, preimports=("huge",))
    spec = SandboxSpec(greedy, Limits(memory_bytes=64 << 20))
    runner = NamespaceRunner(link, parked=0)
    try:
        reading = await runner.open(spec)
        outcome = await reading.run_python("import huge\nlen(huge.x)", None, RecordingSink())
        assert outcome.result == 96 << 20
        await reading.close()
        writing = await runner.open(spec)
        code = "import huge\nfor place in range(0, len(huge.x), 4096):\n    huge.x[place] = 1\n"
        outcome = await writing.run_python(code, None, RecordingSink())
        await writing.close()
        assert outcome.end.reason is Reason.MEMORY
    finally:
        (build.rootfs / "opt/site/huge.py").unlink()


async def test_a_killed_zygote_costs_no_job(link: LauncherLink, build: ProfileBuild) -> None:
    """When a zygote dies, what it forked goes on to its end, and the next job gets another zygote."""
    runner = NamespaceRunner(link, parked=0)
    session = await runner.open(SandboxSpec(build, Limits(wall_sec=60)))
    sink = RecordingSink()
    code = "print('begun', flush=True)\nimport sys\nsys.stdin.readline()\n'done'"
    running = asyncio.create_task(session.run_python(code, None, sink, stdin=True))
    await asyncio.wait_for(sink.arrived.wait(), _SOON_SEC)
    (zygote,) = named(link.process.pid, ZYGOTE)
    os.kill(zygote, signal.SIGKILL)
    _until(lambda: not alive(zygote), "the zygote to die")
    other = await runner.open(SandboxSpec(build, Limits()))
    assert (await other.run_python("6 * 7", None, RecordingSink())).result == 42
    await other.close()
    await session.write_stdin(b"go on\n")
    assert (await asyncio.wait_for(running, _SOON_SEC)).result == "done"
    await session.close()
    assert named(link.process.pid, ZYGOTE) != [zygote]


def test_stale_groups_are_swept(link: LauncherLink) -> None:
    """A launcher removes the groups that a dead one left behind."""
    places = _groups(link.process.pid)
    if not places:
        pytest.skip("no control group is usable here")
    stale = [place.parent / "crank-999999999-1" for place in places]
    for place in stale:
        place.mkdir()
    launch().close()
    assert not any(place.exists() for place in stale)


def test_examining_this_machine_finds_a_sandbox(build: ProfileBuild) -> None:
    """What `crank doctor` is told agrees with what works here, and every weakness comes with a fix."""
    findings = {finding.name: finding for finding in host.examine(Tier.NAMESPACES, build)}
    assert findings["sandbox"].status == host.OK
    assert {"kernel", "seccomp", "landlock", "account", "cgroup", "sandbox"} <= set(findings)
    assert {finding.status for name, finding in findings.items() if name.startswith("try ")} == {host.OK}
    assert all(finding.fix for finding in findings.values() if finding.status != host.OK)


async def test_mounts_inside_a_mounted_folder_are_seen(link: LauncherLink, build: ProfileBuild, tmp_path: Path) -> None:
    """A folder that holds another mount is shown with it, as read-only as the rest."""
    if not link.privileged:
        pytest.skip("only root can make the inner mount")
    inner = tmp_path / "docs/inner"
    inner.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(inner)], check=True)
    try:
        (inner / "deep.txt").write_text("deep")
        spec = SandboxSpec(build, Limits(), mounts=(MountBinding("docs", tmp_path / "docs"),))
        session = await NamespaceRunner(link).open(spec)
        code = (
            "import errno\ntry:\n    open('/in/docs/inner/new', 'w')\nexcept OSError as fault:\n"
            "    result = [open('/in/docs/inner/deep.txt').read(), errno.errorcode[fault.errno]]\n"
        )
        outcome = await session.run_python(code, None, RecordingSink())
        await session.close()
    finally:
        subprocess.run(["umount", str(inner)], check=True)
    assert outcome.result == ["deep", "EROFS"]


async def test_a_stuck_zygote_is_replaced(link: LauncherLink, build: ProfileBuild) -> None:
    """A zygote that stopped answering costs time and no job: it is ended, and another makes the sandbox."""
    runner = NamespaceRunner(link, parked=0)
    first = await runner.open(SandboxSpec(build, Limits()))
    await first.close()
    (zygote,) = named(link.process.pid, ZYGOTE)
    os.kill(zygote, signal.SIGSTOP)
    second = await asyncio.wait_for(runner.open(SandboxSpec(build, Limits())), 60)
    assert (await second.run_python("2 + 2", None, RecordingSink())).result == 4
    await second.close()
    _until(lambda: not alive(zygote), "the stuck zygote to be ended")


async def test_a_job_cannot_wake_the_first_process_to_death(link: LauncherLink, build: ProfileBuild) -> None:
    """Whatever signals a job sends to process 1, its own end is the only one there is."""
    session = await NamespaceRunner(link, parked=0).open(SandboxSpec(build, Limits()))
    code = (
        "import os, signal, time\n"
        "for number in sorted(signal.valid_signals()):\n"
        "    try:\n        os.kill(1, number)\n    except OSError:\n        pass\n"
        "time.sleep(0.2)\n'still here'"
    )
    outcome = await session.run_python(code, None, RecordingSink())
    await session.close()
    assert (outcome.end.reason, outcome.result) == (Reason.EXITED, "still here")

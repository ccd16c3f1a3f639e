"""What forks of one zygote share and what they do not: no thread, nothing of the host, no chance in common."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crank.domain.outcome import Outcome, Reason
from crank.domain.profile import Limits
from crank.errors import SandboxError
from crank.ports import ProfileBuild, SandboxSpec
from crank.sandbox.link import LauncherLink, launch
from crank.sandbox.runner import NamespaceRunner
from crank.testing.contracts_sandbox import RecordingSink
from tests.support.profiles import project_store
from tests.support.rootfs import make_build, make_rootfs
from tests.support.tree import GUEST, NEST, ZYGOTE, alive, descendants, named

pytestmark = pytest.mark.system

_SOON_SEC = 60.0
_CHILDREN = 3

# Imported by the zygote: every source of chance is used there once, so that its state exists before the fork.
_PRIMED = """
import multiprocessing, os, random, secrets, signal, ssl, tempfile, uuid
random.random(), ssl.RAND_bytes(8), uuid.uuid1(), uuid.uuid4(), secrets.token_hex(4), tempfile.mktemp()
assert multiprocessing.current_process().authkey
os.environ["LEFT_BY_A_MODULE"] = "yes"
signal.signal(signal.SIGTERM, signal.SIG_IGN)
kept_open = open(os.devnull)
"""
_CHANCE = """
import multiprocessing, os, random, secrets, ssl, tempfile, uuid
result = {
    "random": random.random(), "shuffled": random.sample(range(10**6), 3), "SystemRandom": random.SystemRandom().random(),
    "ssl": ssl.RAND_bytes(16).hex(), "urandom": os.urandom(16).hex(), "secrets": secrets.token_hex(16),
    "uuid4": str(uuid.uuid4()), "uuid1": str(uuid.uuid1()), "tempfile": os.path.basename(tempfile.mktemp()),
    "authkey": bytes(multiprocessing.current_process().authkey).hex(),
}
"""


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> ProfileBuild:
    """Give a bare build whose zygote has used every source of chance before it forks."""
    rootfs = make_rootfs(tmp_path_factory.mktemp("hygiene") / "rootfs")
    (rootfs / "opt/site/primed.py").write_text(_PRIMED)
    return make_build(rootfs, preimports=("primed",))


@pytest.fixture
def link() -> Iterator[LauncherLink]:
    """Give a launcher of this test's own, whose zygotes are replaced after five children."""
    link = launch(children_max=5)
    yield link
    link.close()


@contextlib.asynccontextmanager
async def _runner(link: LauncherLink, *, parked: int = 0) -> AsyncIterator[NamespaceRunner]:
    runner = NamespaceRunner(link, parked=parked)
    try:
        yield runner
    finally:
        await runner.stop()


async def _run(runner: NamespaceRunner, build: ProfileBuild, code: str, **limits: float) -> Outcome:
    wanted = replace(build.profile.limits, wall_sec=30.0, **limits)  # type: ignore[arg-type]
    session = await runner.open(SandboxSpec(build, wanted))
    try:
        return await asyncio.wait_for(session.run_python(code, None, RecordingSink()), _SOON_SEC)
    finally:
        await session.close()


async def _children(link: LauncherLink, build: ProfileBuild, code: str) -> list[Any]:
    """Run the same code in several children, every one of the same zygote."""
    async with _runner(link) as runner:
        zygotes: list[int] = []
        results = []
        for _ in range(_CHILDREN):
            outcome = await _run(runner, build, code)
            assert outcome.end.reason is Reason.EXITED, (outcome.end, outcome.stderr.text)
            results.append(outcome.result)
            zygotes += named(link.process.pid, ZYGOTE)
    assert len(set(zygotes)) == 1
    return results


def _assert_differ(results: list[dict[str, Any]]) -> None:
    for source in results[0]:
        seen = {str(result[source]) for result in results}
        assert len(seen) == len(results), f"{source} is the same in several children"


async def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + _SOON_SEC
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"waited in vain: {what}"
        await asyncio.sleep(0.02)


async def test_a_zygote_has_one_thread_few_descriptors_and_a_made_environment(
    link: LauncherLink, build: ProfileBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zygote that has served has one thread, its socket and its namespaces open, and variables that we chose."""
    monkeypatch.setenv("A_SECRET_OF_THE_HOST", "hunter2")
    async with _runner(link) as runner:
        assert (await _run(runner, build, "1")).result == 1
        (zygote,) = named(link.process.pid, ZYGOTE)
        place = Path(f"/proc/{zygote}")
        assert len(list((place / "task").iterdir())) == 1
        names = {entry.partition(b"=")[0].decode() for entry in (place / "environ").read_bytes().split(b"\0") if entry}
        opened = sorted(os.readlink(entry) for entry in (place / "fd").iterdir())
        root = os.readlink(place / "root")
    assert "A_SECRET_OF_THE_HOST" not in names
    assert names <= {
        *("HOME", "LANG", "LOGNAME", "MKL_NUM_THREADS", "MPLBACKEND", "MPLCONFIGDIR", "OMP_NUM_THREADS"),
        *("OPENBLAS_NUM_THREADS", "PATH", "PYTHONDONTWRITEBYTECODE", "TMPDIR", "TZ", "USER"),
    }
    assert root == "/"
    kinds = [link.partition(":")[0] for link in opened]
    # Its standard streams and what the module of this test left open; its socket; its namespaces.
    assert kinds.count("socket") == 1
    assert set(kinds) <= {"/dev/null", "socket", "pid", "net"}


async def test_a_child_has_nothing_of_what_modules_did_to_the_zygote(link: LauncherLink, build: ProfileBuild) -> None:
    """Variables, signal answers and descriptors that a module left in the zygote do not reach a job."""
    code = (
        "import os, signal, primed\n"
        "opened = sorted(n for n in os.listdir('/proc/self/fd') if os.path.lexists('/proc/self/fd/' + n))\n"
        "[os.environ.get('LEFT_BY_A_MODULE'), signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, opened]"
    )
    for variable, untouched, opened in await _children(link, build, code):
        assert (variable, untouched) == (None, True)
        # Input, output, error, and the channel that takes the result.
        assert opened == ["0", "1", "2", "4"]


async def test_children_share_no_chance(link: LauncherLink, build: ProfileBuild) -> None:
    """Every source of chance that was already used in the zygote goes its own way in each child."""
    _assert_differ(await _children(link, build, _CHANCE))


async def test_children_are_two_in_a_namespace_of_their_own(link: LauncherLink, build: ProfileBuild) -> None:
    """Each child has the same process id as its zygote had, which is why nothing may be seeded by that alone."""
    assert await _children(link, build, "import os\n[os.getpid(), os.getppid()]") == [[2, 1]] * _CHILDREN


async def test_children_share_their_hash_seed_and_a_new_zygote_has_another(
    link: LauncherLink, build: ProfileBuild
) -> None:
    """Known and documented: strings hash alike in forks of one zygote, and differently after it was replaced."""
    code = "hash('crank')"
    other = launch()
    try:
        here, there = set(await _children(link, build, code)), set(await _children(other, build, code))
    finally:
        other.close()
    assert (len(here), len(there), len(here | there)) == (1, 1, 2)


async def test_numpy_and_pandas_have_chances_of_their_own(link: LauncherLink, builds: Path) -> None:
    """The global generator of numpy, and generators made in a job, differ between children."""
    build = project_store(builds).find("python-interpreter", "cpu")
    if build is None:
        pytest.skip("python-interpreter is not built; make profiles builds it")
    code = (
        "import numpy, pandas, random\n"
        "dict(old=float(numpy.random.random()), new=float(numpy.random.default_rng().random()), plain=random.random(),\n"
        "     sampled=pandas.Series(range(100_000)).sample(3).tolist())"
    )
    _assert_differ(await _children(link, build, code))


@pytest.mark.profile_ml
async def test_torch_has_chances_of_its_own(link: LauncherLink, builds: Path) -> None:
    """Torch's generator differs between children, and a job may use more threads than its zygote had."""
    build = project_store(builds).find("python-ml", "cpu")
    if build is None:
        pytest.skip("python-ml is not built; make profiles builds it")
    code = (
        "import numpy, torch\n"
        "dict(torch=torch.rand(1).item(), seed=torch.initial_seed(), numpy=float(numpy.random.random()),\n"
        "     order=torch.randperm(1000)[:5].tolist(), threads=torch.get_num_threads())"
    )
    results = await _children(link, build, code)
    assert {result.pop("threads") for result in results} == {min(4, os.cpu_count() or 1)}
    _assert_differ(results)


@pytest.mark.parametrize("parked", [0, 3])
async def test_zygotes_are_replaced_and_no_job_is_lost(link: LauncherLink, build: ProfileBuild, parked: int) -> None:
    """After its number of children another zygote serves; a job of the old one ends well, then the old nest goes."""
    async with _runner(link, parked=parked) as runner:
        session = await runner.open(SandboxSpec(build, Limits(wall_sec=60.0)))
        sink = RecordingSink()
        waiting = "import sys\nprint('begun', flush=True)\nsys.stdin.readline()\nhash('crank')"
        long = asyncio.create_task(session.run_python(waiting, None, sink, stdin=True))
        await asyncio.wait_for(sink.arrived.wait(), _SOON_SEC)
        first = set(named(link.process.pid, ZYGOTE))
        seeds: set[object] = set()
        for _ in range(20):
            both = await asyncio.gather(*(_run(runner, build, "hash('crank')") for _ in range(2)))
            assert {outcome.end.reason for outcome in both} == {Reason.EXITED}
            seeds |= {outcome.result for outcome in both}
        assert len(seeds) >= 3
        await _until(lambda: not first & set(named(link.process.pid, ZYGOTE)), "the first zygote to leave")
        await session.write_stdin(b"\n")
        outcome = await asyncio.wait_for(long, _SOON_SEC)
        await session.close()
        assert (outcome.end.reason, type(outcome.result)) == (Reason.EXITED, int)
        # What waits in the pool keeps the nest that it came from; without it, only the zygote that serves is left.
        await _until(lambda: len(named(link.process.pid, NEST)) <= 1 + parked, "the old nests to go")
        await _until(lambda: len(named(link.process.pid, GUEST)) <= parked, "the guests to go")
        tree = descendants(link.process.pid)
    assert not any(alive(pid) for pid in tree)


async def test_a_module_that_starts_a_thread_is_refused(link: LauncherLink, build: ProfileBuild) -> None:
    """A zygote with a second thread is never forked: the layer is named, with something to do about it."""
    module = build.rootfs / "opt/site/starts_a_thread.py"
    module.write_text("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n")
    async with _runner(link) as runner:
        with pytest.raises(SandboxError, match=r"started 1 thread") as fault:
            await _run(runner, make_build(build.rootfs, preimports=("starts_a_thread",)), "1")
        assert fault.value.error_code == "layer_zygote"
        assert "preimports" in fault.value.fix
        # The next profile is not harmed.
        assert (await _run(runner, build, "2")).result == 2


async def test_a_module_that_ends_the_interpreter_is_refused(link: LauncherLink, build: ProfileBuild) -> None:
    """A module that exits while it is imported makes the zygote not ready; no job waits for it."""
    (build.rootfs / "opt/site/leaves.py").write_text("raise SystemExit(0)\n")
    async with _runner(link) as runner:
        with pytest.raises(SandboxError) as fault:
            await _run(runner, make_build(build.rootfs, preimports=("leaves",)), "1")
    assert fault.value.error_code in ("layer_interpreter", "layer_preimports")


async def test_a_zygote_that_cannot_start_is_not_tried_without_a_pause(link: LauncherLink, build: ProfileBuild) -> None:
    """The pool counts failures and waits; each asker is told at once, and nothing is left after the stop."""
    broken = make_build(build.rootfs, preimports=("no_such_module",))
    async with _runner(link, parked=2) as runner:
        for _ in range(3):
            with pytest.raises(SandboxError) as fault:
                await _run(runner, broken, "1")
            assert fault.value.error_code == "layer_preimports"
        assert runner.pool_counts().parked == 0
        tree = [link.process.pid, *descendants(link.process.pid)]
    assert not any(alive(pid) for pid in tree)


async def test_writing_to_inherited_pages_is_the_jobs_own_memory(link: LauncherLink, build: ProfileBuild) -> None:
    """A job that writes to every page it inherited pays for them: beyond its limit it ends for memory."""
    if link.cgroup is None:
        pytest.skip("no control group counts memory here")
    (build.rootfs / "opt/site/wide.py").write_text("pages = bytearray(48 << 20)\n")
    wide = make_build(build.rootfs, preimports=("wide",))
    touch = "import wide\nfor place in range(0, len(wide.pages), 4096):\n    wide.pages[place] = 1\n'touched'"
    async with _runner(link) as runner:
        ended = await _run(runner, wide, touch, memory_bytes=32 << 20)
        assert ended.end.reason is Reason.MEMORY
        enough = await _run(runner, wide, touch, memory_bytes=256 << 20)
        assert enough.result == "touched"
        assert (enough.usage.peak_memory_bytes or 0) >= 48 << 20


async def test_no_child_serves_two_jobs(link: LauncherLink, build: ProfileBuild) -> None:
    """Over sixty jobs from the pool, none finds a mark of another, and none stands in another's cell."""
    code = (
        "import builtins, os\n"
        "result = [getattr(builtins, 'used', False), os.listdir('/scratch'), os.stat('/scratch').st_dev]\n"
        "builtins.used = True\nopen('/scratch/mark', 'w').close()"
    )
    async with _runner(link, parked=4) as runner:
        for _ in range(15):
            for outcome in await asyncio.gather(*(_run(runner, build, code) for _ in range(4))):
                assert outcome.result[:2] == [False, []]
        counts = runner.pool_counts()
        assert counts.hits + counts.misses == 60
        # How many were hits depends on how fast this machine refills.
        assert counts.hits > 0


async def test_children_are_not_told_which_machine_they_are_on(link: LauncherLink, build: ProfileBuild) -> None:
    """The id that the host drew when it started is covered; what the kernel draws anew at each reading is not."""
    code = "[open(f'/proc/sys/kernel/random/{name}').read() for name in ('boot_id', 'uuid')]"
    told = await _children(link, build, code)
    assert {boot_id for boot_id, _ in told} == {""}
    assert len({drawn for _, drawn in told}) == _CHILDREN

"""Attacks on the zygote and on what is parked: killed, frozen, looted or worn out, they cost no job and leak nothing."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from crank.domain.outcome import Outcome, Reason
from crank.errors import SandboxError
from crank.sandbox.link import launch
from crank.sandbox.runner import NamespaceRunner
from tests.attacks import judge
from tests.attacks.arena import Arena, Quiet
from tests.attacks.canary import canaries
from tests.attacks.case import CHANNEL, MEMORY, Case
from tests.attacks.traces import descendants, title
from tests.support.node import Node, running_node, until
from tests.support.tree import alive

pytestmark = [
    pytest.mark.attacks,
    pytest.mark.system,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("attacks"),
    pytest.mark.skipif(not hasattr(NamespaceRunner, "pool_counts"), reason="this runner keeps no pool"),
]

_JOB = Case("V06 job", "6 * 7", result=42)
_LONG = Case("V07 long", "print('on', flush=True)\nimport time\ntime.sleep(1.5)\n'finished'", result="finished")
_VERY_LONG = replace(_LONG, name="V12 very long", code=_LONG.code.replace("1.5", "60"))
_ENOUGH_SEC = 20.0
_JOBS = 200


@pytest.fixture
async def pool(rootfs: Path) -> AsyncIterator[Arena]:
    """Give an arena of its own, with its pool full: these tests break what others would stand on."""
    link = launch()
    runner = NamespaceRunner(link)
    await runner.start()
    with canaries(1) as (canary,):
        arena = Arena(runner, link, rootfs, canary)
        await arena.warm()
        yield arena
    await runner.stop()
    link.close()


def titled(arena: Arena, name: str) -> list[int]:
    """Return the processes of this arena that have a title."""
    return [pid for pid in descendants(arena.link.process.pid) if title(pid) == name]


async def right(arena: Arena, count: int = 8) -> None:
    """Insist that so many jobs, one after another, give the right answer soon."""
    for _ in range(count):
        outcome, _ = await asyncio.wait_for(arena.run(_JOB), _ENOUGH_SEC)
        assert (outcome.end.reason, outcome.result) == (Reason.EXITED, 42), outcome.end


@contextlib.asynccontextmanager
async def running(arena: Arena, count: int, case: Case = _LONG) -> AsyncIterator[list["asyncio.Task[tuple[Outcome, float]]"]]:
    """Give so many jobs that are in the middle of their work."""
    sinks = [Quiet() for _ in range(count)]
    jobs = [asyncio.create_task(arena.run(case, sink)) for sink in sinks]
    await asyncio.wait_for(asyncio.gather(*(sink.arrived.wait() for sink in sinks)), _ENOUGH_SEC)
    yield jobs
    await asyncio.gather(*jobs, return_exceptions=True)


async def test_a_zygote_has_one_thread_and_nothing_of_the_host(pool: Arena) -> None:
    """K01: when it may be forked, a zygote has one thread, no privilege on the host, and only declared variables."""
    found = titled(pool, "crank-zygote")
    assert found
    for pid in found:
        assert len(os.listdir(f"/proc/{pid}/task")) == 1
        names = {entry.split(b"=")[0] for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if entry}
        assert not [name for name in names if name.startswith((b"CRANK", b"AWS", b"SSH", b"PYTHONPATH"))]
        status = Path(f"/proc/{pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        uids = status.split("Uid:\t")[1].split("\n")[0].split()
        assert "0" not in uids or os.geteuid() != 0, uids
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        assert not [link for link in links if link.startswith("/") and not link.startswith(("/dev/null", "/proc"))]
        assert sum(link.startswith("socket:") for link in links) <= 1


async def test_a_job_reaches_neither_zygote_nor_siblings(pool: Arena) -> None:
    """K03: from inside a job there is no process, socket, pipe, shared page or futex of the zygote or of its siblings."""
    targets = [*titled(pool, "crank-zygote"), *titled(pool, "crank-nest"), *titled(pool, "crank-supervisor")]
    code = f"""
import os, signal, socket, stat
got = []
for pid in {targets!r}:
    for number in (0, signal.SIGSTOP, signal.SIGKILL):
        try:
            os.kill(pid, number)
            got.append(pid)
        except OSError:
            pass
shared = [line for line in open("/proc/self/maps") if line.split()[1][3] == "s"]
peers = []
for name in os.listdir("/proc/self/fd"):
    try:
        if stat.S_ISSOCK(os.stat("/proc/self/fd/" + name).st_mode):
            peers.append(name)
    except OSError:
        pass
unix = open("/proc/net/unix").read().splitlines()[1:] if os.path.exists("/proc/net/unix") else []
processes = [name for name in os.listdir("/proc") if name.isdigit()]
names = [open(f"/proc/{{name}}/cmdline").read() for name in processes]
[got, shared, len(processes) <= 2, [name for name in names if "zygote" in name or "nest" in name], len(unix) <= 4]
"""
    outcome, _ = await pool.run(Case("V08 reach", code))
    assert outcome.result == [[], [], True, [], True], (outcome.result, outcome.stderr.text)
    assert titled(pool, "crank-zygote")
    assert pool.canary.wrongs() == []


async def test_a_killed_zygote_costs_no_job(pool: Arena) -> None:
    """K04: after kill -9 of every zygote the jobs that run finish, later jobs are right, and there is a zygote again."""
    async with running(pool, 2) as jobs:
        before = set(titled(pool, "crank-zygote"))
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await right(pool)
        assert [(await job)[0].result for job in jobs] == ["finished"] * len(jobs)
    assert set(titled(pool, "crank-zygote")) - before


async def test_zygotes_killed_again_and_again_cost_no_job(pool: Arena) -> None:
    """K04: the pool comes back after every one of several deaths, and never gives out what died."""
    for _ in range(4):
        for pid in titled(pool, "crank-zygote"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await right(pool, 6)


@pytest.mark.timeout(60)
async def test_a_frozen_zygote_stops_no_job_for_long(pool: Arena) -> None:
    """K04: a zygote that answers nothing any more is replaced; until then parked sandboxes serve, and none hangs."""
    frozen = titled(pool, "crank-zygote")
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        await right(pool, 12)
    finally:
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def test_a_killed_nest_ends_its_jobs_truthfully(pool: Arena) -> None:
    """K04: when the process that holds all sandboxes of a profile is killed, its jobs say so, and later ones are right."""
    async with running(pool, 1, _VERY_LONG) as jobs:
        for pid in titled(pool, "crank-nest"):
            os.kill(pid, signal.SIGKILL)
        ended = await asyncio.gather(*jobs, return_exceptions=True)
    for end in ended:
        if isinstance(end, BaseException):
            # It had not begun, and says so.
            assert isinstance(end, SandboxError), end
        else:
            assert end[0].end.reason in {Reason.SANDBOX_FAILED, Reason.SIGNALLED}, end
    await right(pool)


@pytest.mark.parametrize("name", ["crank-supervisor", "crank-init"])
async def test_what_died_while_it_waited_is_given_to_nobody(pool: Arena, name: str) -> None:
    """K04: parked sandboxes whose supervisor or first process was killed are counted and replaced, never used."""
    burnt = pool.runner.pool_counts().burnt
    killed = titled(pool, name)
    for pid in killed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    # A signal is not yet a death: on a busy machine a sandbox may begin a job before it dies, and truly says so.
    # Nothing of ours runs in this wait, so the pool has noticed nothing when the first job asks.
    until(lambda: not any(alive(pid) for pid in killed), what="the killed processes to be dead")
    await right(pool, 12)
    assert pool.runner.pool_counts().burnt > burnt
    assert pool.runner.pool_counts().parked > 0


async def test_a_killed_launcher_is_told_truthfully(pool: Arena) -> None:
    """K04: when the launcher dies, running jobs end with a reason that says so, and no process survives it."""
    family = descendants(pool.link.process.pid)
    async with running(pool, 1, _VERY_LONG) as jobs:
        pool.link.process.kill()
        ended = [(await asyncio.wait_for(job, _ENOUGH_SEC))[0] for job in jobs]
    assert {outcome.end.reason for outcome in ended} <= {Reason.SANDBOX_FAILED, Reason.CANCELLED}, ended
    deadline = time.monotonic() + 10
    while any(title(pid) for pid in family) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert [title(pid) for pid in family if title(pid)] == []


async def test_a_hungry_job_does_not_starve_the_pool(pool: Arena) -> None:
    """K04: a job that takes all its memory while the pool refills harms neither zygote nor parked siblings."""
    bomb = Case("V09 bomb", "x = []\nwhile True:\n    x.append(bytearray(1 << 20))", limits={"memory_bytes": 64 << 20})
    zygotes = titled(pool, "crank-zygote")
    ended = await asyncio.gather(*(pool.run(bomb) for _ in range(6)), *(pool.run(_JOB) for _ in range(6)))
    assert {outcome.end.reason for outcome, _ in ended[:6]} == {Reason.MEMORY}
    assert {outcome.result for outcome, _ in ended[6:]} == {42}
    assert set(zygotes) <= set(titled(pool, "crank-zygote"))


def _single_use(number: int) -> Case:
    code = f"""
import builtins, os, sys, tempfile
seen = [getattr(builtins, "planted", None), os.environ.get("PLANTED"), "planted" in sys.modules, os.listdir("/tmp"),
        os.path.exists("/scratch/planted")]
builtins.planted = {number}
os.environ["PLANTED"] = "{number}"
sys.modules["planted"] = sys
open("/tmp/planted", "w"), open("/scratch/planted", "w")
seen
"""
    return Case(f"V10 job {number}", code)


async def _all_fresh(pool: Arena, count: int) -> None:
    done = 0
    while done < count:
        ended = await asyncio.gather(*(pool.run(_single_use(done + offset)) for offset in range(4)))
        for outcome, _ in ended:
            assert outcome.result == [None, None, False, [], False], (outcome.end, outcome.result)
        done += len(ended)
    assert pool.runner.pool_counts().hits > count // 4


async def test_no_sandbox_serves_two_jobs(pool: Arena) -> None:
    """K06: over hundreds of jobs from the pool, none finds what another planted in its interpreter or its folders."""
    await _all_fresh(pool, _JOBS)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_no_sandbox_serves_two_of_ten_thousand_jobs(pool: Arena) -> None:
    """K06: the same over ten thousand, with zygotes replaced on the way and nothing left at the end."""
    before = pool.traces()
    await _all_fresh(pool, 10_000)
    await asyncio.sleep(1)
    assert not pool.traces().has_more_than(before)


async def test_pages_that_a_job_writes_are_charged_to_it(pool: Arena) -> None:
    """K09: a job that writes to every page it inherited grows by itself; the zygote's own pages stay as they were."""
    code = """
import ctypes
written = 0
for line in open("/proc/self/maps").read().splitlines():
    span, rights, *rest = line.split(None, 5)
    if rights[:2] == "rw" and not line.endswith(("[stack]", "[vvar]")):
        low, high = (int(part, 16) for part in span.split("-"))
        for place in range(low, high, 4096):
            cell = ctypes.c_ubyte.from_address(place)
            cell.value = cell.value
            written += 1
written > 100
"""
    (zygote, *_) = titled(pool, "crank-zygote")
    before = _private_bytes(zygote)
    outcome, _ = await pool.run(Case("V11 touch", code))
    assert outcome.result is True, (outcome.end, outcome.stderr.text)
    assert (outcome.usage.peak_memory_bytes or 0) > 1 << 20
    assert _private_bytes(zygote) <= before + (4 << 20)
    await right(pool, 2)


def _private_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("Private_Dirty", "Swap:")))


async def test_a_slot_with_residue_is_burnt_and_reported(pool: Arena) -> None:
    """K10: a sandbox of which something cannot be removed is said to be unclean and is counted; nobody waits for it."""
    if os.geteuid() != 0:
        pytest.skip("needs root to leave something in a control group")
    burnt = pool.runner.pool_counts().burnt
    own = f"/crank-{pool.link.process.pid}-"
    places = [place for place, _, _ in os.walk("/sys/fs/cgroup") if "/" in place.partition(own)[2]]
    # One hierarchy is enough, and each costs the patience of its removal.
    made = [Path(place) / "residue" for place in places if "/pids/" in place or "/unified/" in place or len(places) <= 8]
    if not made:
        pytest.skip("no control group counts here")
    for residue in made:
        residue.mkdir()
    try:
        outcome, _ = await asyncio.wait_for(pool.run(_JOB), _ENOUGH_SEC)
        assert outcome.result == 42
        until(lambda: pool.runner.pool_counts().burnt > burnt, what="the unclean sandbox to be counted", deadline_sec=10)
    finally:
        for residue in made:
            with contextlib.suppress(OSError):
                residue.rmdir()
                residue.parent.rmdir()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give a real node, whose controller and worker hold real secrets."""
    with running_node(tmp_path_factory.mktemp("pool") / "home") as node:
        yield node


def _has(pid: int, secrets: list[bytes]) -> list[bytes]:
    """Return which of these are in a process's memory, read from outside."""
    found = set()
    with contextlib.suppress(OSError), open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            low, high = (int(part, 16) for part in line.split()[0].split("-"))
            if line.split()[1][0] != "r" or high - low > 1 << 28 or line.endswith(("[vvar]", "[vsyscall]")):
                continue
            with contextlib.suppress(OSError, ValueError, OverflowError):
                memory.seek(low)
                chunk = memory.read(high - low)
                found |= {secret for secret in secrets if secret in chunk}
    return sorted(found)


def test_no_secret_of_the_node_is_in_a_zygote(node: Node) -> None:
    """H13 J04: forks share their layout, so nothing secret may be in it: no token, no key and no job's text, seen from outside."""
    if os.geteuid() != 0:
        pytest.skip("needs root to read the memory of other accounts")
    api = node.client()
    text = "text-of-a-job-" + "that-has-ended"
    assert api.submit({"code": f"x = '{text}'"}, Prefer="wait=20").json()["status"] == "succeeded"
    secrets = [Path(node.info()["token_file"]).read_bytes().strip(), text.encode()]
    for key in node.home.rglob("*.pem"):
        body = key.read_text().splitlines()
        if "PRIVATE KEY" in body[0]:
            secrets.append(body[1].encode())
    assert len(secrets) >= 3
    (worker,) = node.info()["worker_pids"]
    family = {pid: title(pid) for pid in descendants(worker)}
    looked = [pid for pid, name in family.items() if name in ("crank-zygote", "crank-nest", "crank-init", "python job.py")]
    assert looked
    assert {family[pid]: _has(pid, secrets) for pid in looked if _has(pid, secrets)} == {}


def test_the_node_says_what_its_pool_lost(node: Node) -> None:
    """K04 K10: killed parked sandboxes are shown beside the worker, and jobs go on being right."""
    api = node.client()
    (worker,) = node.info()["worker_pids"]
    for pid in [pid for pid in descendants(worker) if title(pid) == "crank-zygote"]:
        os.kill(pid, signal.SIGKILL)
    answers = [api.submit({"code": f"{number} + 1"}, Prefer="wait=30").json() for number in range(10)]
    assert [answer["result"] for answer in answers] == [number + 1 for number in range(10)]
    assert api.ready().get("ready")


async def test_a_job_that_knows_the_guest_gains_nothing_from_the_pool(pool: Arena) -> None:
    """K03: a job that digs out the guest's channel and orders finds no other job's token or text in its memory."""
    marked = Case("V12 marked", "mark = 'TOKEN-OF-' + 'ANOTHER'\nmark * 1000\nresult = 1", result=1)
    look = Case(
        "V13 look",
        CHANNEL + MEMORY + "word = b'TOKEN-OF-' + b'ANOTHER'\nsum(chunk.count(word * 2) for chunk in memory())",
        result=0,
    )
    for _ in range(3):
        await pool.run(replace(marked))
        outcome, _ = await pool.run(look)
        assert judge.wrongs(look, judge.seen_outcome(outcome)) == []

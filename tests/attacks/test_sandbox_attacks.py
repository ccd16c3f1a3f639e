"""Hostile jobs in the real sandbox: each ends as it must, and nothing and nobody else is touched.

After every case: no process, mount, group or descriptor more than before, the worker's memory flat, and the
next job right. Where root runs the tests, an ordinary user runs all of it again.
"""

import asyncio
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from crank.domain.outcome import Reason
from crank.domain.profile import Limits
from crank.ports import SandboxSpec
from crank.sandbox.link import LauncherLink
from crank.sandbox.runner import NamespaceRunner
from crank.testing.contracts_sandbox import RecordingSink
from tests.attacks import cases
from tests.attacks.arena import run_case, wrongs
from tests.attacks.cases import Case
from tests.support.rootfs import make_build

# One process for all of them: what an ordinary user runs is run once, and bombs do not meet bombs.
pytestmark = [pytest.mark.attacks, pytest.mark.system, pytest.mark.xdist_group("attacks")]

_VICTIM = Case(
    "victim",
    "import hashlib\nh = b''\nfor n in range(20_000):\n    h = hashlib.sha256(h + bytes([n % 256])).digest()\nh.hex()[:16]",
)
_DISTURBING = [
    case
    for case in cases.ALL
    if case.name
    in (
        "D01 a fork bomb that swallows its errors",
        "D01 a thread bomb",
        "D04 memory spread over children",
        "F01 endless output on both streams, from threads",
        "D09 no inodes left",
    )
]


@pytest.mark.parametrize("case", cases.ALL, ids=lambda case: case.name)
async def test_attack(case: Case, link: LauncherLink, rootfs: Path) -> None:
    """A hostile job ends as it must, leaves nothing, and does not touch the next job."""
    assert await wrongs(NamespaceRunner(link), link, rootfs, case) == []


@pytest.mark.parametrize("case", cases.ALL, ids=lambda case: case.name)
def test_attack_without_privilege(case: Case, rootless: dict[str, list[str]]) -> None:
    """The same holds where neither the worker nor the launcher is root and no control group counts."""
    assert rootless[case.name] == []


@pytest.mark.parametrize("case", _DISTURBING, ids=lambda case: case.name)
async def test_neighbours_are_not_disturbed(case: Case, link: LauncherLink, rootfs: Path) -> None:
    """A job that runs beside a hostile one gives the right answer."""
    runner = NamespaceRunner(link)
    hostile = replace(case, limits={**case.limits, "wall_sec": 5})
    (ended, _), (victim, _) = await asyncio.gather(run_case(runner, rootfs, hostile), run_case(runner, rootfs, _VICTIM))
    alone, _ = await run_case(runner, rootfs, _VICTIM)
    assert victim.end.reason is Reason.EXITED
    assert victim.result == alone.result
    assert ended.end.reason is not Reason.SANDBOX_FAILED


async def test_killing_everybody_spares_the_host(link: LauncherLink, rootfs: Path) -> None:
    """A process on the host survives a job that signals every number it can think of."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as bystander:
        try:
            code = (
                "import os, signal\nfor pid in (-1, *range(2, 70_000)):\n    if pid != os.getpid():\n        try:\n"
                "            os.kill(pid, signal.SIGKILL)\n        except OSError:\n            pass\n"
            )
            outcome, _ = await run_case(NamespaceRunner(link), rootfs, Case("kill", code, programs=True))
            assert outcome.end.reason is Reason.EXITED
            assert bystander.poll() is None
        finally:
            bystander.send_signal(signal.SIGKILL)


async def test_locks_on_shared_files_are_not_shared(link: LauncherLink, rootfs: Path) -> None:
    """C13: a lock that one job holds on a file of the profile is not seen by another; leases are refused."""
    runner = NamespaceRunner(link)
    take = "import fcntl\nf = open('/opt/python/lib/python3.11/os.py')\nfcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
    holder = await runner.open(SandboxSpec(make_build(rootfs), Limits()))
    sink = RecordingSink()
    holding = asyncio.ensure_future(holder.run_python(take + "print('held')\nwhile True:\n    pass\n", None, sink))
    await asyncio.wait_for(sink.arrived.wait(), 20)
    lease = (
        "try:\n    fcntl.fcntl(f, 1024, 0)\n    result = 'leased'\nexcept PermissionError:\n    result = 'refused'\n"
    )
    other, _ = await run_case(runner, rootfs, Case("other", take + lease))
    await holder.close()
    await holding
    assert (other.end.reason, other.result) == (Reason.EXITED, "refused")


async def test_a_hundred_jobs_at_once(link: LauncherLink, rootfs: Path) -> None:
    """Many sandboxes opened together all stand, run and go."""
    runner = NamespaceRunner(link)
    job = Case("one of many", "import os\nos.getpid()")
    ended = await asyncio.gather(*(run_case(runner, rootfs, job) for _ in range(100)))
    assert {outcome.result for outcome, _ in ended} == {2}
    assert link.alive

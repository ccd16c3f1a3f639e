"""Mixed jobs, half of them hostile, as root and as an ordinary user: nothing is left, and every neighbour is right.

A short run belongs to every test run; `make soak` runs 10 000 jobs. CRANK_SOAK_JOBS sets the number, and the
report of each run is kept in .cache/soak.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.arena import arena_root
from tests.attacks.case import Case
from tests.attacks.cases import ON_RUNNER
from tests.soak.honest import Honest
from tests.soak.soak import draw
from tests.support.ordinary import copy_for_all, run_ordinary, usable_by_all

REPO = Path(__file__).resolve().parents[2]
JOBS = int(os.environ.get("CRANK_SOAK_JOBS", "200"))
# An eighth of a second a job and a minute for the rest, many times over.
LIMIT_SEC = 240 + JOBS

pytestmark = [
    pytest.mark.system,
    pytest.mark.attacks,
    pytest.mark.timeout(LIMIT_SEC + 60),
    pytest.mark.xdist_group("attacks"),
]
MACHINE_LATE_SEC_MAX = 5.0


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """Give a folder that every account may enter; pytest's own belongs to one."""
    with tempfile.TemporaryDirectory(prefix="crank-tests-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def rootfs(open_folder: Path) -> Path:
    """Give a root with a bare Python."""
    return arena_root(open_folder / "rootfs")


def _kept(report: Path, name: str) -> dict[str, Any]:
    """Keep a report where `make clean` finds it, and return it."""
    text = report.read_text("utf-8")
    folder = REPO / ".cache" / "soak"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(text, "utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _check(report: dict[str, Any]) -> None:
    assert report["wrongs"] == []
    assert report["leaks"] == []
    # What the machine itself was late is no fault of a job's supervisor; a machine that sleeps proves nothing.
    assert report["machine_late_sec"] < MACHINE_LATE_SEC_MAX
    assert sum(report["jobs"].values()) >= JOBS
    assert abs(report["jobs"]["honest"] - report["jobs"]["hostile"]) <= 1


@pytest.mark.endures
def test_soak(open_folder: Path, rootfs: Path) -> None:
    """Whoever runs the tests: every job is right, and afterwards there is nothing more than before."""
    report = open_folder / "report.json"
    command = [sys.executable, "-B", "-m", "tests.soak.soak", str(rootfs), "--jobs", str(JOBS), "--report", str(report)]
    subprocess.run(command, cwd=REPO, check=True, timeout=LIMIT_SEC)
    _check(_kept(report, "root" if os.geteuid() == 0 else "ordinary"))


@pytest.mark.endures
def test_soak_without_privilege(open_folder: Path, rootfs: Path) -> None:
    """The same as an ordinary user, without control groups and without an account for each sandbox."""
    if os.geteuid() != 0:
        pytest.skip("these tests already run as an ordinary user")
    python = usable_by_all()
    if python is None:
        pytest.skip("no interpreter of version 3.11 or newer is open to an ordinary user here")
    source = copy_for_all(open_folder / "source", tests=("attacks", "soak", "support"), packages=("structlog",))
    writable = open_folder / "reports"
    writable.mkdir()
    writable.chmod(0o777)
    report = writable / "report.json"
    command = [python, "-B", "-m", "tests.soak.soak", str(rootfs), "--jobs", str(JOBS), "--report", str(report)]
    assert run_ordinary(command, cwd=source, timeout_sec=LIMIT_SEC, PYTHONPATH=str(source)) == 0
    _check(_kept(report, "ordinary"))


def test_every_second_job_is_hostile_and_every_case_comes() -> None:
    """The mix is what it says: half and half, every hostile case before one comes twice, every honest kind."""
    rounds = [[draw(2 * (turn * len(ON_RUNNER) + place)) for place in range(len(ON_RUNNER))] for turn in range(2)]
    for cases in rounds:
        assert all(isinstance(case, Case) for case in cases)
        assert len({case.name for case in cases if isinstance(case, Case)}) == len(ON_RUNNER)
    assert rounds[0] != rounds[1]
    kinds = Counter(job.kind for number in range(1, 161, 2) if isinstance(job := draw(number), Honest))
    assert len(kinds) == 8
    assert kinds.total() == 80

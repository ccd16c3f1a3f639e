"""Inspect AI judges the provider that ships: its portable suite, and an evaluation with real tools."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.node import REPO, Node, running_node

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("judge-inspect")]

HERE = Path(__file__).parent / "inspect"
CHECKS_MIN = 40
# What Crank does not do, and why. A check that passes leaves this list.
CANNOT = {
    "test_exec_as_user": "a sandbox has one account; nothing in it can become root or make users",
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start one node for this file."""
    with running_node(tmp_path_factory.mktemp("inspect") / "home") as started:
        yield started


@pytest.fixture(scope="module")
def inside(
    judge: Callable[[str], Path], node: Node, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return how to run a program of Inspect's environment, with the Crank of this tree installed beside it."""
    place = tmp_path_factory.mktemp("crank")
    pip = (sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps")
    subprocess.run((*pip, "--no-build-isolation", "--no-index", "--target", str(place), str(REPO)), check=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place.parent),
        "PYTHONPATH": str(place),
        "CRANK_HOME": str(node.home),
        "INSPECT_LOG_LEVEL": "warning",
        "INSPECT_DISPLAY": "none",
    }

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (str(judge("inspect")), *argv),
            cwd=HERE, env=environment, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip

    return run


def test_the_portable_suite_passes(inside: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """Every portable check passes, and ours beside them, but those that are listed with their reason, and each of those fails."""
    report = tmp_path / "report.xml"
    ran = inside(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(HERE), "--confcutdir", str(HERE),
        "-o", "asyncio_mode=auto", "-o", "asyncio_default_test_loop_scope=session", "-o", "python_files=*_checks.py",
        f"--junit-xml={report}", "--durations=5", str(HERE),
    )  # fmt: skip
    assert report.exists(), ran.stdout + ran.stderr
    cases = {case.attrib["name"]: len(case) for case in ET.parse(report).getroot().iter("testcase")}
    failed = {name for name, faults in cases.items() if faults}
    assert failed == set(CANNOT), ran.stdout[-8000:]
    assert len(cases) >= CHECKS_MIN


def test_an_evaluation_runs_in_crank(
    inside: Callable[..., subprocess.CompletedProcess[str]], node: Node, tmp_path: Path
) -> None:
    """A model's tool calls, a sample's files and a scorer meet in one session, which is closed afterwards."""
    ran = inside("evaluation.py", str(tmp_path))
    assert ran.returncode == 0, ran.stderr[-4000:]
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["status"] == "success", told
    assert told["scores"] == [1.0], told
    assert [text.split() for text in told["said"][:2]] == [["12"], ["12.0", "12"]], told
    sessions = node.client().http.get("/v1/sessions").json()["sessions"]
    # The newest is the evaluation's; a check of ours lets an earlier one break.
    assert sessions[0]["end"]["reason"] == "closed"
    assert all(session["state"] == "ended" for session in sessions)

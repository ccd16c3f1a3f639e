"""What the attack tests share: one bare root, one arena with its launcher, and an account that is not root."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from crank.sandbox.link import LauncherLink, launch
from crank.sandbox.runner import NamespaceRunner
from tests.attacks.arena import Arena, arena_root
from tests.attacks.canary import Canary, canaries

REPO = Path(__file__).resolve().parents[2]
ORDINARY_ID = 54_321


@pytest.fixture(scope="package")
def open_folder() -> Iterator[Path]:
    """Give a folder that every account may enter; pytest's own belongs to one."""
    folder = Path(tempfile.mkdtemp(prefix="crank-tests-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="package")
def rootfs(open_folder: Path) -> Path:
    """Give a root with a bare Python."""
    return arena_root(open_folder / "rootfs")


@pytest.fixture(scope="package")
def link() -> Iterator[LauncherLink]:
    """Give a launcher for the whole package."""
    link = launch()
    yield link
    link.close()


@pytest.fixture(scope="package")
def canary() -> Iterator[Canary]:
    """Give a canary for the whole package."""
    with canaries(1) as (canary,):
        yield canary


@pytest.fixture
async def arena(link: LauncherLink, canary: Canary, rootfs: Path) -> Arena:
    """Give a runner on that launcher. It parks nothing: what is parked belongs to the loop of one test."""
    arena = Arena(NamespaceRunner(link, parked=0), link, rootfs, canary)
    await arena.warm(1)
    return arena


def usable_by_all() -> str | None:
    """Return an interpreter that an ordinary user may run, or None."""
    question = "import sys; sys.exit(sys.version_info < (3, 11))"
    for candidate in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            subprocess.run(
                [candidate, "-I", "-c", question],
                check=True,
                user=ORDINARY_ID,
                group=ORDINARY_ID,
                extra_groups=[],
                cwd="/",
            )
        except (OSError, subprocess.SubprocessError):
            continue
        return candidate
    return None


@pytest.fixture(scope="package")
def ordinary_source(open_folder: Path) -> Path:
    """Give a copy of the code and of these tests that every account may read."""
    source = open_folder / "source"
    shutil.copytree(REPO / "src" / "crank", source / "crank", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("attacks", "support"):
        shutil.copytree(REPO / "tests" / name, source / "tests" / name, ignore=shutil.ignore_patterns("__pycache__"))
    # What the runner needs beside the standard library; the account's own interpreter has none of it.
    shutil.copytree(Path(structlog.__file__).parent, source / "structlog")
    (source / "tests" / "__init__.py").touch()
    subprocess.run(["chmod", "-R", "a+rX", str(source)], check=True)
    return source


@pytest.fixture(scope="package")
def rootless(ordinary_source: Path, rootfs: Path) -> dict[str, list[str]]:
    """Run every case as an ordinary user; give what was wrong with each."""
    if os.geteuid() != 0:
        pytest.skip("these tests already run as an ordinary user")
    python = usable_by_all()
    if python is None:
        pytest.skip("no interpreter of version 3.11 or newer is open to an ordinary user here")
    answer = subprocess.run(
        [python, "-B", "-m", "tests.attacks.arena", str(rootfs)],
        cwd=ordinary_source,
        env={"PYTHONPATH": str(ordinary_source)},
        user=ORDINARY_ID,
        group=ORDINARY_ID,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
        timeout=560,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    told = [json.loads(line) for line in answer.stdout.splitlines()]
    return {entry["name"]: entry["wrongs"] for entry in told}

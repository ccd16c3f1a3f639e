"""On a machine that gives no namespaces the second tier stands where it is allowed, and nothing where it is not."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.ordinary import ORDINARY_ID, copy_for_all, usable_by_all
from tests.support.rootfs import make_rootfs

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

_JOB = "import os\nopen('/out/x', 'w').write('made')\n[os.getuid(), open('/out/x').read()]\n"


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """Give a folder that every account may enter; pytest's own belongs to one."""
    folder = Path(tempfile.mkdtemp(prefix="tests-of-crank-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def rootfs(open_folder: Path) -> Path:
    """Give a root with a bare Python."""
    return make_rootfs(open_folder / "rootfs")


@pytest.fixture(scope="module")
def source(open_folder: Path) -> Path:
    """Give a copy of the code that every account may read."""
    return copy_for_all(open_folder / "source", tests=("support",), packages=("structlog",))


def _run(source: Path, rootfs: Path, lowest: str, *lacking: str, ordinary: bool = False) -> dict[str, Any]:
    python, account = sys.executable, {}
    if ordinary and os.geteuid() == 0:
        found = usable_by_all()
        if found is None:
            pytest.skip("no interpreter of version 3.11 or newer is open to an ordinary user here")
        python, account = found, {"user": ORDINARY_ID, "group": ORDINARY_ID, "extra_groups": []}
    answer = subprocess.run(
        [python, "-B", "-m", "tests.support.docker_like", lowest, str(rootfs), *lacking],
        cwd=source,
        env={"PYTHONPATH": str(source)},
        input=_JOB,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        **account,  # type: ignore[call-overload]
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    told: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize("ordinary", [False, True], ids=["as-started", "as-an-ordinary-user"])
def test_the_second_tier_stands_where_it_is_allowed(source: Path, rootfs: Path, ordinary: bool) -> None:
    """Without namespaces a job runs on the tier `landlock`, as nobody's root, and its outcome says what that means."""
    told = _run(source, rootfs, "landlock", ordinary=ordinary)
    assert told["tier"] == "landlock", told
    assert told["result"][0] != 0
    assert told["result"][1] == "made"
    assert {"landlock", "seccomp", "processes"} <= set(told["layers"])
    assert any("network" in note and "no empty network" in note for note in told["notes"])


@pytest.mark.parametrize("ordinary", [False, True], ids=["as-started", "as-an-ordinary-user"])
def test_nothing_stands_where_only_the_first_is_allowed(source: Path, rootfs: Path, ordinary: bool) -> None:
    """The default allows the first tier alone: no job runs, and the refusal names the wall and both ways out."""
    told = _run(source, rootfs, "namespaces", ordinary=ordinary)
    assert told["code"] == "layer_user_namespace", told
    assert "unshare" in told["message"]
    assert "CRANK_SANDBOX_TIER=landlock" in told["fix"]
    assert "max_user_namespaces" in told["fix"]


@pytest.mark.parametrize("call", ["landlock_create_ruleset", "landlock_restrict_self"])
def test_without_landlock_there_is_no_second_tier(source: Path, rootfs: Path, call: str) -> None:
    """Where Landlock is missing as well no job runs, whatever is allowed; the fix does not offer what would not work."""
    told = _run(source, rootfs, "landlock", call, ordinary=True)
    assert told["code"] == "layer_user_namespace", told
    assert "CRANK_SANDBOX_TIER" not in told["fix"]


def test_where_namespaces_are_given_the_first_tier_is_taken(source: Path, rootfs: Path) -> None:
    """Allowing the second tier weakens nothing on a machine that can give the first."""
    assert _run(source, rootfs, "landlock", "nothing", ordinary=True)["tier"] == "namespaces"

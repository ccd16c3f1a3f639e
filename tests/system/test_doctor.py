"""`crank doctor` breaks real sandboxes from inside, and says so and fails when one does not hold."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

import crank
from tests.support.ordinary import copy_for_all, run_ordinary, usable_by_all
from tests.support.rootfs import make_rootfs

pytestmark = pytest.mark.system

_SOURCE = Path(crank.__file__).parent
_GROUPS = {
    "network",
    "files",
    "processes",
    "privilege",
    "system calls",
    "identity",
    "witnesses",
    "limits",
    "kill",
    "pool",
}
# What each takes away, as lines behind a module's own.
_NO_FILTER = {
    "sandbox/seccomp.py": "\ndef program(machine, granted, **_):\n    return pack([(0x06, 0, 0, ALLOW)])\n",
}
_NO_PROOF = {"sandbox/guest_proof.py": "\n_CHECKS.clear()\n"}
_NO_LANDLOCK = {"sandbox/landlock.py": "\ndef restrict(*_, **__):\n    return None\n"}


# As a kernel answers that forbids user namespaces.
_NO_NAMESPACES = {
    "sandbox/kernel.py": (
        "\n_unshare = unshare\n\n\ndef unshare(flags):\n    if flags & CLONE_NEWUSER:\n"
        "        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))\n    return _unshare(flags)\n"
    ),
}


def _doctor(
    home: Path, builds: Path, *, source: Path = _SOURCE.parent, tier: str = "namespaces"
) -> tuple[int, dict[str, Any], float]:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "crank", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={
            "PATH": os.defpath,
            "PYTHONPATH": str(source),
            "CRANK_HOME": str(home),
            "CRANK_SANDBOX_TIER": tier,
            "CRANK_PROFILES_BUILDS": str(builds),
            "CRANK_PROFILES_SOURCE": str(_SOURCE.parents[1] / "profiles"),
        },
        timeout=120,
    )
    assert done.stdout, done.stderr[-2000:]
    return done.returncode, json.loads(done.stdout), time.monotonic() - began


def _findings(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in answer["findings"]}


@pytest.fixture
def core(builds: Path) -> Path:
    """Give the folder of builds, where python-core is among them."""
    if not list(builds.glob("python-core-cpu-*")):
        pytest.skip("python-core is not built; make profiles-small builds it")
    return builds


def test_every_wall_of_this_machine_holds(home: Path, core: Path) -> None:
    """Each group of attempts is told with what refused it, the tier and the pool are told, within seconds."""
    code, answer, took_sec = _doctor(home, core)
    found = _findings(answer)
    assert {name.removeprefix("try ") for name in found if name.startswith("try ")} == _GROUPS
    assert [each for each in answer["findings"] if each["name"].startswith("try ") and each["state"] != "ok"] == []
    assert "namespaces" in found["sandbox"]["cause"]
    assert "from the pool" in found["try pool"]["cause"]
    assert (code == 0) == answer["ok"]
    # Three seconds on a quiet machine.
    assert took_sec < 60


def test_without_a_profile_it_says_that_it_did_not_try(home: Path, tmp_path: Path) -> None:
    """Where nothing is built the walls were not tried from inside, which is said, with what to type."""
    _, answer, _ = _doctor(home, tmp_path / "none")
    walls = _findings(answer)["walls"]
    assert walls["state"] == "warn"
    assert "crank profile build" in walls["fix"]


def _weakened(place: Path, changes: dict[str, str]) -> Path:
    shutil.copytree(_SOURCE, place / "crank", ignore=shutil.ignore_patterns("__pycache__"))
    for name, lines in changes.items():
        with (place / "crank" / name).open("a", encoding="utf-8") as module:
            module.write(lines)
    return place


@pytest.mark.parametrize(
    ("changes", "layer"), [(_NO_FILTER, "seccomp"), (_NO_LANDLOCK, "landlock")], ids=["filter", "landlock"]
)
def test_a_layer_that_is_not_raised_is_found_by_the_guest(
    home: Path, core: Path, tmp_path: Path, changes: dict[str, str], layer: str
) -> None:
    """A build of Crank that forgets a layer starts no job: its guest misses the layer, and doctor fails with its name."""
    code, answer, _ = _doctor(home, core, source=_weakened(tmp_path / "src", changes))
    walls = _findings(answer)["walls"]
    assert (code, answer["ok"], walls["state"]) == (1, False, "fail")
    assert f"'{layer}'" in walls["cause"]


def test_without_filter_and_proof_doctor_sees_the_hole_itself(home: Path, core: Path, tmp_path: Path) -> None:
    """Where the guest is blind as well, doctor's own attempts come through, each is named, and it fails."""
    code, answer, _ = _doctor(home, core, source=_weakened(tmp_path / "src", _NO_FILTER | _NO_PROOF))
    broken = [each["cause"] for each in answer["findings"] if each["state"] == "fail"]
    assert (code, answer["ok"]) == (1, False)
    assert any("socket of the family IPv4: it was allowed" in cause for cause in broken), broken
    assert any("a new user namespace" in cause for cause in broken), broken
    # The network is empty behind the filter, so not even now was the listener reached.
    assert _findings(answer)["try witnesses"]["state"] == "ok"


def test_where_namespaces_are_refused_the_default_is_to_refuse(home: Path, core: Path, tmp_path: Path) -> None:
    """Without user namespaces doctor fails, names the layer, and says what would allow them or the weaker tier."""
    code, answer, _ = _doctor(home, core, source=_weakened(tmp_path / "src", _NO_NAMESPACES))
    sandbox = _findings(answer)["sandbox"]
    assert (code, sandbox["state"]) == (1, "fail")
    assert "user_namespace" in sandbox["cause"]
    assert "user.max_user_namespaces" in sandbox["fix"]
    assert "CRANK_SANDBOX_TIER=landlock" in sandbox["fix"]


def test_a_weaker_tier_that_is_allowed_is_tried_as_hard(home: Path, core: Path, tmp_path: Path) -> None:
    """With the weaker tier allowed it is told as weaker, with what would give the stronger, and its walls are attacked."""
    source = _weakened(tmp_path / "src", _NO_NAMESPACES)
    _, answer, _ = _doctor(home, core, source=source, tier="landlock")
    found = _findings(answer)
    assert found["sandbox"]["state"] == "warn"
    assert "landlock" in found["sandbox"]["cause"]
    assert found["sandbox"]["fix"]
    assert {
        name: each["cause"] for name, each in found.items() if name.startswith("try ") and each["state"] != "ok"
    } == {}
    assert {name.removeprefix("try ") for name in found if name.startswith("try ")} == _GROUPS


def test_an_ordinary_user_has_the_same_walls() -> None:
    """Rootless, with whatever control group that gives, every attempt is refused and every limit ends its job."""
    python = usable_by_all()
    if os.geteuid() != 0 or python is None:
        pytest.skip("needs root to become an ordinary user, and an interpreter that one may run")
    with tempfile.TemporaryDirectory(prefix="crank-rootless-", dir="/var/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        source = copy_for_all(place / "source", tests=("support",), packages=("structlog",))
        make_rootfs(place / "rootfs")
        (place / "rootfs").chmod(0o755)
        program = (
            "import sys\nfrom pathlib import Path\nfrom crank.domain.isolation import Tier\n"
            "from crank.sandbox import host\nfrom tests.support.rootfs import make_build\n"
            "found = host.examine(Tier.NAMESPACES, make_build(Path(sys.argv[1])))\n"
            "tried = [each for each in found if each.name.startswith('try ')]\n"
            "broken = [each for each in found if each.status == 'fail']\n"
            "print(broken, file=sys.stderr)\nsys.exit(0 if len(tried) == 10 and not broken else 3)\n"
        )
        code = run_ordinary([python, "-B", "-c", program, str(place / "rootfs")], cwd=Path("/"), PYTHONPATH=str(source))
    assert code == 0

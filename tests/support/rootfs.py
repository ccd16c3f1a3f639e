"""A sandbox root with a bare Python, made in a second: what a profile build makes, without its packages.

The interpreter of this test run may live in a private home, so it is copied, with every shared library
that it and its extension modules load.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from crank.domain.ids import Digest
from crank.domain.profile import Limits, Profile
from crank.ports import ProfileBuild

PYTHON = "/opt/python/bin/python3.11"
_LEFT_OUT = shutil.ignore_patterns("test", "tests", "site-packages", "dist-packages", "idlelib", "tkinter", "config-*")


def _libraries(binary: Path) -> set[Path]:
    listing = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
    words = (word for line in listing.splitlines() for word in line.split())
    return {Path(word) for word in words if word.startswith("/")}


def make_rootfs(place: Path) -> Path:
    """Copy the base interpreter into `place`, readable by everybody; return `place`."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    binary = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    home = place / "opt/python"
    (home / "bin").mkdir(parents=True)
    (place / "opt/site").mkdir()
    (place / "usr/bin").mkdir(parents=True)
    shutil.copy(binary, home / "bin" / "python3.11")
    shutil.copytree(Path(sys.base_prefix) / "lib" / version, home / "lib" / version, ignore=_LEFT_OUT)
    found = _libraries(binary)
    for extension in (home / "lib" / version / "lib-dynload").glob("*.so"):
        found |= _libraries(extension)
    for library in found:
        target = place / str(library).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    subprocess.run(["chmod", "-R", "a+rX", str(place)], check=True)
    return place


def make_build(rootfs: Path, *, programs: tuple[str, ...] = (), preimports: tuple[str, ...] = ()) -> ProfileBuild:
    """Describe a root as a build, with or without permission to start programs."""
    profile = Profile(
        name="python-bare",
        capability="python.run.bare",
        version="1.0.0",
        python="3.11",
        summary="A bare Python, for tests.",
        packages=(),
        programs=programs,
        preimports=preimports,
        locks={"cpu": "none.txt"},
        limits=Limits(),
        self_tests=(),
    )
    return ProfileBuild(profile, rootfs, PYTHON, "/opt/site", Digest("0" * 64), "cpu")

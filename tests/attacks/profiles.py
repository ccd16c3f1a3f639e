"""Profiles for the tests alone: a bare Python whose limits are so tight that attacks reach them at once, and one
that may fork."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.node import BUILDS, REPO

TIGHT, FORKS = "python-tight", "python-forks"
TIGHT_WALL_SEC = 60.0

_TEXT = """
schema = 1
name = "{name}"
capability = "{capability}"
version = "1.0.0"
python = "3.11"
summary = "A bare Python, for tests."
processes = {processes}
packages = []
programs = []
preimports = []

[locks]
cpu = "locks/{name}.txt"

[limits]
"""
_LIMITS = {
    TIGHT: f"""
wall_sec = {TIGHT_WALL_SEC}
cpu_sec = 1
disk_bytes = 8_388_608
inodes = 100
output_flood_bytes = 1_048_576
""",
    FORKS: """
wall_sec = 60
processes = 64
""",
}


def make_source(folder: Path) -> Path:
    """Write the repository's profiles and those of the tests into a folder, and build the latter; return the folder."""
    shutil.copytree(REPO / "profiles", folder)
    for name, limits in _LIMITS.items():
        text = _TEXT.format(name=name, capability=name.replace("-", ".run."), processes=str(name == FORKS).lower())
        (folder / f"{name}.toml").write_text(text + limits)
        (folder / "locks" / f"{name}.txt").write_text("")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CRANK_")}
    environment |= {
        "CRANK_HOME": str(folder.parent / "builder"),
        "CRANK_PROFILES_SOURCE": str(folder),
        "CRANK_PROFILES_BUILDS": str(BUILDS),
    }
    subprocess.run(
        [sys.executable, "-m", "crank", "profile", "build", *_LIMITS], env=environment, check=True, capture_output=True
    )
    return folder

"""An account that is not root, an interpreter that it may run, and a copy of the code that it may read."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
ORDINARY_ID = 54_321
_NOT_COPIED = shutil.ignore_patterns("__pycache__")
_QUESTION = "import sys; sys.exit(sys.version_info < (3, 11))"


def usable_by_all() -> str | None:
    """Return an interpreter of version 3.11 or newer that an ordinary user may run, or None."""
    for candidate in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        if run_ordinary([candidate, "-I", "-c", _QUESTION], cwd=Path("/")) == 0:
            return candidate
    return None


def run_ordinary(argv: Sequence[str], *, cwd: Path, timeout_sec: float = 60.0, **environment: str) -> int:
    """Run a program as the ordinary user; return its exit code, or 127 where it cannot be started."""
    try:
        done = subprocess.run(
            argv, cwd=cwd, env=environment, user=ORDINARY_ID, group=ORDINARY_ID, extra_groups=[],
            check=False, timeout=timeout_sec,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return 127
    return done.returncode


def copy_for_all(place: Path, *, tests: Sequence[str], packages: Sequence[str] = ()) -> Path:
    """Copy Crank, folders of its tests and installed pure packages to `place`, readable by every account."""
    shutil.copytree(REPO / "src" / "crank", place / "crank", ignore=_NOT_COPIED)
    for name in tests:
        shutil.copytree(REPO / "tests" / name, place / "tests" / name, ignore=_NOT_COPIED)
    (place / "tests" / "__init__.py").touch()
    for name in packages:
        found = find_spec(name)
        assert found is not None, name
        assert found.origin is not None, name
        shutil.copytree(Path(found.origin).parent, place / name, ignore=_NOT_COPIED)
    subprocess.run(["chmod", "-R", "a+rX", str(place)], check=True)
    return place

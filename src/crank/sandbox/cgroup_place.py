"""Whose a place in the hierarchy is: a launcher's own folder carries its process and when that started.

So a launcher that is dead can be told from one that lives, by the name alone, and what it left be swept.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from crank.sandbox.cgroup_folder import kill_members, remove

FILES_ROOT = Path("/")
_PATIENCE_SEC = 0.2


def started_ticks(pid: int, *, files: Path = FILES_ROOT) -> str | None:
    """Return when a process started, in clock ticks since boot, or None when it is gone.

    A number alone may already belong to another process; number and start together do not.
    """
    try:
        stat = (files / "proc" / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat.rpartition(b") ")[2].split()[19].decode()


def place_name(pid: int, *, files: Path = FILES_ROOT) -> str:
    """Return the name of a launcher's own place: who made it can be checked from the name."""
    return f"crank-{pid}-{started_ticks(pid, files=files)}"


def _is_stale(name: str, files: Path) -> bool:
    prefix, _, rest = name.partition("-")
    pid, _, ticks = rest.partition("-")
    return prefix == "crank" and pid.isdigit() and ticks.isdigit() and started_ticks(int(pid), files=files) != ticks


def sweep(parent: Path, files: Path) -> Iterator[str]:
    """Remove the places of dead launchers, their processes killed; yield their names."""
    for place in sorted(parent.glob("crank-*-*")):
        if not _is_stale(place.name, files):
            continue
        # The deepest first. What does not go now, or is swept by another launcher meanwhile, is nobody's trouble.
        for folder, _, _ in os.walk(place, topdown=False):
            with contextlib.suppress(OSError):
                kill_members(Path(folder), patience_sec=_PATIENCE_SEC)
                remove(Path(folder), patience_sec=_PATIENCE_SEC)
        yield place.name

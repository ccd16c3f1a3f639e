"""The processes of a sandbox as the host sees them, found by the titles that they give themselves."""

import contextlib
from pathlib import Path

SUPERVISOR, NEST, ZYGOTE, INIT, GUEST = (
    "crank-supervisor",
    "crank-nest",
    "crank-zygote",
    "crank-init",
    "python job.py",
)


def children(pid: int) -> list[int]:
    """Return the processes that a process has forked and that live."""
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def descendants(pid: int) -> list[int]:
    """Return every process below a process."""
    found: list[int] = []
    frontier = [pid]
    while frontier:
        new = children(frontier.pop())
        found += new
        frontier += new
    return found


def title(pid: int) -> str:
    """Return what a process calls itself, empty when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode("utf-8", "replace")
    return ""


def named(launcher: int, name: str) -> list[int]:
    """Return the processes of this title below a launcher."""
    return [pid for pid in descendants(launcher) if title(pid) == name]


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False

"""What a sandbox could leave on the host, counted before and after."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Traces:
    """Counts, not numbers of processes: a pool of parked children replaces its own all the time.

    processes  below the launcher, by title, nests apart
    nests      zygotes with their first process; a worn one stays beside the next until its children are done
    mounts, descriptors   of the process that holds the launcher's link, and of the launcher
    groups     control groups of this launcher
    objects    System V and shared memory objects, and keys, of the host
    """

    processes: Counter[str]
    nests: int
    groups: int
    mounts: int
    descriptors: int
    objects: int

    def has_more_than(self, other: "Traces", *, connections: int = 0) -> bool:
        """Tell whether something is here that was not there; so many connections a worker may keep for its next files."""
        return bool(
            self.processes - other.processes
            or self.nests > 2 * other.nests
            or self.groups > other.groups
            or self.mounts > other.mounts
            or self.descriptors > other.descriptors + connections
            or self.objects > other.objects
        )


def descendants(pid: int) -> list[int]:
    """Return all processes below one."""
    found: list[int] = []
    frontier = [pid]
    while frontier:
        parent = frontier.pop()
        children: list[int] = []
        try:
            for thread in os.listdir(f"/proc/{parent}/task"):
                children += map(int, Path(f"/proc/{parent}/task/{thread}/children").read_text().split())
        except OSError:
            continue
        found += children
        frontier += children
    return found


def title(pid: int) -> str:
    """Return what a process calls itself, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    except OSError:
        return ""


def _count_lines(path: str) -> int:
    try:
        return len(Path(path).read_text().splitlines())
    except OSError:
        return 0


def _count_entries(path: str) -> int:
    try:
        return len(os.listdir(path))
    except OSError:
        return 0


def traces(worker: int, launcher: int) -> Traces:
    """Look at the host."""
    # os.walk passes over what other sandboxes of this machine remove meanwhile; Path.glob does not.
    groups = sum(
        "/" in place.partition(f"/crank-{launcher}-")[2] for place, _, _ in os.walk("/sys/fs/cgroup")
    )
    found = Counter(title(pid) for pid in descendants(launcher))
    del found[""]
    nests = max(found.pop(name, 0) for name in ("crank-nest", "crank-zygote"))
    return Traces(
        processes=found,
        nests=nests,
        groups=groups,
        mounts=_count_lines(f"/proc/{worker}/mountinfo"),
        descriptors=_count_entries(f"/proc/{worker}/fd") + _count_entries(f"/proc/{launcher}/fd"),
        objects=sum(_count_lines(f"/proc/sysvipc/{kind}") for kind in ("shm", "sem", "msg"))
        + _count_entries("/dev/mqueue"),
    )


def memory_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

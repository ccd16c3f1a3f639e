"""What a worker with its launcher holds on a machine, counted before and after."""

import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.attacks.traces import descendants, memory_bytes, title

# Interpreters and allocators keep what the largest job once took (a flood of output, a storm of files). What
# grows with the number of jobs goes on growing when every kind of job has come, and passes the second bound.
GROWTH_BYTES = 64 << 20
LATE_GROWTH_BYTES = 8 << 20
_KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


@dataclass(frozen=True, slots=True)
class Stock:
    """Counts. A pool replaces its sandboxes all the time, so nothing here is a process's number.

    processes     below the launcher, by title; a zombie has none and is counted as `(zombie)`
    strays        processes anywhere else that are in one of this launcher's control groups
    namespaces    distinct ones that the worker, the launcher and all below it are in, by kind
    mounts        of the worker and of the launcher
    descriptors   of the worker and of the launcher
    groups        control groups of this launcher
    sockets       abstract Unix sockets with our name that the worker, the launcher and all below it hold
    objects       System V objects and POSIX queues of the machine
    files         in the worker's temporary folder
    threads       of the worker
    memory_bytes  resident, of the worker and of the launcher
    """

    processes: dict[str, int]
    strays: int
    namespaces: dict[str, int]
    mounts: int
    descriptors: dict[str, int]
    groups: int
    sockets: int
    objects: int
    files: int
    threads: int
    memory_bytes: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return it for the report."""
        return asdict(self)

    def grown(self, before: "Stock") -> list[str]:
        """Return what there is more of than before."""
        now, then = self.to_json(), before.to_json()
        found = [
            f"{name}: {now[name]} instead of {then[name]}"
            for name in ("strays", "mounts", "groups", "sockets", "objects", "files", "threads")
            if now[name] > then[name]
        ]
        found += [
            f"{name}: more of {dict(more)} than {then[name]}"
            for name in ("processes", "namespaces", "descriptors")
            if (more := Counter(now[name]) - Counter(then[name]))
        ]
        found += [
            f"memory of the {name}: {size >> 20} MiB instead of {before.memory_bytes[name] >> 20}"
            for name, size in self.memory_bytes.items()
            if size > before.memory_bytes[name] + GROWTH_BYTES
        ]
        return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _namespaces(pids: list[int]) -> dict[str, int]:
    found = set()
    for pid in pids:
        for kind in _KINDS:
            try:
                found.add((kind, os.stat(f"/proc/{pid}/ns/{kind}").st_ino))
            except OSError:
                continue
    return dict(Counter(kind for kind, _ in found))


def _descriptors(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def _claims(pids: list[int]) -> int:
    named = {line.split()[6] for line in _read("/proc/net/unix").splitlines() if " @crank" in line}
    held = set()
    for pid in pids:
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in names:
            try:
                held.add(os.readlink(f"/proc/{pid}/fd/{name}").removeprefix("socket:[").removesuffix("]"))
            except OSError:
                continue
    return len(named & held)


def _groups(launcher: int) -> list[str]:
    # os.walk passes over what other sandboxes of this machine remove meanwhile; Path.glob does not.
    return [place for place, _, _ in os.walk("/sys/fs/cgroup") if "/" in place.partition(f"/crank-{launcher}-")[2]]


def _title(pid: int) -> str:
    status = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return "(zombie)" if status[:1] == ["Z"] else title(pid)


def _files(folder: Path) -> int:
    return sum(1 for _, below, names in os.walk(folder) for _ in (*below, *names))


def take_stock(launcher: int, folder: Path) -> Stock:
    """Count everything now; `folder` is this process's temporary folder."""
    worker, below = os.getpid(), descendants(launcher)
    known = {worker, launcher, *below}
    groups = _groups(launcher)
    inside = {int(word) for group in groups for word in _read(f"{group}/cgroup.procs").split()}
    processes = Counter(filter(None, map(_title, below)))
    return Stock(
        processes=dict(processes),
        strays=len(inside - known),
        namespaces=_namespaces([worker, launcher, *below]),
        mounts=len(_read("/proc/self/mountinfo").splitlines()) + len(_read(f"/proc/{launcher}/mountinfo").splitlines()),
        descriptors={"worker": _descriptors(worker), "launcher": _descriptors(launcher)},
        groups=len(groups),
        sockets=_claims([worker, launcher, *below]),
        objects=sum(len(_read(f"/proc/sysvipc/{kind}").splitlines()) for kind in ("shm", "sem", "msg")),
        files=_files(folder),
        threads=len(os.listdir("/proc/self/task")),
        memory_bytes={"worker": memory_bytes(worker), "launcher": memory_bytes(launcher)},
    )

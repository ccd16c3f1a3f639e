"""A job's processes where no process namespace holds them: everything that descends from its init.

The init is a subreaper: whoever loses a parent becomes its child, whatever session or group it moved to. So
the init's descendants are all there are, and an init without children is the proof that none is left.

Runs inside, in the init, and outside, in the supervisor. Standard library only, but for our kernel calls.
"""

import contextlib
import os
import resource
import signal
import stat
import time
from collections.abc import Collection, Iterable

from crank.sandbox import kernel

_PAUSE_SEC = 0.001


def descendants(root: int) -> list[int]:
    """Return the processes beneath one, each after its parent, the root itself not among them."""
    found: list[int] = []
    seen = {root}
    table: dict[int, list[int]] | None = None
    parents = [root]
    for parent in parents:
        known = None if table is not None else _listed(parent)
        if known is None:
            table = _table() if table is None else table
            known = table.get(parent, [])
        for child in known:
            if child not in seen:
                seen.add(child)
                found.append(child)
                parents.append(child)
    return found


def children(pid: int) -> list[int]:
    """Return the processes that have this one as their parent."""
    known = _listed(pid)
    return _table().get(pid, []) if known is None else known


def _listed(pid: int) -> list[int] | None:
    """Read a process's children; None where this kernel does not list them (CONFIG_PROC_CHILDREN)."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            try:
                with open(f"/proc/{pid}/task/{thread}/children", "rb") as source:
                    found += map(int, source.read().split())
            except FileNotFoundError:
                if os.path.exists(f"/proc/{pid}/task/{thread}/stat"):
                    return None
    return found


def _table() -> dict[int, list[int]]:
    table: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        parent = parent_of(int(name)) if name.isdigit() else None
        if parent is not None:
            table.setdefault(parent, []).append(int(name))
    return table


def parent_of(pid: int) -> int | None:
    """Return a process's parent, or None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as source:
            return int(source.read().rpartition(b") ")[2].split()[1])
    except (OSError, IndexError):
        return None


def end_children(*, limit_sec: float, spare: Collection[int] = ()) -> bool:
    """Kill everything that descends from this process, a subreaper; tell whether nothing is left.

    spare  children that are left alone, with all that descends from them
    All are kept from forking before the first is killed: in its place another could be made, by one not yet reached.
    """
    own = os.getpid()
    deadline = time.monotonic() + limit_sec
    stilled: set[int] = set()
    while True:
        heads = [pid for pid in children(own) if pid not in spare]
        members = [*heads, *(pid for head in heads for pid in descendants(head))]
        parents, fresh = {own, *members}, [pid for pid in members if pid not in stilled]
        for pid in fresh or members:
            _end(pid, parents, kill=not fresh)
        if fresh and time.monotonic() < deadline:
            stilled.update(fresh)
            continue
        stilled.clear()
        for pid in heads:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if not [pid for pid in children(own) if pid not in spare]:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_PAUSE_SEC)


def _end(pid: int, parents: set[int], *, kill: bool) -> None:
    """Keep one process from forking, or kill it, if its number still is that of a child of ours: they are used again."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if parent_of(pid) in parents:
            with contextlib.suppress(OSError):
                if kill:
                    kernel.send_signal(process, signal.SIGKILL)
                else:
                    resource.prlimit(pid, resource.RLIMIT_NPROC, (0, 0))
    finally:
        os.close(process)


def _descriptors(pid: int) -> list[str]:
    """Return the paths of a process's descriptors; where its first thread has ended and shows none, of one that goes on."""
    with contextlib.suppress(OSError):
        for thread in [str(pid), *sorted(os.listdir(f"/proc/{pid}/task"))]:
            folder = f"/proc/{pid}/task/{thread}/fd"
            if names := os.listdir(folder):
                return [f"{folder}/{name}" for name in names]
    return []


def held(members: Iterable[int], device: int) -> tuple[int, int]:
    """Return what these processes hold open: the size of files on a device without a name, and how many sockets."""
    sizes: dict[int, int] = {}
    sockets: set[int] = set()
    for pid in members:
        for path in _descriptors(pid):
            with contextlib.suppress(OSError):
                status = os.stat(path)
                if status.st_nlink == 0 and status.st_dev == device and stat.S_ISREG(status.st_mode):
                    sizes[status.st_ino] = status.st_blocks * 512
                elif stat.S_ISSOCK(status.st_mode):
                    sockets.add(status.st_ino)
    return sum(sizes.values()), len(sockets)


def tasks_of(uid: int) -> int:
    """Return how many processes and threads an account has now, as RLIMIT_NPROC counts them."""
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid == uid:
                    count += len(os.listdir(f"/proc/{name}/task"))
    return count

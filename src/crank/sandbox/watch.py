"""Watching a tree from outside where no control group counts it: slower, coarser, but never absent.

The numbers come from the job's own /proc, opened before the job ran and read by descriptor: it lists
exactly the job's processes, and the job cannot move out of it.

What the kernel holds for a job without a page of it being mapped is counted as far as it can be seen, or kept
away from the job by the filter (`seccomp.Permissions.counted`).
"""

import contextlib
import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from crank.domain.outcome import End
from crank.domain.profile import Limits

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def _one_socket_bytes() -> int:
    try:
        with open("/proc/sys/net/core/wmem_default", "rb") as source:
            return int(source.read()) * 3 // 2
    except (OSError, ValueError):
        return _BUFFER_BYTES * 3 // 2


_BUFFER_BYTES = 212_992
_SOCKET_BYTES = _one_socket_bytes()


@dataclass(frozen=True, slots=True)
class TreeReading:
    """What the whole tree uses now. Memory counts shared pages once where the kernel tells (PSS)."""

    cpu_sec: float
    memory_bytes: int
    tasks: int


def _read(folder: int, path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def _field_kib(text: bytes, name: bytes) -> int | None:
    for line in text.splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return None


def _memory_bytes(proc: int, pid: int) -> int:
    """Return what a process maps, and the tables for it: those of pages that hold nothing take room, too."""
    place = str(pid)
    tables = _field_kib(_read(proc, f"{place}/status"), b"VmPTE:")
    if tables is None:
        # Its first thread has ended and shows no memory; those that go on share it.
        for thread in _threads(proc, pid):
            place = f"{pid}/task/{thread}"
            tables = _field_kib(_read(proc, f"{place}/status"), b"VmPTE:")
            if tables is not None:
                break
        else:
            return 0
    return (tables or 0) * 1024 + _mapped_bytes(proc, place)


def _threads(proc: int, pid: int) -> list[str]:
    folder = os.open(f"{pid}/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
    try:
        return os.listdir(folder)
    finally:
        os.close(folder)


def _mapped_bytes(proc: int, place: str) -> int:
    try:
        pages = _field_kib(_read(proc, f"{place}/smaps_rollup"), b"Pss:")
        if pages is not None:
            return pages * 1024
    except OSError:
        # A process that hides its memory map is counted in full.
        pass
    return int(_read(proc, f"{place}/statm").split()[1]) * _PAGE_BYTES


def socket_bytes(count: int) -> int:
    """Return what so many sockets may hold that nobody reads: their limit, and what may pass it at once.

    No page of it is mapped, and the kernel tells nobody how much it is.
    """
    return count * _SOCKET_BYTES


def _used_bytes(folder: int) -> int:
    usage = os.fstatvfs(folder)
    return (usage.f_blocks - usage.f_bfree) * usage.f_frsize


def add_up(
    pids: Iterable[int], *, first: int, proc: int | None = None, until: float = math.inf
) -> TreeReading:
    """Add up what processes use; of the `first`, which is ours, only the CPU time.

    proc   the /proc that numbers them so, None for the host's
    until  when to have done with it: a look at many, while others take the time, may not make a deadline late
    """
    folder = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if proc is None else proc
    try:
        return _add_up(folder, pids, first, until)
    finally:
        if proc is None:
            os.close(folder)


def _add_up(proc: int, pids: Iterable[int], first: int, until: float) -> TreeReading:
    cpu_ticks = memory = tasks = 0
    for pid in pids:
        if time.monotonic() >= until:
            break
        try:
            fields = _read(proc, f"{pid}/stat").rpartition(b") ")[2].split()
            # utime, stime, and those of children already reaped (proc_pid_stat(5), fields 14 to 17).
            cpu_ticks += sum(map(int, fields[11:15]))
            tasks += int(fields[17])
            if pid != first:
                memory += _memory_bytes(proc, pid)
        except (OSError, IndexError, ValueError):
            # It ended between the listing and the reading.
            continue
    return TreeReading(cpu_ticks / _TICKS_A_SECOND, memory, tasks - 1)


class SpaceTree:
    """A job's processes in a process namespace of their own, and its folders, each on a tmpfs of its own.

    proc  descriptor of the job's /proc
    """

    def __init__(self, proc: int, folders: tuple[int, ...]) -> None:
        self._proc = proc
        self._folders = folders

    def _pids(self) -> list[int]:
        return [int(name) for name in os.listdir(self._proc) if name.isdigit()]

    def read(self, *, tasks_max: int = 1_000, until: float = math.inf) -> TreeReading:
        """Add up every process in the job's /proc and every file in its private folders.

        tasks_max  when there are more processes they are only counted, quickly: a bomb would be faster than we
        until      see `add_up`
        """
        pids = self._pids()
        if len(pids) - 1 > tasks_max:
            return TreeReading(0.0, 0, len(pids) - 1)
        reading = add_up(pids, first=1, proc=self._proc, until=until)
        files = sum(_used_bytes(folder) for folder in self._folders)
        return replace(reading, memory_bytes=reading.memory_bytes + files + socket_bytes(self._sockets()))

    def _sockets(self) -> int:
        """Return how many sockets the job's network has: all that it holds, open, on their way or hidden."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            return int(_read(self._proc, "1/net/sockstat").split()[2])
        return 0

    def left(self) -> int:
        """Return how many processes there are beside the init and the guest."""
        return len(self._pids()) - 2

    def passed(self, limits: Limits) -> End | None:
        """Return None: the folders cannot take more than they may."""
        return None

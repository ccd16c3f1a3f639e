"""Watching a tree from outside where no control group counts it: slower, coarser, but never absent.

The numbers come from the job's own /proc, opened before the job ran and read by descriptor: it lists
exactly the job's processes, and the job cannot move out of it.
"""

import os
from dataclasses import dataclass

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


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


def _memory_bytes(proc: int, pid: str) -> int:
    try:
        for line in _read(proc, f"{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        # A process that hides its memory map is counted in full.
        pass
    return int(_read(proc, f"{pid}/statm").split()[1]) * _PAGE_BYTES


def _used_bytes(folder: int) -> int:
    usage = os.fstatvfs(folder)
    return (usage.f_blocks - usage.f_bfree) * usage.f_frsize


def read_tree(proc: int, folders: tuple[int, ...]) -> TreeReading:
    """Add up every process in the job's /proc and every file in its private folders."""
    cpu_ticks = memory = tasks = 0
    for pid in os.listdir(proc):
        if not pid.isdigit():
            continue
        try:
            fields = _read(proc, f"{pid}/stat").rpartition(b") ")[2].split()
            # utime, stime, and those of children already reaped (proc_pid_stat(5), fields 14 to 17).
            cpu_ticks += sum(map(int, fields[11:15]))
            tasks += int(fields[17])
            if pid != "1":
                memory += _memory_bytes(proc, pid)
        except (OSError, IndexError, ValueError):
            # It ended between the listing and the reading.
            continue
    memory += sum(_used_bytes(folder) for folder in folders)
    return TreeReading(cpu_ticks / _TICKS_A_SECOND, memory, tasks - 1)

"""What both versions of control groups have in common: folders, their files, and who is in them."""

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

REMOVE_SEC = 2.0
_FILE_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Reading:
    """What a group has counted since it was made."""

    cpu_sec: float
    peak_memory_bytes: int | None
    memory_kills: int
    process_refusals: int
    tasks_peak: int | None = None


class Counters:
    """The files that a group's counters are read from, opened once: they are read many times a second."""

    def __init__(self) -> None:
        self._open: dict[Path, int | None] = {}

    def text(self, path: Path) -> str:
        """Return what a file says now, empty where this kernel has no such file. Raises OSError."""
        if path not in self._open:
            try:
                self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                self._open[path] = None
        descriptor = self._open[path]
        return os.pread(descriptor, _FILE_BYTES_MAX, 0).decode() if descriptor is not None else ""

    def close(self) -> None:
        """Let go of the files."""
        for descriptor in self._open.values():
            if descriptor is not None:
                os.close(descriptor)
        self._open.clear()

    def number(self, path: Path) -> int | None:
        """Return the one number that a file holds, None where there is none."""
        text = self.text(path).strip()
        return int(text) if text.isdigit() else None

    def keyed(self, path: Path) -> dict[str, int]:
        """Return a file of `name number` lines."""
        pairs = (line.split() for line in self.text(path).splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def write(path: Path, text: str) -> None:
    """Write a file of the hierarchy in one call. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def doors(folders: list[Path]) -> list[int]:
    """Open the files that a process writes "0" to, to join the groups. Raises OSError."""
    doors: list[int] = []
    try:
        for folder in folders:
            # One by one, so that those before a failure are closed again.
            doors.append(os.open(folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))  # noqa: PERF401
    except OSError:
        for door in doors:
            os.close(door)
        raise
    return doors


def give(folder: Path, names: tuple[str, ...], owner: int | None) -> None:
    """Let the owner, a user id, write some files of a group. Raises OSError."""
    for name in names if owner is not None else ():
        if (folder / name).exists():
            os.chown(folder / name, owner or 0, -1)


def members(folder: Path) -> list[int]:
    """Return the processes of a group, as the host numbers them."""
    try:
        return [int(line) for line in (folder / "cgroup.procs").read_text().split()]
    except FileNotFoundError:
        return []


def is_bare(folder: Path) -> bool:
    """Tell whether a folder of the hierarchy holds no other: each one counts as a link to it. Raises OSError."""
    return os.stat(folder).st_nlink <= 2


def kill_members(folder: Path, *, patience_sec: float = REMOVE_SEC) -> None:
    """Kill until none is left, for a bounded time."""
    deadline = time.monotonic() + patience_sec
    while pids := members(folder):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() >= deadline:
            return
        time.sleep(0.002)


def remove(folder: Path, *, patience_sec: float = REMOVE_SEC) -> bool:
    """Remove a group's folder, and tell whether it is gone."""
    deadline = time.monotonic() + patience_sec
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            # A group whose last process has just been reaped stays busy for an instant.
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.002)
        else:
            return True

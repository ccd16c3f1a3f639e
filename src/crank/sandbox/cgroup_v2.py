"""Control groups version 2: one hierarchy, a folder for each session beneath one that was delegated to us.

Source: Linux `admin-guide/cgroup-v2.rst`.
"""

import errno
from dataclasses import dataclass
from pathlib import Path

from crank.sandbox.cgroup_folder import (
    REMOVE_SEC,
    Counters,
    Reading,
    doors,
    give,
    is_bare,
    kill_members,
    members,
    remove,
    write,
)
from crank.sandbox.cgroup_place import FILES_ROOT, sweep
from crank.sandbox.cgroup_types import Group

_CPU_WEIGHT = "50"


@dataclass(frozen=True, slots=True)
class _GroupV2:
    folder: Path
    counters: Counters

    def join(self, pid: int) -> None:
        """Move a process into the group."""
        write(self.folder / "cgroup.procs", str(pid))

    def doors(self) -> list[int]:
        """Open what a process writes to, to join."""
        return doors([self.folder])

    def limit_memory(self, memory_bytes: int) -> None:
        """Change the memory limit; never to less than is in use, as version 1 does by itself. Raises OSError."""
        if memory_bytes < self.used_bytes():
            raise OSError(errno.EBUSY, "more memory is in use")
        write(self.folder / "memory.max", str(memory_bytes))

    def read(self) -> Reading:
        """Return the counters."""
        return Reading(
            cpu_sec=self.counters.keyed(self.folder / "cpu.stat").get("usage_usec", 0) / 1e6,
            # memory.peak came with Linux 5.19, pids.peak with 6.1.
            peak_memory_bytes=self.counters.number(self.folder / "memory.peak"),
            memory_kills=self.counters.keyed(self.folder / "memory.events").get("oom_kill", 0),
            process_refusals=self.counters.keyed(self.folder / "pids.events").get("max", 0),
            tasks_peak=self.counters.number(self.folder / "pids.peak"),
        )

    def used_bytes(self) -> int:
        """Return the memory in use."""
        return self.counters.number(self.folder / "memory.current") or 0

    def members(self) -> list[int]:
        """Return the processes in the group."""
        return members(self.folder)

    def is_bare(self) -> bool:
        """Tell whether no group lies in this one."""
        return is_bare(self.folder)

    def kill(self) -> None:
        """Kill every member."""
        if (self.folder / "cgroup.kill").exists():
            write(self.folder / "cgroup.kill", "1")
        kill_members(self.folder)

    def remove(self) -> bool:
        """Remove the group, and tell whether it is gone."""
        self.counters.close()
        return remove(self.folder)


@dataclass(frozen=True, slots=True)
class GroupsV2:
    """Groups of the unified hierarchy, beneath a folder that was delegated to us."""

    place: Path
    files: Path = FILES_ROOT
    flavour: str = "v2"

    def make(self, name: str, *, memory_bytes: int, processes: int, owner: int | None = None) -> Group:
        """Make a limited group. Raises OSError."""
        folder = self.place / name
        folder.mkdir()
        try:
            write(folder / "memory.max", str(memory_bytes))
            write(folder / "pids.max", str(processes))
            for optional, text in (
                ("memory.swap.max", "0"),
                ("memory.oom.group", "1"),
                ("cpu.weight", _CPU_WEIGHT),
            ):
                if (folder / optional).exists():
                    write(folder / optional, text)
            give(folder, ("memory.max",), owner)
        except OSError:
            remove(folder, patience_sec=0)
            raise
        return _GroupV2(folder, Counters())

    def sweep(self) -> list[str]:
        """Remove the groups of dead launchers."""
        return list(sweep(self.place.parent, self.files))

    def clear(self, name: str, *, patience_sec: float = REMOVE_SEC) -> bool:
        """Kill and remove one group."""
        # Most are empty by now, and looking costs more than removing.
        if remove(self.place / name, patience_sec=0):
            return True
        kill_members(self.place / name, patience_sec=patience_sec)
        return remove(self.place / name, patience_sec=patience_sec)

    def close(self) -> None:
        """Remove this launcher's own place."""
        remove(self.place, patience_sec=0)

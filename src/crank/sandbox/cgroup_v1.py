"""Control groups version 1: one hierarchy for each controller, and a folder of each session in every one.

Source: Linux `admin-guide/cgroup-v1/`.
"""

from collections.abc import Mapping
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

_CPU_SHARES = "512"


@dataclass(frozen=True, slots=True)
class _GroupV1:
    folders: Mapping[str, Path]
    counters: Counters

    def join(self, pid: int) -> None:
        """Move a process into the group."""
        for folder in self.folders.values():
            write(folder / "cgroup.procs", str(pid))

    def doors(self) -> list[int]:
        """Open what a process writes to, to join."""
        return doors(list(self.folders.values()))

    def limit_memory(self, memory_bytes: int) -> None:
        """Change the memory limit; the one that counts swap may never be the lower of the two."""
        plain, swap = (self.folders["memory"] / f"memory.{name}limit_in_bytes" for name in ("", "memsw."))
        files = [file for file in (plain, swap) if file.exists()]
        if memory_bytes > int(plain.read_bytes()):
            files.reverse()
        for file in files:
            write(file, str(memory_bytes))

    def read(self) -> Reading:
        """Return the counters."""
        memory, pids = self.folders["memory"], self.folders["pids"]
        return Reading(
            cpu_sec=(self.counters.number(self.folders["cpuacct"] / "cpuacct.usage") or 0) / 1e9,
            peak_memory_bytes=self.counters.number(memory / "memory.max_usage_in_bytes"),
            memory_kills=self.counters.keyed(memory / "memory.oom_control").get("oom_kill", 0),
            process_refusals=self.counters.keyed(pids / "pids.events").get("max", 0),
            tasks_peak=self.counters.number(pids / "pids.peak"),
        )

    def used_bytes(self) -> int:
        """Return the memory in use."""
        return self.counters.number(self.folders["memory"] / "memory.usage_in_bytes") or 0

    def members(self) -> list[int]:
        """Return the processes in the group."""
        return members(self.folders["pids"])

    def is_bare(self) -> bool:
        """Tell whether no group lies in this one."""
        return all(is_bare(folder) for folder in self.folders.values())

    def kill(self) -> None:
        """Kill every member."""
        kill_members(self.folders["pids"])

    def remove(self) -> bool:
        """Remove the group, and tell whether it is gone."""
        self.counters.close()
        return False not in {remove(folder) for folder in self.folders.values()}


@dataclass(frozen=True, slots=True)
class GroupsV1:
    """Groups of the separate hierarchies, one folder in each controller."""

    places: Mapping[str, Path]
    files: Path = FILES_ROOT
    flavour: str = "v1"

    def make(self, name: str, *, memory_bytes: int, processes: int, owner: int | None = None) -> Group:
        """Make a limited group. Raises OSError."""
        folders = {controller: place / name for controller, place in self.places.items()}
        try:
            for folder in folders.values():
                folder.mkdir()
            memory = folders["memory"]
            write(memory / "memory.limit_in_bytes", str(memory_bytes))
            for optional, text in (("memory.memsw.limit_in_bytes", str(memory_bytes)), ("memory.swappiness", "0")):
                if (memory / optional).exists():
                    write(memory / optional, text)
            write(folders["pids"] / "pids.max", str(processes))
            if "cpu" in folders:
                write(folders["cpu"] / "cpu.shares", _CPU_SHARES)
            give(memory, ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"), owner)
        except OSError:
            for folder in folders.values():
                remove(folder, patience_sec=0)
            raise
        return _GroupV1(folders, Counters())

    def sweep(self) -> list[str]:
        """Remove the groups of dead launchers."""
        names: set[str] = set()
        for place in self.places.values():
            names.update(sweep(place.parent, self.files))
        return sorted(names)

    def clear(self, name: str, *, patience_sec: float = REMOVE_SEC) -> bool:
        """Kill and remove one group."""
        gone = True
        for place in self.places.values():
            # Most are empty by now, and looking costs more than removing.
            if not remove(place / name, patience_sec=0):
                kill_members(place / name, patience_sec=patience_sec)
                gone = remove(place / name, patience_sec=patience_sec) and gone
        return gone

    def close(self) -> None:
        """Remove this launcher's own place."""
        for place in self.places.values():
            remove(place, patience_sec=0)

"""Control groups: what the kernel itself counts and limits for a whole process tree, v1 or v2.

Which flavour is usable is found by trying: making a group, setting a limit, removing it. Nothing is
inferred from version numbers, because delegation and containers decide, not the kernel.

Source: Linux `admin-guide/cgroup-v2.rst` and `admin-guide/cgroup-v1/`.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_FILES_ROOT = Path("/")
_REMOVE_SEC = 2.0
_CPU_PERIOD_WEIGHT_V2 = "50"
_CPU_SHARES_V1 = "512"
_V1_NEEDED = ("memory", "pids", "cpuacct")
_V1_WANTED = ("cpu",)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a group has counted since it was made."""

    cpu_sec: float
    peak_memory_bytes: int | None
    memory_kills: int
    process_refusals: int
    tasks_peak: int | None = None


class Group(Protocol):
    """One session's group."""

    def join(self, pid: int) -> None:
        """Move a process, and all it starts from now on, into the group. Raises OSError."""
        ...

    def doors(self) -> list[int]:
        """Open what a process that cannot see the hierarchy writes "0" to, to join. Raises OSError."""
        ...

    def lower(self, memory_bytes: int) -> None:
        """Lower the memory limit of a group whose job has not begun. Raises OSError."""
        ...

    def read(self) -> Reading:
        """Return the counters. Raises OSError."""
        ...

    def used_bytes(self) -> int:
        """Return how much memory the group uses now. Raises OSError."""
        ...

    def members(self) -> list[int]:
        """Return the processes in the group, as the host numbers them."""
        ...

    def kill(self) -> None:
        """Kill every member until none is left, for a bounded time."""
        ...

    def remove(self) -> bool:
        """Remove the group, and tell whether it is gone."""
        ...


class Groups(Protocol):
    """A place in the hierarchy where this launcher may make groups."""

    @property
    def flavour(self) -> str:
        """Say which version of control groups this is: `v1` or `v2`."""
        ...

    def make(self, name: str, *, memory_bytes: int, processes: int, owner: int | None = None) -> Group:
        """Make a limited group whose memory limit the owner (a user id) may still lower. Raises OSError."""
        ...

    def sweep(self) -> list[str]:
        """Remove the groups of launchers that are dead, their processes killed; return their names."""
        ...

    def clear(self, name: str, *, patience_sec: float = _REMOVE_SEC) -> bool:
        """Kill what is left in a group and remove it; tell whether it is gone."""
        ...

    def close(self) -> None:
        """Remove this launcher's own place."""
        ...


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _doors(folders: list[Path]) -> list[int]:
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


def _give(folder: Path, names: tuple[str, ...], owner: int | None) -> None:
    for name in names if owner is not None else ():
        if (folder / name).exists():
            os.chown(folder / name, owner or 0, -1)


def _number(path: Path) -> int | None:
    """Read a file of one number that not every kernel has."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _keyed(path: Path) -> dict[str, int]:
    """Read a file of `name number` lines."""
    pairs = (line.split() for line in path.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _members(folder: Path) -> list[int]:
    try:
        return [int(line) for line in (folder / "cgroup.procs").read_text().split()]
    except FileNotFoundError:
        return []


def _kill_members(folder: Path, *, patience_sec: float = _REMOVE_SEC) -> None:
    deadline = time.monotonic() + patience_sec
    while pids := _members(folder):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() >= deadline:
            return
        time.sleep(0.002)


def _remove(folder: Path, *, patience_sec: float = _REMOVE_SEC) -> bool:
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


def started_ticks(pid: int, *, files: Path = _FILES_ROOT) -> str | None:
    """Return when a process started, in clock ticks since boot, or None when it is gone.

    A number alone may already belong to another process; number and start together do not.
    """
    try:
        stat = (files / "proc" / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat.rpartition(b") ")[2].split()[19].decode()


def place_name(pid: int, *, files: Path = _FILES_ROOT) -> str:
    """Return the name of a launcher's own place: who made it can be checked from the name."""
    return f"crank-{pid}-{started_ticks(pid, files=files)}"


def _is_stale(name: str, files: Path) -> bool:
    prefix, _, rest = name.partition("-")
    pid, _, ticks = rest.partition("-")
    return prefix == "crank" and pid.isdigit() and ticks.isdigit() and started_ticks(int(pid), files=files) != ticks


def _sweep(parent: Path, files: Path) -> Iterator[str]:
    for place in sorted(parent.glob("crank-*-*")):
        if not _is_stale(place.name, files):
            continue
        for folder in [*place.iterdir(), place]:
            if folder.is_dir():
                _kill_members(folder)
                _remove(folder)
        yield place.name


# --- version 2 --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _GroupV2:
    folder: Path

    def join(self, pid: int) -> None:
        """Move a process into the group."""
        _write(self.folder / "cgroup.procs", str(pid))

    def doors(self) -> list[int]:
        """Open what a process writes to, to join."""
        return _doors([self.folder])

    def lower(self, memory_bytes: int) -> None:
        """Lower the memory limit."""
        _write(self.folder / "memory.max", str(memory_bytes))

    def read(self) -> Reading:
        """Return the counters."""
        return Reading(
            cpu_sec=_keyed(self.folder / "cpu.stat").get("usage_usec", 0) / 1e6,
            # memory.peak came with Linux 5.19, pids.peak with 6.1.
            peak_memory_bytes=_number(self.folder / "memory.peak"),
            memory_kills=_keyed(self.folder / "memory.events").get("oom_kill", 0),
            process_refusals=_keyed(self.folder / "pids.events").get("max", 0),
            tasks_peak=_number(self.folder / "pids.peak"),
        )

    def used_bytes(self) -> int:
        """Return the memory in use."""
        return int((self.folder / "memory.current").read_text())

    def members(self) -> list[int]:
        """Return the processes in the group."""
        return _members(self.folder)

    def kill(self) -> None:
        """Kill every member."""
        if (self.folder / "cgroup.kill").exists():
            _write(self.folder / "cgroup.kill", "1")
        _kill_members(self.folder)

    def remove(self) -> bool:
        """Remove the group, and tell whether it is gone."""
        return _remove(self.folder)


@dataclass(frozen=True, slots=True)
class GroupsV2:
    """Groups of the unified hierarchy, beneath a folder that was delegated to us."""

    place: Path
    files: Path = _FILES_ROOT
    flavour: str = "v2"

    def make(self, name: str, *, memory_bytes: int, processes: int, owner: int | None = None) -> Group:
        """Make a limited group. Raises OSError."""
        folder = self.place / name
        folder.mkdir()
        try:
            _write(folder / "memory.max", str(memory_bytes))
            _write(folder / "pids.max", str(processes))
            for optional, text in (
                ("memory.swap.max", "0"),
                ("memory.oom.group", "1"),
                ("cpu.weight", _CPU_PERIOD_WEIGHT_V2),
            ):
                if (folder / optional).exists():
                    _write(folder / optional, text)
            _give(folder, ("memory.max",), owner)
        except OSError:
            _remove(folder, patience_sec=0)
            raise
        return _GroupV2(folder)

    def sweep(self) -> list[str]:
        """Remove the groups of dead launchers."""
        return list(_sweep(self.place.parent, self.files))

    def clear(self, name: str, *, patience_sec: float = _REMOVE_SEC) -> bool:
        """Kill and remove one group."""
        _kill_members(self.place / name, patience_sec=patience_sec)
        return _remove(self.place / name, patience_sec=patience_sec)

    def close(self) -> None:
        """Remove this launcher's own place."""
        _remove(self.place, patience_sec=0)


# --- version 1 --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _GroupV1:
    folders: Mapping[str, Path]

    def join(self, pid: int) -> None:
        """Move a process into the group."""
        for folder in self.folders.values():
            _write(folder / "cgroup.procs", str(pid))

    def doors(self) -> list[int]:
        """Open what a process writes to, to join."""
        return _doors(list(self.folders.values()))

    def lower(self, memory_bytes: int) -> None:
        """Lower the memory limit; the one that counts swap may never be the lower of the two."""
        for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
            if (self.folders["memory"] / name).exists():
                _write(self.folders["memory"] / name, str(memory_bytes))

    def read(self) -> Reading:
        """Return the counters."""
        memory, pids = self.folders["memory"], self.folders["pids"]
        return Reading(
            cpu_sec=int((self.folders["cpuacct"] / "cpuacct.usage").read_text()) / 1e9,
            peak_memory_bytes=int((memory / "memory.max_usage_in_bytes").read_text()),
            memory_kills=_keyed(memory / "memory.oom_control").get("oom_kill", 0),
            process_refusals=_keyed(pids / "pids.events").get("max", 0),
            tasks_peak=_number(pids / "pids.peak"),
        )

    def used_bytes(self) -> int:
        """Return the memory in use."""
        return int((self.folders["memory"] / "memory.usage_in_bytes").read_text())

    def members(self) -> list[int]:
        """Return the processes in the group."""
        return _members(self.folders["pids"])

    def kill(self) -> None:
        """Kill every member."""
        _kill_members(self.folders["pids"])

    def remove(self) -> bool:
        """Remove the group, and tell whether it is gone."""
        return False not in {_remove(folder) for folder in self.folders.values()}


@dataclass(frozen=True, slots=True)
class GroupsV1:
    """Groups of the separate hierarchies, one folder in each controller."""

    places: Mapping[str, Path]
    files: Path = _FILES_ROOT
    flavour: str = "v1"

    def make(self, name: str, *, memory_bytes: int, processes: int, owner: int | None = None) -> Group:
        """Make a limited group. Raises OSError."""
        folders = {controller: place / name for controller, place in self.places.items()}
        try:
            for folder in folders.values():
                folder.mkdir()
            memory = folders["memory"]
            _write(memory / "memory.limit_in_bytes", str(memory_bytes))
            for optional, text in (("memory.memsw.limit_in_bytes", str(memory_bytes)), ("memory.swappiness", "0")):
                if (memory / optional).exists():
                    _write(memory / optional, text)
            _write(folders["pids"] / "pids.max", str(processes))
            if "cpu" in folders:
                _write(folders["cpu"] / "cpu.shares", _CPU_SHARES_V1)
            _give(memory, ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"), owner)
        except OSError:
            for folder in folders.values():
                _remove(folder, patience_sec=0)
            raise
        return _GroupV1(folders)

    def sweep(self) -> list[str]:
        """Remove the groups of dead launchers."""
        names: set[str] = set()
        for place in self.places.values():
            names.update(_sweep(place.parent, self.files))
        return sorted(names)

    def clear(self, name: str, *, patience_sec: float = _REMOVE_SEC) -> bool:
        """Kill and remove one group."""
        gone = True
        for place in self.places.values():
            _kill_members(place / name, patience_sec=patience_sec)
            gone = _remove(place / name, patience_sec=patience_sec) and gone
        return gone

    def close(self) -> None:
        """Remove this launcher's own place."""
        for place in self.places.values():
            _remove(place, patience_sec=0)


# --- finding out ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Hierarchy:
    """A mounted hierarchy: where, and which part of it the mount shows."""

    controllers: frozenset[str]
    mount: Path
    shown: str


def _hierarchies(files: Path) -> list[_Hierarchy]:
    found = []
    for line in (files / "proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(kind) >= 3 and kind[0] in ("cgroup", "cgroup2"):
            controllers = frozenset(kind[2].split(",")) if kind[0] == "cgroup" else frozenset({""})
            found.append(_Hierarchy(controllers, files / fields[4].lstrip("/"), fields[3]))
    return found


def _own_folder(files: Path, hierarchy: _Hierarchy, controller: str) -> Path:
    """Return the folder of the group that this process is in, or the mount's own where it is not shown."""
    for line in (files / "proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            shown = hierarchy.shown.rstrip("/")
            inner = path.removeprefix(shown).lstrip("/") if path.startswith(shown) else path.lstrip("/")
            folder = hierarchy.mount / inner
            return folder if folder.is_dir() else hierarchy.mount
    return hierarchy.mount


def _try(groups: Groups) -> bool:
    """Make one limited group, move a process into it, remove it. OSError is the answer no, not a fault."""
    try:
        group = groups.make("try", memory_bytes=64 << 20, processes=8)
    except OSError:
        return False
    try:
        _join_with_a_child(group)
        group.read()
    except OSError:
        return False
    finally:
        removed = group.remove()
    return removed


def _join_with_a_child(group: Group) -> None:
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    try:
        group.join(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _v2_parents(files: Path) -> Iterator[Path]:
    """Return the folders where a group with controllers may be made, the least intrusive first."""
    for hierarchy in _hierarchies(files):
        if hierarchy.controllers == {""}:
            own = _own_folder(files, hierarchy, "")
            yield own
            if own != hierarchy.mount:
                # Beside our own group rather than in it: a group that has processes cannot also have
                # controllers for its children ("no internal processes").
                yield own.parent
                yield hierarchy.mount


def _enable(folder: Path) -> None:
    for controller in ("+memory", "+pids", "+cpu"):
        # One by one: a kernel without one of them refuses the whole line.
        with contextlib.suppress(OSError):
            _write(folder / "cgroup.subtree_control", controller)


def _detect_v2(files: Path, name: str) -> Groups | None:
    for parent in _v2_parents(files):
        place = parent / name
        try:
            _enable(parent)
            place.mkdir()
            _enable(place)
        except OSError:
            continue
        groups = GroupsV2(place, files)
        if _try(groups):
            return groups
        groups.close()
    return None


def _detect_v1(files: Path, name: str) -> Groups | None:
    places: dict[str, Path] = {}
    for hierarchy in _hierarchies(files):
        for controller in (*_V1_NEEDED, *_V1_WANTED):
            if controller in hierarchy.controllers and controller not in places:
                places[controller] = _own_folder(files, hierarchy, controller) / name
    if not set(_V1_NEEDED) <= set(places):
        return None
    try:
        for place in places.values():
            place.mkdir(exist_ok=True)
    except OSError:
        for place in places.values():
            _remove(place, patience_sec=0)
        return None
    groups = GroupsV1(places, files)
    if _try(groups):
        return groups
    groups.close()
    return None


def detect(pid: int, *, files: Path = _FILES_ROOT) -> Groups | None:
    """Return a place where this launcher can make limited groups, or None where the host gives none.

    files  the root of the file system to look at; tests pass a made-up one
    """
    name = place_name(pid, files=files)
    finders: tuple[Callable[[Path, str], Groups | None], ...] = (_detect_v2, _detect_v1)
    for find in finders:
        groups = find(files, name)
        if groups is not None:
            return groups
    return None

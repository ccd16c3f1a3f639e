"""Control groups: what the kernel itself counts and limits for a whole process tree, v1 or v2.

Which flavour is usable is found by trying: making a group, setting a limit, removing it. Nothing is
inferred from version numbers, because delegation and containers decide, not the kernel.

Source: Linux `admin-guide/cgroup-v2.rst` and `admin-guide/cgroup-v1/`.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from crank.sandbox.cgroup_folder import Reading, remove, write
from crank.sandbox.cgroup_place import FILES_ROOT, place_name, started_ticks
from crank.sandbox.cgroup_types import Group, Groups
from crank.sandbox.cgroup_v1 import GroupsV1
from crank.sandbox.cgroup_v2 import GroupsV2

__all__ = ["Group", "Groups", "GroupsV1", "GroupsV2", "Reading", "detect", "place_name", "started_ticks"]

_V1_NEEDED = ("memory", "pids", "cpuacct")
_V1_WANTED = ("cpu",)


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
            write(folder / "cgroup.subtree_control", controller)


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
            remove(place, patience_sec=0)
        return None
    groups = GroupsV1(places, files)
    if _try(groups):
        return groups
    groups.close()
    return None


def detect(pid: int, *, files: Path = FILES_ROOT) -> Groups | None:
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

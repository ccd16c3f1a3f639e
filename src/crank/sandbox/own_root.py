"""A job's own root: what its zygote's cell shows, under inodes that no other job has.

Every child copies the mounts of the cell it was forked in, and copies share their inodes: a lock that one job
takes on a file of the profile would be seen by its neighbours, and the copies tell where the profile lies on
the host. So each child lays one overlay over the cell's root and one over each of its folders, and moves in;
the kernel keeps locks by overlay. Where it refuses one (an old kernel, a file system that cannot be a layer,
mounts inside the folder, which an overlay would leave out), the cell's own mount is used: it is as read-only.
"""

import _ctypes
import contextlib
import errno
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from crank.sandbox import kernel

_PLAIN = kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV
_INERT = _PLAIN | kernel.MOUNT_ATTR_NOEXEC
# An overlay without a writable layer wants a second one. This is an empty file system beside the cell's root,
# because no layer may lie in another.
EMPTY = "/.crank/empty"
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Shown:
    """One mount of a zygote's cell that each child shows at the same place.

    whole  whether it is a folder without other mounts inside
    """

    place: str
    whole: bool


def shown(own: Iterable[str]) -> tuple[Shown, ...]:
    """List what this cell shows of the host, outermost mounts only (proc_pid_mountinfo(5)). Raises OSError.

    own  places that each child makes for itself
    """
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as source:
        fields = [line.split(" ")[4] for line in source]
    left_out = {"/", EMPTY, *own}
    places = sorted({_ESCAPED.sub(lambda code: chr(int(code[1], 8)), field) for field in fields} - left_out)
    outermost = [place for place in places if not any(place.startswith(f"{other}/") for other in places)]
    return tuple(
        Shown(place, os.path.isdir(place) and not any(other.startswith(f"{place}/") for other in places))
        for place in outermost
    )


def veil(place: str, *, inert: bool = False) -> int:
    """Return a detached read-only overlay of a folder; leaves the caller in that folder. Raises OSError.

    inert  refuse to execute what lies in it
    """
    # By its place as the current folder: a name may hold what separates layers.
    os.chdir(place)
    return kernel.new_filesystem("overlay", [("lowerdir", f".:{EMPTY}")], _INERT if inert else _PLAIN)


def build(mounts: Iterable[Shown]) -> int:
    """Build the root over /proc, which exists wherever a sandbox can; return its descriptor. Raises OSError."""
    try:
        root = veil("/", inert=True)
    except OSError:
        root = kernel.clone_tree("/", recursive=False)
    kernel.attach(root, "/proc")
    for mount in mounts:
        _show(mount, root)
    return root


def _show(mount: Shown, root: int) -> None:
    place = mount.place.lstrip("/")
    try:
        if not mount.whole:
            raise OSError(errno.EBUSY, "it cannot be veiled")
        veiled = veil(mount.place)
    except OSError:
        # These mounts are a copy of the cell's, made for this child: taking one leaves the cell as it is.
        kernel.move(mount.place, place, folder=root)
        return
    kernel.attach(veiled, place, folder=root)
    os.close(veiled)


def enter(root: int) -> None:
    """Move in, and leave the cell's mounts behind: nothing of them has a name any more. Raises OSError."""
    os.fchdir(root)
    kernel.pivot_root_here()
    kernel.unmount(".")
    os.chdir("/")


def name_libraries() -> None:
    """Tell the dynamic loader every name of the libraries that a zygote has loaded. Raises OSError.

    It knows a library again by name or by inode, and a child's inodes are others: without this, a library that
    is there already and that a job loads by another of its names would be loaded a second time, beside itself.
    """
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as source:
        mapped = {line.rstrip("\n").split(maxsplit=5)[5] for line in source if "/" in line}
    libraries = {path for path in mapped if ".so" in os.path.basename(path)}
    links: dict[str, list[str]] = {}
    for link in filter(os.DirEntry.is_symlink, os.scandir("/")):
        links.setdefault(os.path.realpath(link.path), []).append(link.path)
    for path in _paths(libraries):
        for name in _names(path, links):
            with contextlib.suppress(OSError):
                _ctypes.dlopen(name, os.RTLD_NOW | os.RTLD_NOLOAD)


def _paths(libraries: Collection[str]) -> Iterator[str]:
    """Yield the path of each library, and those of the links beside it that lead to one."""
    for folder in {os.path.dirname(path) for path in libraries}:
        # What a package compiled for itself while it was imported is gone with the bench.
        with contextlib.suppress(OSError):
            for entry in os.scandir(folder):
                found = ".so" in entry.name and (os.path.realpath(entry.path) if entry.is_symlink() else entry.path)
                if found in libraries:
                    yield entry.path


def _names(path: str, links: Mapping[str, list[str]]) -> list[str]:
    """Return the path, and as it reads through each of the root's links (from the folder to its links)."""
    found = [path]
    for folder, others in links.items():
        if path.startswith(f"{folder}/"):
            found += [other + path.removeprefix(folder) for other in others]
    return found

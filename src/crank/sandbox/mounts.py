"""Mounts: the sandbox's file system, built from nothing.

The root is a small tmpfs. Onto it come the profile's top folders (read-only), named host folders under
/in (read-only), private tmpfs for /scratch, /out, /tmp and /dev/shm, five harmless devices, and a /proc of
the job's own processes with everything about the host masked. Nothing else of the host has a name here.

Only the new mount interface is used (fsopen, open_tree, move_mount, mount_setattr): a mount is complete
before anyone can see it, and folders are taken by descriptor, so no path is looked up twice.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from crank.domain.profile import Limits
from crank.sandbox import kernel, machine, namespaces, own_root
from crank.sandbox.namespaces import INSIDE_ID, Identity
from crank.sandbox.own_root import Shown

_PLAIN = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV
_INERT = _PLAIN | kernel.MOUNT_ATTR_NOEXEC
_READ_ONLY = kernel.MOUNT_ATTR_RDONLY

_NODES = ("null", "zero", "full", "random", "urandom")
_LINKS = {
    "dev/fd": "/proc/self/fd",
    "dev/stdin": "/proc/self/fd/0",
    "dev/stdout": "/proc/self/fd/1",
    "dev/stderr": "/proc/self/fd/2",
    "var/tmp": "/tmp",
}
_FOLDERS = (
    "dev",
    "dev/shm",
    "etc",
    "in",
    "out",
    "proc",
    "scratch",
    "tmp",
    "var",
    ".crank",
    ".crank/none",
    ".crank/layer",
    ".crank/empty",
)
WRITABLE = ("/scratch", "/out", "/tmp", "/dev/shm")
# Where a folder is put while an overlay is laid over it.
_LAYER = "/.crank/layer"
_OURS = {"dev", "etc", "in", "out", "proc", "scratch", "sys", "run", "tmp", "var", ".crank"}

# The whole list of what /proc may say beside the job's own processes. A kernel that grows a new file is
# then silent about it until someone decides.
_PROC_SHOWN = {
    *("self", "thread-self", "mounts", "net", "sys"),
    *("cpuinfo", "filesystems", "version"),
}
# Where the words that stand for a file of /proc lie, see `machine`.
_SAID = "/.crank/said"

# Single files that are copied into the root: each at most so large, and all together.
_COPIED_BYTES_MAX, _COPIES_BYTES_MAX = 256 << 10, 4 << 20

# Chosen at random when the host starts: by it a job could tell whether two of its runs were on one machine.
_BOOT_ID = "/proc/sys/kernel/random/boot_id"

_ETC = {
    # Names for the ids that programs expect to look up; nobody can become one of them.
    "passwd": "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n"
    f"job:x:{INSIDE_ID}:{INSIDE_ID}:job:/scratch:/usr/sbin/nologin\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": f"root:x:0:\njob:x:{INSIDE_ID}:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost\n",
    "hostname": f"{namespaces.HOST_NAME}\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "resolv.conf": "",
}


# A profile with a home of its own brings its own names for the job's user.
_NAMES = {"etc/passwd", "etc/group"}
# Where /scratch appears once more, in a profile that has this folder.
_HOME = "home/user"


@dataclass(frozen=True, slots=True)
class Tree:
    """A detached mount and the place inside the sandbox that it is meant for."""

    place: str
    descriptor: int
    is_folder: bool


@dataclass(frozen=True, slots=True)
class Opened:
    """Descriptors into the finished file system, for those outside it."""

    scratch: int
    out: int
    shared_memory: int
    temporary: int
    proc: int


def _clone(folder: int, name: str, *, rootless: bool) -> int:
    """Copy a mount tree. A rootless process cannot copy from a namespace that it left, so it asks by path."""
    if not rootless:
        return kernel.clone_tree(name, folder=folder)
    path = os.readlink(f"/proc/self/fd/{folder}")
    return kernel.clone_tree(os.path.join(path, name) if name else path)


def detach(root: int | None, devices: Sequence[str], *, rootless: bool) -> tuple[list[Tree], dict[str, str]]:
    """Copy what a zygote's cell shows of the host; return the trees and the root's own links.

    root  the profile's folder, None in a rehearsal
    With privilege: before leaving the host's mount namespace. Without: after. Raises OSError.
    """
    trees: list[Tree] = []
    links: dict[str, str] = {}
    for prefix, folder in _profile_folders(root):
        for name in sorted(os.listdir(folder)):
            place = prefix + name
            if place in (_OURS if not prefix else {f"etc/{file}" for file in _ETC} - _NAMES):
                continue
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                links[place] = os.readlink(name, dir_fd=folder)
            elif stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                tree = _clone(folder, name, rootless=rootless)
                kernel.change_tree(tree, _PLAIN | _READ_ONLY)
                trees.append(Tree(place, tree, stat.S_ISDIR(mode)))
    for path in [*(f"/dev/{node}" for node in _NODES), *devices]:
        tree = kernel.clone_tree(path)
        kernel.change_tree(tree, kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NOEXEC)
        trees.append(Tree(path.lstrip("/"), tree, is_folder=False))
    return trees, links


def detach_folder(folder: int, identity: Identity) -> int:
    """Copy a folder that a job may read, read-only; return the tree's descriptor. Raises OSError.

    With privilege, what the folder's owner has on disk is shown as the job's own.
    """
    tree = _clone(folder, "", rootless=not identity.privileged)
    kernel.change_tree(tree, _INERT | _READ_ONLY)
    if identity.privileged:
        _give_to(tree, folder, identity)
    return tree


def detach_layer(layer: int, identity: Identity, *, private: bool) -> int:
    """Copy a folder or file that a module is imported from, read-only; return the tree's descriptor. Raises OSError.

    private  show what its owner alone may read on disk as the identity's own
    """
    tree = _clone(layer, "", rootless=not identity.privileged)
    kernel.change_tree(tree, _PLAIN | _READ_ONLY)
    if private:
        _give_to(tree, layer, identity)
    return tree


def is_folder(opened: int) -> bool:
    """Tell whether a descriptor is a folder's."""
    return stat.S_ISDIR(os.fstat(opened).st_mode)


def is_private(opened: int) -> bool:
    """Tell whether not everybody may read a folder or what lies directly in it, or a file."""
    found = [os.fstat(opened)]
    if is_folder(opened):
        with os.scandir(f"/proc/self/fd/{opened}") as entries:
            found += [entry.stat(follow_symlinks=False) for entry in entries if not entry.is_symlink()]
    return any(each.st_mode & _read_bits(each.st_mode) != _read_bits(each.st_mode) for each in found)


def _read_bits(mode: int) -> int:
    return 0o005 if stat.S_ISDIR(mode) else 0o004


def _profile_folders(root: int | None) -> list[tuple[str, int]]:
    if root is None:
        return []
    folders = [("", root)]
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        # Fonts, certificates, media types: what the profile keeps in /etc comes beside our own files.
        folders.append(("etc/", os.open("etc", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)))
    return folders


def _give_to(tree: int, folder: int, identity: Identity) -> None:
    """Show what the folder's owner has on disk as the job's own, so that private files can be read.

    Some file systems refuse id-mapped mounts; then the plain read-only mount stays, and the job reads
    what its "other" permission bits allow.
    """
    owner = os.fstat(folder)
    namespace = namespaces.owner_map(owner.st_uid, owner.st_gid, identity)
    try:
        kernel.change_tree(tree, 0, user_namespace=namespace)
    except OSError:
        return
    finally:
        os.close(namespace)


def _tmpfs(*, size: int, inodes: int, mode: str, owner: int | None, attributes: int = _INERT) -> int:
    options: list[tuple[str, str | None]] = [("size", str(size)), ("nr_inodes", str(inodes)), ("mode", mode)]
    if owner is not None:
        options += [("uid", str(owner)), ("gid", str(owner))]
    return kernel.new_filesystem("tmpfs", options, attributes)


def _write(path: str, content: bytes, folder: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444, dir_fd=folder)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _lay_out(root: int, trees: Sequence[Tree], links: Mapping[str, str], files: Mapping[str, bytes]) -> None:
    """Make every folder, file and link that the root needs before it becomes read-only."""
    for folder in _FOLDERS:
        os.mkdir(folder, 0o755, dir_fd=root)
    brought = {tree.place for tree in trees}
    for name in [name for name in _ETC if f"etc/{name}" not in brought]:
        _write(f"etc/{name}", _ETC[name].encode(), root)
    for folder in sorted({f".crank/{parent}" for name in files for parent in _parents(name)}):
        os.mkdir(folder, 0o755, dir_fd=root)
    for name, content in files.items():
        _write(f".crank/{name}", content, root)
    _write(".crank/nothing", b"", root)
    os.mkdir(_SAID.lstrip("/"), 0o755, dir_fd=root)
    for name, content in machine.files().items():
        _write(f"{_SAID.lstrip('/')}/{name}", content, root)
    for place, target in {**_LINKS, **links}.items():
        os.symlink(target, place, dir_fd=root)
    for tree in trees:
        for parent in _parents(tree.place):
            with contextlib.suppress(FileExistsError):
                os.mkdir(parent, 0o755, dir_fd=root)
        if tree.is_folder:
            os.mkdir(tree.place, 0o755, dir_fd=root)
        else:
            _write(tree.place, b"", root)


def _copy(tree: Tree, budget_bytes: int) -> int:
    """Replace the mount of a small file by a copy in the root, which each child then has as its own.

    Programs and libraries stay mounted, because nothing in the root may be executed. Return the copy's size.
    """
    place = f"/{tree.place}"
    try:
        found = os.stat(place)
        if found.st_size > min(_COPIED_BYTES_MAX, budget_bytes) or found.st_mode & 0o111:
            return 0
        with open(place, "rb") as source:
            content = source.read(_COPIED_BYTES_MAX)
    except OSError:
        return 0
    if content.startswith(b"\x7fELF"):
        return 0
    kernel.unmount(place)
    with open(place, "wb") as target:
        target.write(content)
    return len(content)


def raise_root(trees: Sequence[Tree], links: Mapping[str, str], files: Mapping[str, bytes]) -> None:
    """Build the file system of a zygote's cell and move into it. Needs mount and process namespaces of its own.

    files  what is put under /.crank, read-only. Raises OSError.
    """
    kernel.make_mounts_private()
    # Writable and bare, because only this mount lets a child's own /proc be made beside it; no job sees it.
    proc = kernel.new_filesystem("proc", [], _INERT)
    root = _tmpfs(size=8 << 20, inodes=4_096, mode="0755", owner=None)
    # Any folder serves as the place of change; /proc exists wherever a sandbox can.
    kernel.attach(root, "/proc")
    os.fchdir(root)
    _lay_out(root, trees, links, files)
    kernel.pivot_root_here()
    kernel.unmount(".")
    os.chdir("/")
    copied_bytes = 0
    for tree in trees:
        kernel.attach(tree.descriptor, f"/{tree.place}")
        os.close(tree.descriptor)
        if not tree.is_folder and not tree.place.startswith("dev/"):
            copied_bytes += _copy(tree, _COPIES_BYTES_MAX - copied_bytes)
    empty = _tmpfs(size=4_096, inodes=1, mode="0755", owner=None, attributes=_INERT | _READ_ONLY)
    kernel.attach(empty, own_root.EMPTY)
    os.close(empty)
    kernel.change_tree(root, _READ_ONLY, recursive=False)
    os.close(root)
    kernel.attach(proc, "/proc")
    os.close(proc)


@contextlib.contextmanager
def workbench() -> Iterator[None]:
    """Give a zygote a small /tmp while it imports, for libraries that insist on one. No job sees it. Raises OSError."""
    place = _tmpfs(size=4 << 20, inodes=256, mode="0700", owner=None)
    kernel.attach(place, "/tmp")
    os.close(place)
    try:
        yield
    finally:
        kernel.unmount("/tmp")


def shown() -> tuple[Shown, ...]:
    """List what this zygote's cell shows of the host, for its children. Raises OSError."""
    return own_root.shown([*WRITABLE, "/in", "/proc"])


def furnish(folders: Mapping[str, int], limits: Limits, *, owner: int, shown: Sequence[Shown]) -> Opened:
    """Give one job its own root and places: private writable folders, its mounts under /in, its own masked /proc.

    folders  a detached tree for each mount, by name, and for each layer that is laid anew, by its place
    owner    the id that owns the writable folders
    shown    what the cell shows of the host. Raises OSError.
    """
    # First, while the cell's own is there: the kernel makes no other one where none can be seen whole.
    proc = kernel.new_filesystem("proc", [], _INERT | _READ_ONLY)
    places = {mount.place for mount in shown}
    # What is not a place any more was copied into the root.
    wanted = [name for name in folders if name[0] != "/" or name in places]
    trees = [(name, _veiled(name, folders[name], proc)) for name in wanted]
    root = own_root.build([mount for mount in shown if mount.place not in folders])
    opened = {}
    for place in WRITABLE:
        private = _tmpfs(size=limits.disk_bytes, inodes=limits.inodes, mode="0700", owner=owner)
        kernel.attach(private, place.lstrip("/"), folder=root)
        opened[place] = private
    _furnish_home(root)
    if trees:
        _furnish_mounts(trees, root)
    kernel.attach(proc, "proc", folder=root)
    os.close(proc)
    own_root.enter(root)
    os.close(root)
    _mask_proc()
    return Opened(
        scratch=opened["/scratch"],
        out=opened["/out"],
        shared_memory=opened["/dev/shm"],
        temporary=opened["/tmp"],
        proc=os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC),
    )


def _furnish_home(root: int) -> None:
    """Show /scratch as the home, too, where the profile has one: the same file system under a second name."""
    with contextlib.suppress(FileNotFoundError):
        os.stat(_HOME, dir_fd=root, follow_symlinks=False)
        home = kernel.clone_tree("scratch", folder=root)
        kernel.attach(home, _HOME, folder=root)
        os.close(home)


def _veiled(name: str, tree: int, proc: int) -> int:
    """Return an overlay of a detached folder where that is possible, otherwise the tree as it is.

    A plain mount tells its path on the host in /proc/self/mountinfo, and its files share locks with every
    other job. An overlay of it has neither. See `own_root` for where there is none.
    """
    if not is_folder(tree):
        return tree
    kernel.attach(tree, _LAYER)
    veiled = None
    if not _holds_mounts(proc):
        with contextlib.suppress(OSError):
            veiled = own_root.veil(_LAYER, inert=name[0] != "/")
    if veiled is None:
        veiled = kernel.clone_tree(_LAYER)
    os.chdir("/")
    kernel.unmount(_LAYER)
    os.close(tree)
    return veiled


def _holds_mounts(proc: int) -> bool:
    descriptor = os.open("self/mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    with os.fdopen(descriptor, encoding="utf-8") as source:
        return any(line.split()[4].startswith(f"{_LAYER}/") for line in source)


def _furnish_mounts(trees: Sequence[tuple[str, int]], root: int) -> None:
    places = _tmpfs(size=1 << 16, inodes=len(trees) + 8, mode="0755", owner=None)
    kernel.attach(places, "in", folder=root)
    for name, tree in trees:
        if not name.startswith("/"):
            os.mkdir(name, 0o755, dir_fd=places)
        kernel.attach(tree, name.lstrip("/") if name.startswith("/") else f"in/{name}", folder=root)
        os.close(tree)
    kernel.change_tree(places, _READ_ONLY, recursive=False)
    os.close(places)


def _mask_proc() -> None:
    said = os.listdir(_SAID)
    for entry in os.scandir("/proc"):
        if entry.name in _PROC_SHOWN or entry.name.isdigit():
            continue
        cover = "/.crank/none" if entry.is_dir(follow_symlinks=False) else "/.crank/nothing"
        if entry.name in said:
            cover = f"{_SAID}/{entry.name}"
        _cover(entry.path, cover)
    if os.path.exists(_BOOT_ID):
        _cover(_BOOT_ID, "/.crank/nothing")


def _cover(path: str, cover: str) -> None:
    tree = kernel.clone_tree(cover)
    kernel.attach(tree, path)
    os.close(tree)

"""The few kernel calls that the standard library does not offer, typed and with errors as OSError.

Everything here is a thin wrapper: no decision is made in this file. Numbers are those of the Linux
user-space headers named beside them.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from ctypes import c_char_p, c_int, c_long, c_uint, c_uint64, c_ulong

from crank.sandbox.syscalls import native

# linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

# linux/capability.h
CAP_SETGID = 6
CAP_SETUID = 7
CAP_SETPCAP = 8
CAP_SYS_CHROOT = 18
CAP_SYS_ADMIN = 21

# linux/mount.h
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_IDMAP = 0x00100000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

# linux/fcntl.h, linux/openat2.h
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08

_CAPABILITY_VERSION_3 = 0x20080522


class _MountAttr(ctypes.Structure):
    _fields_ = (("attr_set", c_uint64), ("attr_clr", c_uint64), ("propagation", c_uint64), ("userns_fd", c_uint64))


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", c_uint64), ("mode", c_uint64), ("resolve", c_uint64))


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", c_uint), ("pid", c_int))


class _CapSets(ctypes.Structure):
    _fields_ = (("effective", c_uint), ("permitted", c_uint), ("inheritable", c_uint))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = c_long
_libc.prctl.argtypes = (c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_libc.mount.argtypes = (c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_libc.umount2.argtypes = (c_char_p, c_int)
_libc.unshare.argtypes = (c_int,)
_numbers = native().numbers


def _checked(value: int, call: str) -> int:
    if value < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return value


def syscall(name: str, *args: object) -> int:
    """Make a system call by name. Raises OSError; ENOSYS where this machine has no such call."""
    if name not in _numbers:
        raise OSError(errno.ENOSYS, f"{name}: {os.strerror(errno.ENOSYS)}")
    converted = [c_long(arg) if isinstance(arg, int) else arg for arg in args]
    return _checked(int(_libc.syscall(c_long(_numbers[name]), *converted)), name)


def unshare(flags: int) -> None:
    """Leave the shared namespaces that the CLONE_NEW* flags name (unshare(2)). Raises OSError."""
    _checked(_libc.unshare(flags), "unshare")


def enter(namespace: int, kind: int) -> None:
    """Join the namespace behind a descriptor (setns(2)); kind is its CLONE_NEW* flag. Raises OSError."""
    syscall("setns", namespace, kind)


def prctl(option: int, second: int = 0, third: int = 0) -> int:
    """Call prctl(2). Raises OSError."""
    return _checked(_libc.prctl(option, second, third, 0, 0), "prctl")


def make_mounts_private() -> None:
    """Stop every mount of this namespace from being told to, or learning from, another namespace."""
    _checked(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount")


def unmount(path: str) -> None:
    """Detach the mount at path, at once for new lookups (umount2 with MNT_DETACH). Raises OSError."""
    _checked(_libc.umount2(os.fsencode(path), MNT_DETACH), "umount2")


def pivot_root_here() -> None:
    """Make the current folder, a mount point, the root; the old root lies beneath it until unmounted."""
    syscall("pivot_root", c_char_p(b"."), c_char_p(b"."))


def clone_tree(path: str, *, folder: int = AT_FDCWD, recursive: bool = True) -> int:
    """Copy the mounts at path into a detached tree and return its descriptor. An empty path means `folder`."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    return syscall("open_tree", folder, c_char_p(os.fsencode(path)), flags)


def change_tree(tree: int, attributes: int, *, user_namespace: int | None = None, recursive: bool = True) -> None:
    """Set MOUNT_ATTR_* on a mount and, unless told otherwise, all below it (mount_setattr(2)). Raises OSError."""
    attr = _MountAttr(attributes, 0, 0, 0)
    if user_namespace is not None:
        attr.attr_set |= MOUNT_ATTR_IDMAP
        attr.userns_fd = user_namespace
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall("mount_setattr", tree, c_char_p(b""), flags, ctypes.byref(attr), ctypes.sizeof(attr))


def new_filesystem(kind: str, options: Iterable[tuple[str, str | None]], attributes: int) -> int:
    """Make a filesystem and return the descriptor of its detached mount (fsopen(2), fsmount(2)).

    options  pairs of key and text, or key and None for a flag
    """
    context = syscall("fsopen", c_char_p(kind.encode()), FSOPEN_CLOEXEC)
    try:
        for key, value in options:
            command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
            text = None if value is None else c_char_p(value.encode())
            syscall("fsconfig", context, command, c_char_p(key.encode()), text or c_long(0), 0)
        syscall("fsconfig", context, _FSCONFIG_CMD_CREATE, c_long(0), c_long(0), 0)
        return syscall("fsmount", context, FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


def attach(tree: int, path: str, *, folder: int = AT_FDCWD) -> None:
    """Put a detached mount at path, relative to the folder's descriptor (move_mount(2)). Raises OSError."""
    syscall("move_mount", tree, c_char_p(b""), folder, c_char_p(os.fsencode(path)), MOVE_MOUNT_F_EMPTY_PATH)


def move(source: str, path: str, *, folder: int) -> None:
    """Move the mount at source, with all inside, to path, relative to the folder's descriptor. Raises OSError."""
    syscall("move_mount", AT_FDCWD, c_char_p(os.fsencode(source)), folder, c_char_p(os.fsencode(path)), 0)


def open_beneath(folder: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open a path that stays beneath the folder, following no link and leaving no mount (openat2(2))."""
    resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    return syscall("openat2", folder, c_char_p(path), ctypes.byref(how), ctypes.sizeof(how))


def send_signal(pidfd: int, number: int) -> None:
    """Send a signal to exactly the process behind a descriptor (pidfd_send_signal(2)). Raises OSError."""
    syscall("pidfd_send_signal", pidfd, number, c_long(0), 0)


def ask_for_short_turns() -> None:
    """Have this process get its turn sooner when it has slept, and shorter ones (sched(7), EEVDF's slice).

    Kernels before 6.12 take no notice. Raises OSError.
    """
    turn_ns = 100_000
    # struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period.
    wish = struct.pack("=IIQiIQQQ", 48, 0, 0, os.getpriority(os.PRIO_PROCESS, 0), 0, turn_ns, 0, 0)
    syscall("sched_setattr", 0, c_char_p(wish), 0)


def close_all_but(keep: Iterable[int]) -> None:
    """Close every descriptor except those named (close_range(2))."""
    low = 0
    for number in [*sorted(set(keep)), 0x7FFFFFFF]:
        if number > low:
            syscall("close_range", low, number - 1, 0)
        low = number + 1


def drop_bounding_set() -> None:
    """Give up, for this process and all it starts, every capability that a program could bring back."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(64):
        if _libc.prctl(PR_CAPBSET_READ, capability, 0, 0, 0) < 0:
            return
        prctl(PR_CAPBSET_DROP, capability)


def drop_capabilities() -> None:
    """Empty the effective, permitted and inheritable sets (capset(2)). Raises OSError."""
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    sets = (_CapSets * 2)()
    syscall("capset", ctypes.byref(header), ctypes.byref(sets))


def keep_capabilities(numbers: Iterable[int]) -> None:
    """Hold exactly these capabilities, and keep them across exec (capabilities(7), ambient set). Raises OSError."""
    held = [*numbers]
    mask = sum(1 << number for number in held)
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    sets = (_CapSets * 2)(_CapSets(mask & 0xFFFFFFFF, mask & 0xFFFFFFFF, mask & 0xFFFFFFFF))
    syscall("capset", ctypes.byref(header), ctypes.byref(sets))
    for number in held:
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def effective_capabilities() -> int:
    """Return the effective capability set as a bit mask (capget(2))."""
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    sets = (_CapSets * 2)()
    syscall("capget", ctypes.byref(header), ctypes.byref(sets))
    return int(sets[0].effective) | int(sets[1].effective) << 32


def argument_area() -> tuple[int, int]:
    """Return where the kernel finds this process's arguments: first and last address.

    Fields 48 and 49 of /proc/self/stat (proc_pid_stat(5)). A forked child has the same.
    """
    with open("/proc/self/stat", "rb") as source:
        fields = source.read().rpartition(b") ")[2].split()
    return int(fields[45]), int(fields[46])


def overwrite_arguments(area: tuple[int, int], title: str) -> None:
    """Put a title over this process's arguments, so that no one reads host paths in /proc/<pid>/cmdline."""
    start, end = area
    room = end - start
    if start > 0 and room > 1:
        text = title.encode()[: room - 1]
        ctypes.memset(start, 0, room)
        ctypes.memmove(start, text, len(text))


# linux/mman.h
_MADV_COLLAPSE = 25
_HUGE_BYTES = 2 << 20


def collapse_heap() -> None:
    """Gather this process's private memory in huge pages where the kernel can: a fork copies fewer entries.

    Best effort (madvise(2), MADV_COLLAPSE since Linux 6.1); nothing depends on it but speed.
    """
    for first, last in _private_areas():
        start, end = -(-first // _HUGE_BYTES) * _HUGE_BYTES, last // _HUGE_BYTES * _HUGE_BYTES
        if end > start:
            _libc.madvise(c_ulong(start), c_ulong(end - start), _MADV_COLLAPSE)


def _private_areas() -> list[tuple[int, int]]:
    areas = []
    with open("/proc/self/maps", encoding="utf-8") as source:
        for line in source:
            span, rights, _, _, inode, *_ = line.split()
            if rights == "rw-p" and inode == "0":
                first, _, last = span.partition("-")
                areas.append((int(first, 16), int(last, 16)))
    return areas

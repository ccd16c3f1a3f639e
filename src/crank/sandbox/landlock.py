"""Landlock: a second wall around files, TCP and abstract sockets that does not depend on mounts.

The mounts already say what may be written. Landlock says it again from another part of the kernel, so a
mistake in one is not a hole. Source: Linux `Documentation/userspace-api/landlock.rst`, `linux/landlock.h`.
"""

import ctypes
import errno
import os
from collections.abc import Iterable
from ctypes import c_int32, c_long, c_uint64

from crank.sandbox import kernel

_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_RULE_NET_PORT = 2

EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
# Device nodes, sockets and pipes with a name.
MAKE_NODES = 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11
_FILE_RIGHTS_ABI1 = (1 << 13) - 1
_REFER = 1 << 13
_TRUNCATE = 1 << 14
IOCTL_DEV = 1 << 15
_NET_BOTH = 0b11
_CONNECT_TCP = 0b10
_SCOPE_BOTH = 0b11

READ = READ_FILE | READ_DIR
# Rights that a file (not a folder) can carry; the kernel refuses the others on a file.
_ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | _TRUNCATE | IOCTL_DEV


class _RulesetAttr(ctypes.Structure):
    _fields_ = (("handled_access_fs", c_uint64), ("handled_access_net", c_uint64), ("scoped", c_uint64))


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", c_uint64), ("parent_fd", c_int32))


class _NetPortAttr(ctypes.Structure):
    _fields_ = (("allowed_access", c_uint64), ("port", c_uint64))


def abi() -> int:
    """Return the Landlock version of this kernel, 0 where there is none."""
    try:
        return kernel.syscall("landlock_create_ruleset", c_long(0), 0, _CREATE_RULESET_VERSION)
    except OSError as fault:
        if fault.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
            return 0
        raise


def file_rights(version: int) -> int:
    """Return every file right that a version of Landlock knows."""
    rights = _FILE_RIGHTS_ABI1
    rights |= _REFER if version >= 2 else 0
    rights |= _TRUNCATE if version >= 3 else 0
    rights |= IOCTL_DEV if version >= 5 else 0
    return rights


def restrict(rules: Iterable[tuple[str, int]], *, version: int, ports: Iterable[int] = ()) -> None:
    """Confine this process and all it starts to the rules: (path, rights) pairs. Raises OSError.

    Needs no_new_privs. From version 4 on every TCP bind is refused as well, and every connect but to `ports`;
    from version 6 on abstract Unix sockets and signals that leave the sandbox.
    """
    known = file_rights(version)
    attr = _RulesetAttr(known, _NET_BOTH if version >= 4 else 0, _SCOPE_BOTH if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = kernel.syscall("landlock_create_ruleset", ctypes.byref(attr), size, 0)
    try:
        for path, rights in rules:
            _allow(ruleset, path, rights & known)
        for port in ports if version >= 4 else ():
            open_port = _NetPortAttr(_CONNECT_TCP, port)
            kernel.syscall("landlock_add_rule", ruleset, _RULE_NET_PORT, ctypes.byref(open_port), 0)
        kernel.syscall("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        granted = rights if os.path.isdir(path) else rights & _ON_FILES
        attr = _PathBeneathAttr(granted, place)
        kernel.syscall("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, ctypes.byref(attr), 0)
    finally:
        os.close(place)

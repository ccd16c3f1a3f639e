"""Tries to get out of a sandbox, as a job: for `crank doctor`, which sends this file's text as its code.

System calls are made without Python's own functions, because what those refuse is a courtesy and no wall.
Standard library only. Each attempt says which errors mean that a wall held; anything else is told as it is.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_FORBIDDEN = (errno.EPERM, errno.ENOSYS)
_HIDDEN = (errno.ENOENT, errno.EACCES, errno.EPERM)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_ABSENT = (errno.ESRCH, errno.EPERM)
_FAMILIES = {"IPv4": 2, "IPv6": 10, "Unix": 1, "netlink": 16, "packet": 17, "crypto (AF_ALG)": 38, "vsock": 40}
_STREAM, _DATAGRAM = 1, 2
_NEWUSER = 0x10000000
# What each call would be given by somebody who means it; the filter must answer before the kernel looks.
_CALLS = (
    *("io_uring_setup", "bpf", "keyctl", "add_key", "userfaultfd", "perf_event_open", "process_vm_readv"),
    *("open_by_handle_at", "init_module", "kexec_load", "mount_setattr", "fsopen", "setns", "pidfd_getfd"),
)
_Attempt = tuple[str, str, "Callable[[], object]", tuple[int, ...]]


def _checked(value: int) -> int:
    if value < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return value


def _socket(family: int) -> None:
    os.close(_checked(_libc.socket(family, _STREAM, 0)))


def _call(number: int) -> None:
    zeros = [ctypes.c_long(0)] * 6
    _checked(_libc.syscall(ctypes.c_long(number), *zeros))


def _connect(port: int) -> None:
    sock = _checked(_libc.socket(_FAMILIES["IPv4"], _STREAM, 0))
    address = (2).to_bytes(2, "little") + port.to_bytes(2, "big") + bytes([127, 0, 0, 1]) + bytes(8)
    _checked(_libc.connect(sock, address, len(address)))


def _fork() -> None:
    pid = _checked(_libc.fork())
    if pid == 0:
        os._exit(0)


def _execute(program: str) -> None:
    path = os.fsencode(program)
    _checked(_libc.execv(path, (ctypes.c_char_p * 2)(path, None)))


def _write(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


def _read(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY))


def _network(host: dict[str, Any]) -> Iterator[_Attempt]:
    for name, family in _FAMILIES.items():
        yield "network", f"a socket of the family {name}", partial(_socket, family), _FORBIDDEN
    yield "network", "a listener on this host's loopback", lambda: _connect(host["port"]), _FORBIDDEN
    yield "network", "a datagram, as a name look-up sends", lambda: _checked(_libc.socket(2, _DATAGRAM, 0)), _FORBIDDEN


def _files(host: dict[str, Any]) -> Iterator[_Attempt]:
    for path in (host["canary"], f"/proc/1/root{host['canary']}", "/etc/shadow", "/etc/ssh/ssh_host_rsa_key"):
        yield "files", f"reading {path}", partial(_read, path), _HIDDEN
    for path in ("/dev/mem", "/dev/kmsg", "/dev/sda", "/dev/fuse"):
        yield "files", f"opening {path}", partial(_read, path), _HIDDEN
    for path in ("/crank-doctor", "/opt/crank-doctor", "/etc/passwd", host["site"] + "/crank_doctor.py"):
        yield "files", f"writing {path}", partial(_write, path), (*_READ_ONLY, errno.ENOENT)
    device = 0o020600, os.makedev(1, 1)
    yield "files", "making a device", lambda: os.mknod("doctor-device", *device), (*_FORBIDDEN, errno.EACCES)


def _processes(host: dict[str, Any]) -> Iterator[_Attempt]:
    for pid in host["pids"]:
        yield "processes", "a signal to a process of the host", partial(os.kill, pid, 0), _ABSENT
    if not host["forks"]:
        yield "processes", "a new process", _fork, _FORBIDDEN
    program = host["python"]
    yield "processes", "starting a program", lambda: _execute(program), (*_FORBIDDEN, errno.EACCES)


def _privilege(host: dict[str, Any]) -> Iterator[_Attempt]:
    yield "privilege", "becoming root", lambda: os.setuid(0), (*_FORBIDDEN, errno.EINVAL)
    yield "privilege", "another root folder", lambda: _checked(_libc.chroot(b"/scratch")), _FORBIDDEN
    yield "privilege", "a mount", lambda: _checked(_libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)), _FORBIDDEN
    yield "privilege", "a new user namespace", lambda: _checked(_libc.unshare(_NEWUSER)), _FORBIDDEN
    yield "privilege", "tracing a process", lambda: _checked(_libc.ptrace(16, 1, None, None)), _FORBIDDEN
    core = "/proc/sys/kernel/core_pattern"
    yield "privilege", "the host's core_pattern", lambda: _write(core), (*_READ_ONLY, errno.ENOENT)
    for name in _CALLS:
        if name in host["calls"]:
            yield "system calls", name, partial(_call, host["calls"][name]), _FORBIDDEN


def _facts() -> dict[str, Any]:
    with open("/proc/self/status", encoding="utf-8") as source:
        status = {name: value.strip() for name, _, value in (line.partition(":") for line in source)}
    opened = [name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")]
    # What it may never gain, the bounding set, is tried by every sandbox itself where its tier can empty it.
    held = ("CapInh", "CapPrm", "CapEff", "CapAmb")
    return {
        "capabilities": [name for name in held if int(status[name], 16)],
        "no_new_privs": status["NoNewPrivs"] == "1",
        "filtered": status["Seccomp"] == "2",
        "ids": sorted({os.getuid(), os.geteuid(), os.getgid(), os.getegid()}),
        "environment": dict(os.environ),
        "descriptors": sorted(map(int, opened)),
    }


def _try(attempts: Iterator[_Attempt]) -> Iterator[list[Any]]:
    for layer, what, trying, refusals in attempts:
        try:
            trying()
        except OSError as fault:
            name = errno.errorcode.get(fault.errno or 0, str(fault.errno))
            yield [layer, what, name, fault.errno in refusals]
        else:
            yield [layer, what, "it was allowed", False]


def attempt(host: dict[str, Any]) -> dict[str, Any]:
    """Try everything; return each attempt with the error that refused it, and whether a wall gives that error."""
    told = [each for kind in (_network, _files, _processes, _privilege) for each in _try(kind(host))]
    # Whoever gathers the files must not follow it.
    os.symlink(host["canary"], "/out/link")
    return {"attempts": told, "facts": _facts()}

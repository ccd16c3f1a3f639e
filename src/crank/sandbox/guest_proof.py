"""Inside the sandbox, before any line of the job: install the filter, then try every wall.

A wall that was asked for and does not stand is the worst fault a sandbox can have, because everything
still works. So each one is tried from here, where the job will stand. Standard library only.
"""

from __future__ import annotations

import _socket
import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SECCOMP_SET_MODE_FILTER = 1
_FLAG_NEW_LISTENER = 1 << 3
_INSTRUCTION_BYTES = 8
_CLONE_NEWUSER = 0x10000000
# The last one is /scratch under a second name, in profiles that have a home.
_WRITABLE = {"/scratch", "/out", "/tmp", "/dev/shm", "/home/user"}
# Standard input, output and error, and the two pipes.
_DESCRIPTORS = {"0", "1", "2", "3", "4"}


class _Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


_libc = ctypes.CDLL(None, use_errno=True)


def install(program: bytes, *, number: int, notify: bool) -> int | None:
    """Install the system call filter for this process and all it starts. Raises OSError.

    number  of the call seccomp(2) on this machine
    notify  return a descriptor on which somebody else is asked about the calls that the filter does not decide
    """
    holder = _Program(len(program) // _INSTRUCTION_BYTES, program)
    flags = _FLAG_NEW_LISTENER if notify else 0
    value = _libc.syscall(
        ctypes.c_long(number), ctypes.c_long(_SECCOMP_SET_MODE_FILTER), ctypes.c_long(flags), ctypes.byref(holder)
    )
    if value < 0:
        fault = ctypes.get_errno()
        raise OSError(fault, os.strerror(fault))
    return int(value) if notify else None


def _status() -> dict[str, str]:
    with open("/proc/self/status", encoding="utf-8") as source:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in source)}


def _refused(attempt: Callable[[], object], expected: tuple[int, ...], what: str) -> str | None:
    try:
        attempt()
    except OSError as fault:
        if fault.errno in expected:
            return None
        return f"{what} answered {errno.errorcode.get(fault.errno or 0, fault.errno)}"
    return f"{what} was allowed"


def _leave_namespace() -> None:
    if _libc.unshare(_CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _check_identity(status: dict[str, str]) -> str | None:
    if 0 in (os.getuid(), os.geteuid(), os.getgid(), os.getegid()):
        return "the job would run as root"
    return None


def _check_capabilities(status: dict[str, str]) -> str | None:
    held = [name for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if int(status[name], 16)]
    return f"{', '.join(held)} not empty" if held else None


def _check_no_new_privs(status: dict[str, str]) -> str | None:
    return None if status["NoNewPrivs"] == "1" else "NoNewPrivs is not set"


def _check_seccomp(status: dict[str, str]) -> str | None:
    if status["Seccomp"] != "2":
        return "no filter is installed"
    for family in (_socket.AF_INET, _socket.AF_UNIX, 16, 38, 40):
        cause = _refused(
            lambda family=family: _socket.socket(family, _socket.SOCK_STREAM),  # type: ignore[misc]
            (errno.EPERM,),
            f"socket family {family}",
        )
        if cause:
            return cause
    return _refused(_leave_namespace, (errno.EPERM,), "unshare")


def _check_mounts(status: dict[str, str]) -> str | None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    cause = _refused(lambda: os.open("/crank-proof", flags, 0o600), (errno.EROFS,), "writing to the root")
    if cause:
        return cause
    with open("/proc/self/mountinfo", encoding="utf-8") as source:
        for line in source:
            fields = line.split()
            if fields[4] not in _WRITABLE and "ro" not in fields[5].split(",") and not fields[4].startswith("/dev/"):
                return f"{fields[4]} is writable"
    return None


def _check_landlock(status: dict[str, str]) -> str | None:
    # The mounts allow this one; only Landlock refuses it.
    return _refused(lambda: os.open("/dev/random", os.O_WRONLY), (errno.EACCES,), "writing to /dev/random")


def _check_namespaces(status: dict[str, str]) -> str | None:
    seen = {name for name in os.listdir("/proc") if name.isdigit()}
    strangers = seen - {"1", str(os.getpid())}
    return f"other processes are visible: {sorted(strangers)[:5]}" if strangers else None


def _check_network(status: dict[str, str]) -> str | None:
    with open("/proc/self/net/dev", encoding="utf-8") as source:
        names = {line.partition(":")[0].strip() for line in source if ":" in line}
    return f"network interfaces are visible: {sorted(names)[:5]}" if names - {"lo"} else None


def _check_descriptors(status: dict[str, str]) -> str | None:
    extra = [name for name in os.listdir("/proc/self/fd") if name not in _DESCRIPTORS and _is_open(name)]
    return f"unexpected descriptors are open: {extra[:5]}" if extra else None


def _is_open(name: str) -> bool:
    # The descriptor of the listing itself is gone by now.
    return os.path.lexists(f"/proc/self/fd/{name}")


_CHECKS = {
    "identity": _check_identity,
    "capabilities": _check_capabilities,
    "no_new_privs": _check_no_new_privs,
    "seccomp": _check_seccomp,
    "mounts": _check_mounts,
    "landlock": _check_landlock,
    "namespaces": _check_namespaces,
    "network": _check_network,
    "descriptors": _check_descriptors,
}


def examine(*, landlock: bool, environment: list[str]) -> tuple[dict[str, str], list[str]]:
    """Try every wall. Return those that do not stand, each with its cause, and the names of those that do."""
    missing: dict[str, str] = {}
    standing: list[str] = []
    status = _status()
    for layer, check in _CHECKS.items():
        if layer == "landlock" and not landlock:
            continue
        cause = check(status)
        if cause:
            missing[layer] = cause
        else:
            standing.append(layer)
    strangers = sorted(set(os.environ) - set(environment))
    if strangers:
        missing["environment"] = f"undeclared variables: {strangers[:5]}"
    return missing, standing

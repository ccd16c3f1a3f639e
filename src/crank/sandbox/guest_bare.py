"""Inside a sandbox without namespaces, before any line of the job: install the filter, then try every wall.

What is tried here would succeed without the wall that is meant: the files can be read by this account, the
process that is signalled is its own, and it has just been shown so by whoever made them. Standard library only.
"""

from __future__ import annotations

import _socket
import ctypes
import errno
import os
import resource
import struct

from crank.sandbox import guest_proof

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Stands in a filter where the number of the process belongs that installs it (`seccomp.OWN_PID`).
OWN_PID = 0x7FFFC0DE
# A file beside the jobs' folders that their account may read and no job may: whoever can has no Landlock around it.
WITNESS = "witness"
_CLONE_NEWUSER = 0x10000000
_FAMILIES = (_socket.AF_INET, _socket.AF_INET6, _socket.AF_UNIX, 16, 17, 38, 40)
_DENIED = (errno.EACCES,)
_libc = ctypes.CDLL(None, use_errno=True)


class BareProof:
    """What is tried, for one job.

    base         the zygote's own folder, in which a file lies that this account may read and that no rule grants
    root         the profile's folder, which may be read and not be written; None in a rehearsal
    scratch      the job's own folder
    parent       the job's init: a process of the same account, outside the job's walls
    descriptors  what may be open
    then         called when all has been tried
    """

    def __init__(
        self,
        base: str,
        *,
        root: str | None,
        scratch: str,
        parent: int,
        descriptors: frozenset[str] = frozenset({"0", "1", "2", "3", "4"}),
        then: Callable[[], None] = lambda: None,
    ) -> None:
        self._base = base
        self._root = root
        self._scratch = scratch
        self._parent = parent
        self._known = descriptors
        self._then = then

    def install(self, program: bytes, *, number: int, notify: bool) -> int | None:
        """Install the filter with this process's own number in it; see `guest_proof.install`."""
        own, mark = struct.pack("=I", os.getpid()), struct.pack("=I", OWN_PID)
        instructions = (program[start : start + 8] for start in range(0, len(program), 8))
        filled = b"".join(each[:4] + own if each[4:] == mark else each for each in instructions)
        return guest_proof.install(filled, number=number, notify=notify)

    def examine(self, *, landlock: bool, environment: list[str]) -> tuple[dict[str, str], list[str]]:
        """Try every wall. Return those that do not stand, each with its cause, and the names of those that do."""
        missing: dict[str, str] = {}
        standing: list[str] = []
        status = _status()
        for layer, check in (
            ("identity", _check_identity),
            ("capabilities", _check_capabilities),
            ("no_new_privs", _check_no_new_privs),
            ("seccomp", _check_seccomp),
            ("landlock", self._check_landlock),
            ("processes", self._check_processes),
            ("limits", _check_limits),
            ("descriptors", self._check_descriptors),
        ):
            cause = check(status)
            if cause:
                missing[layer] = cause
            else:
                standing.append(layer)
        strangers = sorted(set(os.environ) - set(environment))
        if strangers:
            missing["environment"] = f"undeclared variables: {strangers[:5]}"
        self._then()
        return missing, standing

    def _check_landlock(self, status: dict[str, str]) -> str | None:
        making = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        own = os.path.join(self._scratch, ".crank-proof")
        try:
            os.close(os.open(own, making, 0o600))
            os.unlink(own)
        except OSError as fault:
            return f"the job's own folder cannot be written: {fault}"
        witness, beside = (os.path.join(self._base, name) for name in (WITNESS, ".crank-proof"))
        attempts: list[tuple[str, Callable[[], object]]] = [
            ("reading a file that no rule grants", lambda: os.open(witness, os.O_RDONLY)),
            ("reading /etc/passwd", lambda: os.open("/etc/passwd", os.O_RDONLY)),
            ("making a file beside its folders", lambda: os.open(beside, making, 0o600)),
            ("listing the root of the host", lambda: os.listdir("/")),
            ("listing the processes of the host", lambda: os.listdir("/proc")),
            ("reading another process's file", lambda: os.open(f"/proc/{self._parent}/status", os.O_RDONLY)),
        ]
        if self._root is not None:
            in_root = os.path.join(self._root, ".crank-proof")
            attempts.append(("writing to the profile", lambda: os.open(in_root, making, 0o600)))
        for what, attempt in attempts:
            cause = _refused(attempt, (*_DENIED, errno.ENOENT) if what == "reading /etc/passwd" else _DENIED, what)
            if cause:
                return cause
        return None

    def _check_processes(self, status: dict[str, str]) -> str | None:
        """Nothing may reach the init, which has the same account and so nothing else between."""
        attempts: list[tuple[str, Callable[[], object]]] = [
            ("signalling another process", lambda: os.kill(self._parent, 0)),
            ("changing another's priority", lambda: os.setpriority(os.PRIO_PROCESS, self._parent, 1)),
            ("changing the account's priority", lambda: os.setpriority(os.PRIO_USER, 0, 1)),
            ("moving another process", lambda: os.sched_setaffinity(self._parent, {0})),
            ("limiting another process", lambda: resource.prlimit(self._parent, resource.RLIMIT_CORE, (0, 0))),
            ("changing a file's mode", lambda: os.chmod(self._scratch, 0o700)),
            ("changing a file's times", lambda: os.utime(self._scratch)),
        ]
        for what, attempt in attempts:
            cause = _refused(attempt, (errno.EPERM,), what)
            if cause:
                return cause
        return None


    def _check_descriptors(self, status: dict[str, str]) -> str | None:
        strangers = [name for name in os.listdir("/proc/self/fd") if name not in self._known]
        # The descriptor of the listing itself is gone by now.
        extra = [name for name in strangers if os.path.lexists(f"/proc/self/fd/{name}")]
        return f"unexpected descriptors are open: {extra[:5]}" if extra else None


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
    ids = {int(number) for name in ("Uid", "Gid") for number in status[name].split()}
    return "the job would run as root" if 0 in ids else None


def _check_capabilities(status: dict[str, str]) -> str | None:
    # What the bounding set leaves open, no_new_privs closes: nobody without privilege can empty that set.
    held = [name for name in ("CapInh", "CapPrm", "CapEff", "CapAmb") if int(status[name], 16)]
    return f"{', '.join(held)} not empty" if held else None


def _check_no_new_privs(status: dict[str, str]) -> str | None:
    return None if status["NoNewPrivs"] == "1" else "NoNewPrivs is not set"


def _check_seccomp(status: dict[str, str]) -> str | None:
    if status["Seccomp"] != "2":
        return "no filter is installed"
    for family in _FAMILIES:
        for kind in (_socket.SOCK_STREAM, _socket.SOCK_DGRAM, _socket.SOCK_RAW):
            cause = _refused(
                lambda family=family, kind=kind: _socket.socket(family, kind),  # type: ignore[misc]
                (errno.EPERM,),
                f"socket family {family}",
            )
            if cause:
                return cause
    return _refused(_leave_namespace, (errno.EPERM,), "unshare")


def _check_limits(status: dict[str, str]) -> str | None:
    for name in ("RLIMIT_FSIZE", "RLIMIT_CPU", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_CORE"):
        if resource.getrlimit(getattr(resource, name))[1] == resource.RLIM_INFINITY:
            return f"{name} is not limited"
    return None



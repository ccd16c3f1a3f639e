"""Namespaces: a job sees its own users, mounts, processes, host name, network and control group.

Two ways lead there. With privilege, everything but the user namespace belongs to the host's own user
namespace, so even full capabilities inside the job's would not govern it; the job's is made last and
maps one unprivileged id. Without privilege, the user namespace comes first and owns the others.
"""

import contextlib
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from crank.errors import SandboxError
from crank.sandbox import kernel

INSIDE_ID = 1000
HOST_NAME = "crank"

SHARED_NOTHING = (
    kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWCGROUP
)

_CAP_SETGID, _CAP_SETUID, _CAP_SYS_ADMIN = 1 << 6, 1 << 7, 1 << 21
_PRIVILEGE = _CAP_SETGID | _CAP_SETUID | _CAP_SYS_ADMIN

_SLOT_FIRST_ID = 200_000
SLOTS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the job is on the host: an id of its own (privileged), or the caller's (rootless)."""

    uid: int
    gid: int
    privileged: bool


def is_privileged() -> bool:
    """Tell whether this process holds what the privileged way needs."""
    return kernel.effective_capabilities() & _PRIVILEGE == _PRIVILEGE


def slot_base(id_map: str) -> int:
    """Return the first host id for slots, given the text of /proc/self/uid_map.

    In a container the usual range may not exist; then the top of what exists is used.
    """
    spans = [tuple(map(int, line.split())) for line in id_map.splitlines()]
    for inside, _, count in spans:
        if inside <= _SLOT_FIRST_ID and inside + count >= _SLOT_FIRST_ID + SLOTS_MAX:
            return _SLOT_FIRST_ID
    inside, _, count = max(spans, key=lambda span: span[0] + span[2])
    if count <= 2 * SLOTS_MAX:
        raise SandboxError(
            "There are too few user ids here to give every job one of its own.",
            code="layer_user_ids",
            fix="Give the container a range of at least 65536 user ids, or run the worker as an ordinary user.",
        )
    return inside + count - SLOTS_MAX - 1_000


class Slots:
    """Hands out identities, one to each running session, none to two at a time on this machine.

    A slot is claimed by an abstract socket name: the kernel keeps it unique and frees it with the process.
    """

    def __init__(self, *, privileged: bool) -> None:
        self._privileged = privileged
        self._base = slot_base(Path("/proc/self/uid_map").read_text()) if privileged else 0
        self._claims: dict[int, socket.socket] = {}

    def claim(self) -> Identity:
        """Return a free identity. Raises SandboxError when all are taken."""
        if not self._privileged and os.geteuid() == 0:
            raise SandboxError(
                "Jobs would run as the host's root: this account is root, but may not map other ids.",
                code="layer_capabilities",
                fix="Start the worker as root with its usual capabilities, or as an ordinary user.",
            )
        if not self._privileged:
            return Identity(os.geteuid(), os.getegid(), privileged=False)
        for number in range(SLOTS_MAX):
            if number in self._claims:
                continue
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                claim.bind(f"\0crank.sandbox.slot.{self._base + number}")
            except OSError:
                claim.close()
                continue
            self._claims[number] = claim
            return Identity(self._base + number, self._base + number, privileged=True)
        raise SandboxError("Every sandbox slot of this machine is in use.", code="slots_full")

    def release(self, identity: Identity) -> None:
        """Give an identity back."""
        claim = self._claims.pop(identity.uid - self._base, None) if identity.privileged else None
        if claim is not None:
            claim.close()


def write_maps(pid: int, identity: Identity) -> None:
    """Map exactly one id, inside 1000, for a process that has just made its user namespace.

    Written by its parent in the outer namespace (user_namespaces(7)). Raises OSError.
    """
    folder = f"/proc/{pid}"
    if not identity.privileged:
        # The kernel lets an ordinary user map a group only after setgroups is given up for good.
        _write(f"{folder}/setgroups", "deny")
    _write(f"{folder}/uid_map", f"{INSIDE_ID} {identity.uid} 1")
    _write(f"{folder}/gid_map", f"{INSIDE_ID} {identity.gid} 1")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def owner_map(owner_uid: int, owner_gid: int, identity: Identity) -> int:
    """Return a user namespace that says "what this owner has on disk belongs to the job's identity".

    For MOUNT_ATTR_IDMAP (mount_setattr(2)). Needs privilege. Raises OSError.
    """
    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _hold_namespace(ready_write)
    try:
        os.close(ready_write)
        if os.read(ready_read, 1) != b"y":
            raise OSError("a user namespace could not be made")
        _write(f"/proc/{pid}/uid_map", f"{owner_uid} {identity.uid} 1")
        _write(f"/proc/{pid}/gid_map", f"{owner_gid} {identity.gid} 1")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_read)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _hold_namespace(ready: int) -> None:
    with contextlib.suppress(OSError):
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        kernel.unshare(kernel.CLONE_NEWUSER)
        os.write(ready, b"y")
        while True:
            signal.pause()
    os._exit(1)

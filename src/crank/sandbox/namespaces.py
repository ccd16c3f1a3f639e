"""Namespaces: a job sees its own users, mounts, processes, host name, network and control group.

There are two user namespaces, one in the other. The outer is the zygote's: it maps a range of ids that own
nothing (with privilege) or the caller's one id (without), and it owns every mount, process and network
namespace inside. The inner is the job's: made last, mapping one id, so that even full capabilities in it
would govern none of its walls. The host's root has no name in either.
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

# What a zygote's cell has of its own; its process and network namespaces are parents of the children's.
NEST = (
    kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWCGROUP
)
# What each child makes anew. Its process namespace is made by the fork, its network is one that is empty
# and that no other living child has: making one costs more than all the rest together.
CHILD = kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS | kernel.CLONE_NEWCGROUP

_CAP_SETGID, _CAP_SETUID, _CAP_SYS_ADMIN = 1 << 6, 1 << 7, 1 << 21
_PRIVILEGE = _CAP_SETGID | _CAP_SETUID | _CAP_SYS_ADMIN

_SLOT_FIRST_ID = 200_000
_SLOT_IDS = 1_000
# The last two ids of the range are the zygotes' and the worker's own.
SLOTS_MAX = _SLOT_IDS - 2
# Where the range begins inside a zygote's user namespace.
_INSIDE_FIRST = 2_000


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a process is on the host, and which id that is inside the zygote's user namespace.

    With privilege an id of its own, without the caller's.
    """

    uid: int
    gid: int
    inside: int
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
        if inside <= _SLOT_FIRST_ID and inside + count >= _SLOT_FIRST_ID + _SLOT_IDS:
            return _SLOT_FIRST_ID
    inside, _, count = max(spans, key=lambda span: span[0] + span[2])
    if count <= 2 * _SLOT_IDS:
        raise SandboxError(
            "There are too few user ids here to give every job one of its own.",
            code="layer_user_ids",
            fix="Give the container a range of at least 65536 user ids, or run the worker as an ordinary user.",
        )
    return inside + count - _SLOT_IDS - 1_000


class Slots:
    """Hands out identities, one to each running session, none to two at a time on this machine.

    A slot is claimed by an abstract socket name: the kernel keeps it unique and frees it with the process.
    """

    def __init__(self, *, privileged: bool) -> None:
        self._privileged = privileged
        self._base = slot_base(Path("/proc/self/uid_map").read_text()) if privileged else 0
        self._claims: dict[int, socket.socket] = {}

    @property
    def nest(self) -> Identity:
        """Return who zygotes are."""
        if self._privileged:
            return self._identity(_SLOT_IDS - 1)
        return Identity(os.geteuid(), os.getegid(), INSIDE_ID, privileged=False)

    @property
    def worker(self) -> Identity:
        """Return who a worker becomes that was started as root."""
        return self._identity(_SLOT_IDS - 2) if self._privileged else self.nest

    def _identity(self, number: int) -> Identity:
        return Identity(self._base + number, self._base + number, _INSIDE_FIRST + number, privileged=True)

    def claim(self) -> Identity:
        """Return a free identity. Raises SandboxError when all are taken."""
        if not self._privileged and os.geteuid() == 0:
            raise SandboxError(
                "Jobs would run as the host's root: this account is root, but may not map other ids.",
                code="layer_capabilities",
                fix="Start the worker as root with its usual capabilities, or as an ordinary user.",
            )
        if not self._privileged:
            return self.nest
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
            return self._identity(number)
        raise SandboxError("Every sandbox slot of this machine is in use.", code="slots_full")

    def release(self, identity: Identity) -> None:
        """Give an identity back."""
        claim = self._claims.pop(identity.uid - self._base, None) if identity.privileged else None
        if claim is not None:
            claim.close()


def write_maps(pid: int, identity: Identity) -> None:
    """Map the ids of a zygote's user namespace, for a process that has just made it.

    With privilege the whole range of slots, else the caller's one id. Written from the outer namespace
    (user_namespaces(7)). Raises OSError.
    """
    folder = f"/proc/{pid}"
    first, base, count = INSIDE_ID, identity.uid, 1
    if identity.privileged:
        first, base, count = _INSIDE_FIRST, identity.uid - (identity.inside - _INSIDE_FIRST), _SLOT_IDS
    # For good: nobody inside may change supplementary groups. The kernel wants it of an ordinary user anyway.
    _write(f"{folder}/setgroups", "deny")
    _write(f"{folder}/uid_map", f"{first} {base} {count}")
    _write(f"{folder}/gid_map", f"{first} {base if identity.privileged else identity.gid} {count}")


def map_own_id(proc: int, inside: int) -> None:
    """Map one id, the job's, in the user namespace that this process has just made.

    proc    a writable /proc of the outer namespace's processes
    inside  the id that this process has in the outer namespace. Raises OSError.
    """
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{INSIDE_ID} {inside} 1"),
        ("gid_map", f"{INSIDE_ID} {inside} 1"),
    ):
        descriptor = os.open(f"self/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


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

"""What Docker's default profile takes from a process, taken for good: namespaces, mounts, and root's larger powers.

Run as a program by the tests: `python -m tests.support.docker_like TIER ROOTFS [CALL...]` takes all that away,
and those system calls as well (but nothing at all for the word `nothing`), starts a runner of the strongest tier
down to TIER, runs the job on its standard input, and prints what came of it as one JSON line.
"""

import asyncio
import ctypes
import errno
import json
import struct
import sys
from pathlib import Path
from typing import Any

from crank.domain.isolation import Tier
from crank.domain.profile import Limits
from crank.errors import SandboxError
from crank.ports import SandboxSpec
from crank.sandbox import kernel, seccomp, syscalls
from crank.sandbox.tiers import RUNNERS, strongest
from tests.support.rootfs import make_build

_LOAD, _IF_EQUAL, _IF_BITS, _RETURN = 0x20, 0x15, 0x45, 0x06
_REFUSED = "unshare setns mount umount2 pivot_root open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr"
_CLONE_NAMESPACES = 0x7E020000
# chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod,
# audit_write, setfcap: what root keeps in a container that nobody gave more.
_KEPT = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}
_CAPABILITIES = 41


def take_away(*more: str) -> None:
    """Take namespaces, mounts, capabilities and more calls from this process and all it starts. Raises OSError."""
    if kernel.effective_capabilities():
        for number in set(range(_CAPABILITIES)) - _KEPT:
            kernel.prctl(kernel.PR_CAPBSET_DROP, number)
        kernel.keep_capabilities(_KEPT)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    machine = syscalls.native()
    refuse = (_RETURN, 0, 0, seccomp.refuse(errno.EPERM))
    code = [(_LOAD, 0, 0, 0)]
    for name in more:
        code += [(_IF_EQUAL, 0, 1, machine.numbers[name]), (_RETURN, 0, 0, seccomp.refuse(errno.ENOSYS))]
    for name in _REFUSED.split():
        code += [(_IF_EQUAL, 0, 1, machine.numbers[name]), refuse]
    code += [(_IF_EQUAL, 0, 1, machine.numbers["clone3"]), (_RETURN, 0, 0, seccomp.refuse(errno.ENOSYS))]
    code += [(_IF_EQUAL, 0, 3, machine.numbers["clone"]), (_LOAD, 0, 0, 16), (_IF_BITS, 0, 1, _CLONE_NAMESPACES), refuse]
    code += [(_RETURN, 0, 0, seccomp.ALLOW)]
    program = ctypes.create_string_buffer(seccomp.pack(code))
    head = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(code), ctypes.addressof(program)))
    kernel.syscall("seccomp", 1, 0, head)


class _Nobody:
    def output(self, stream: str, text: str, offset_bytes: int, at_sec: float) -> None:
        """Drop it."""

    def progress(self, fraction: float | None, message: str) -> None:
        """Drop it."""


async def _run(lowest: Tier, rootfs: Path, code: str) -> dict[str, Any]:
    link = await asyncio.to_thread(strongest, lowest)
    runner = RUNNERS[link.tier](link, parked=0)
    try:
        await runner.start()
        session = await runner.open(SandboxSpec(make_build(rootfs), Limits(wall_sec=10.0)))
        outcome = await session.run_python(code, None, _Nobody())
        await session.close()
    finally:
        await runner.stop()
    return {
        "tier": outcome.tier,
        "result": outcome.result,
        "notes": outcome.notes,
        "layers": outcome.layers,
        "end": outcome.end.message,
    }


def main() -> None:
    """Take away, run, tell."""
    if "nothing" not in sys.argv[3:]:
        take_away(*sys.argv[3:])
    try:
        told = asyncio.run(_run(Tier(sys.argv[1]), Path(sys.argv[2]), sys.stdin.read()))
    except SandboxError as fault:
        told = {"code": fault.error_code, "message": fault.message, "fix": fault.fix}
    print(json.dumps(told))


if __name__ == "__main__":
    main()

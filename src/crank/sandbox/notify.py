"""Refused system calls as evidence: the kernel asks the supervisor, who refuses, and remembers what it was.

The filter itself could refuse alone; asking costs nothing until somebody tries. The answer is always no, so
nothing here depends on memory that the job could change meanwhile. When nobody is left to answer, the kernel
refuses by itself (seccomp_unotify(2)).
"""

import errno
import fcntl
import os
import select
import struct
import time

from crank.sandbox import guest_proof, kernel
from crank.sandbox.syscalls import native

# struct seccomp_notif: id, pid, flags, then struct seccomp_data: nr, arch, instruction pointer, six arguments.
_ASKED = struct.Struct("=QIIiIQ6Q")
# struct seccomp_notif_resp: id, val, error, flags.
_ANSWER = struct.Struct("=QqiI")
_RECEIVE, _SEND = 0xC0502100, 0xC0182101

# So many are answered at once; a job that asks on and on waits for the next look.
_BURST = 100
_PAUSE_SEC = 0.01

_NETWORK = frozenset({"socket", "connect", "accept", "accept4", "bind", "listen"})
_FAMILIES = {1: "AF_UNIX", 2: "AF_INET", 10: "AF_INET6", 16: "AF_NETLINK", 17: "AF_PACKET", 38: "AF_ALG", 40: "AF_VSOCK"}
_NAMES = {number: name for name, number in native().numbers.items()}


class Refusals:
    """The listening end of one filter."""

    def __init__(self, listener: int) -> None:
        self.listener = listener
        self._waiting = select.poll()
        self._waiting.register(listener, select.POLLIN)
        self._paused_until = 0.0

    @property
    def paused_until(self) -> float:
        """Return when to look again, a moment in the past when there is no pause."""
        return self._paused_until

    def answer(self) -> list[tuple[str, str]]:
        """Refuse what waits now; return (layer, what was tried) of each. Never raises."""
        refused: list[tuple[str, str]] = []
        now = time.monotonic()
        if now < self._paused_until:
            return refused
        for _ in range(_BURST):
            # Asking for the next waits for it, whatever the descriptor's flags say: so look before.
            if not any(event & select.POLLIN for _, event in self._waiting.poll(0)):
                return refused
            asked = bytearray(_ASKED.size)
            try:
                fcntl.ioctl(self.listener, _RECEIVE, asked)
                number = _ASKED.unpack(asked)[0]
                fcntl.ioctl(self.listener, _SEND, _ANSWER.pack(number, 0, -errno.EPERM, 0))
            except OSError as fault:
                if fault.errno == errno.ENOENT:
                    # Whoever asked was killed while it waited.
                    continue
                return refused
            refused.append(_told(asked))
        self._paused_until = now + _PAUSE_SEC
        return refused

    def close(self) -> None:
        """Stop listening; from now on the kernel refuses alone."""
        os.close(self.listener)


def _told(asked: bytearray) -> tuple[str, str]:
    _, _, _, number, _, _, first, *_ = _ASKED.unpack(asked)
    name = _NAMES.get(number, f"system call {number}")
    if name == "socket":
        family = first & 0xFFFFFFFF
        return "network", f"socket {_FAMILIES.get(family, family)}"
    return ("network" if name in _NETWORK else "seccomp"), name


def works() -> bool:
    """Tell whether a filter with a listener can be installed here, by doing it in a process that ends at once."""
    pid = os.fork()
    if pid == 0:
        allow_all = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
        try:
            kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
            guest_proof.install(allow_all, number=native().numbers["seccomp"], notify=True)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0

"""Inside the sandbox: what stands around a job, told to it in sentences, and what it asked for, remembered.

No wall: the walls are the filter, Landlock and the empty namespaces. Standard library only.
"""

from __future__ import annotations

import errno
from typing import Any, NamedTuple

_TOLD_MAX = 20

_NETWORK_CLOSED = (
    "The network is closed by design: jobs have no sockets. Pass what the job needs as args, files or mounts."
)
_NO_PROCESSES = "This profile starts no processes; threads work. A profile that lists programs can."
_NO_PROGRAMS = "This profile starts no programs. A profile that lists programs can start exactly those."
_NETWORK_EVENTS = frozenset(
    {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.connect", "socket.sendto"}
)
_FORK_EVENTS = frozenset({"os.fork", "os.forkpty"})
_PROGRAM_EVENTS = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pty.spawn"})


class Walls(NamedTuple):
    """What stands around this process, and what it may still do.

    program    the system call filter to install, as an array of struct sock_filter
    number     of the call that installs it, on this machine
    notify     the supervisor is asked about, and remembers, what the filter refuses
    landlock   whether this kernel has Landlock, and so must have been asked
    processes  whether the job may fork
    programs   whether it may start programs
    """

    program: bytes
    number: int
    notify: bool
    landlock: bool
    processes: bool
    programs: bool


class Watcher:
    """An audit hook (PEP 578) that turns bare refusals into sentences and remembers what was asked.

    No wall: the walls are the filter and the empty namespace. Its notes are the job's own word.
    """

    def __init__(self, walls: Walls) -> None:
        self._walls = walls
        self.told: list[list[str]] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Refuse with a sentence what the walls would refuse with a number."""
        if event == "socket.__new__":
            if args[1] != 1:
                self.remember("network", "open a socket")
                raise PermissionError(errno.EPERM, _NETWORK_CLOSED)
        elif event in _NETWORK_EVENTS:
            self.remember("network", _asked(event, args))
            raise PermissionError(errno.EPERM, _NETWORK_CLOSED)
        elif event in _FORK_EVENTS and not self._walls.processes:
            raise PermissionError(errno.EPERM, _NO_PROCESSES)
        elif event in _PROGRAM_EVENTS and not self._walls.programs:
            raise PermissionError(errno.EPERM, _NO_PROGRAMS)

    def remember(self, layer: str, action: str) -> None:
        """Keep that a layer refused something, once."""
        told = [layer, action[:200].encode("utf-8", "backslashreplace").decode("utf-8")]
        if told not in self.told and len(self.told) < _TOLD_MAX:
            self.told.append(told)


def _asked(event: str, args: tuple[Any, ...]) -> str:
    """Say in words what of the network was asked for."""
    if event in ("socket.connect", "socket.sendto"):
        address = args[1]
        place = ":".join(map(str, address[:2])) if isinstance(address, tuple) else str(address)
        return f"connect to {place}"
    port = args[1] if event == "socket.getaddrinfo" and len(args) > 1 and args[1] else None
    host = args[0].decode("utf-8", "replace") if isinstance(args[0], bytes) else str(args[0])
    return f"look up {host}:{port}" if port else f"look up {host}"

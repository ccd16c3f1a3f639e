"""What the rest of the sandbox knows of control groups, whichever version they are."""

from typing import Protocol

from crank.sandbox.cgroup_folder import REMOVE_SEC, Reading


class Group(Protocol):
    """One session's group."""

    def join(self, pid: int) -> None:
        """Move a process, and all it starts from now on, into the group. Raises OSError."""
        ...

    def doors(self) -> list[int]:
        """Open what a process that cannot see the hierarchy writes "0" to, to join. Raises OSError."""
        ...

    def limit_memory(self, memory_bytes: int) -> None:
        """Change the memory limit. Raises OSError, also when the job uses more already."""
        ...

    def read(self) -> Reading:
        """Return the counters. Raises OSError."""
        ...

    def used_bytes(self) -> int:
        """Return how much memory the group uses now. Raises OSError."""
        ...

    def members(self) -> list[int]:
        """Return the processes in the group, as the host numbers them."""
        ...

    def is_bare(self) -> bool:
        """Tell whether no group lies in this one. Raises OSError."""
        ...

    def kill(self) -> None:
        """Kill every member until none is left, for a bounded time."""
        ...

    def remove(self) -> bool:
        """Remove the group, and tell whether it is gone."""
        ...


class Groups(Protocol):
    """A place in the hierarchy where this launcher may make groups."""

    @property
    def flavour(self) -> str:
        """Say which version of control groups this is: `v1` or `v2`."""
        ...

    def make(self, name: str, *, memory_bytes: int, processes: int, owner: int | None = None) -> Group:
        """Make a limited group whose memory limit the owner (a user id) may still lower. Raises OSError."""
        ...

    def sweep(self) -> list[str]:
        """Remove the groups of launchers that are dead, their processes killed; return their names."""
        ...

    def clear(self, name: str, *, patience_sec: float = REMOVE_SEC) -> bool:
        """Kill what is left in a group and remove it; tell whether it is gone."""
        ...

    def close(self) -> None:
        """Remove this launcher's own place."""
        ...

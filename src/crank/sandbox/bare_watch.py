"""Watching a job that stands without namespaces: its processes by descent, its folders by measuring them.

No mount bounds the folders here, so the supervisor looks, and ends the job that has passed its limit. Between
two looks a job can write more than it may: as much as the disk takes in that time.
"""

import contextlib
import math
import os
import socket
from dataclasses import replace

from crank.domain.outcome import End
from crank.domain.profile import Limits
from crank.sandbox import tree, verdict, watch, yard
from crank.sandbox.watch import TreeReading

# Clocks are looked at between steps.
_STEP_SEC = 0.005


class BareTree:
    """One job's processes and folders.

    init     the process that they descend from, as the host numbers it
    folders  descriptors of the private folders
    path     the yard, which is removed in the end
    """

    def __init__(self, init: int, folders: tuple[int, ...], path: str) -> None:
        self._init = init
        self._folders = folders
        self._meters = [yard.Meter(folder) for folder in folders]
        self._path = path
        # What a reading has just seen is not looked for again.
        self._held: tuple[int, int] | None = None

    def read(self, *, tasks_max: int = 1_000, until: float = math.inf) -> TreeReading:
        """Add up what all processes use. What lies in the folders lies on disk, and is no memory.

        tasks_max  when there are more processes they are only counted, quickly: a bomb would be faster than we
        until      see `watch.add_up`
        """
        members = tree.descendants(self._init)
        if len(members) > tasks_max:
            return TreeReading(0.0, 0, len(members))
        reading = watch.add_up([self._init, *members], first=self._init, until=until)
        _, sockets = self._held = self._look(members)
        return replace(reading, memory_bytes=reading.memory_bytes + watch.socket_bytes(sockets))

    def _look(self, members: list[int]) -> tuple[int, int]:
        return tree.held(members, os.fstat(self._folders[0]).st_dev)

    def left(self) -> int:
        """Return how many processes there are beside the init and the guest."""
        return len(tree.descendants(self._init)) - 1

    def passed(self, limits: Limits) -> End | None:
        """Return how a job ends whose folders hold more than they may, None while they do not."""
        (nameless, _), self._held = self._held or self._look(tree.descendants(self._init)), None
        for meter in self._meters:
            meter.step(limit_sec=_STEP_SEC, most=limits.inodes)
            if meter.usage.inodes > limits.inodes:
                return verdict.inodes_end(limits)
            if meter.usage.size_bytes + nameless > limits.disk_bytes:
                return verdict.disk_end(limits)
        return None

    def end(self, link: socket.socket) -> None:
        """Have the init end everything and then itself; it can do so without missing one, and we cannot."""
        with contextlib.suppress(OSError):
            link.shutdown(socket.SHUT_WR)

    def clear(self) -> None:
        """Remove the folders."""
        with contextlib.suppress(OSError):
            yard.let_go(self._path)

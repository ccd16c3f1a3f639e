"""What a launcher knows of what it started: nests with their zygotes, sessions, and sessions that wait for one."""

import socket
from dataclasses import dataclass, field

from crank.sandbox.namespaces import Identity
from crank.sandbox.nest import Nest
from crank.sandbox.plan import Ground, Plan


@dataclass(frozen=True, slots=True)
class Session:
    """A running supervisor."""

    name: str
    pid: int
    identity: Identity
    nest: "Home"
    network: int


@dataclass(frozen=True, slots=True)
class Wish:
    """A session that waits for its zygote."""

    plan: Plan
    channel: socket.socket
    began: float


@dataclass(slots=True)
class Home:
    """A nest as the launcher uses it.

    networks  numbers of the empty network namespaces that its zygote keeps, free for the next child
    replaced_at  how many children it had when its successor was last started
    private   layers, by place, that each child must be shown as its own; kept open
    """

    ground: Ground
    nest: Nest
    since: float
    private: dict[str, int]
    ready: bool = False
    children: int = 0
    replaced_at: int = 0
    wishes: list[Wish] = field(default_factory=list)
    networks: list[int] = field(default_factory=list)
    networks_made: int = 0

    def take_network(self) -> int:
        """Return a network that no living child uses."""
        if self.networks:
            return self.networks.pop()
        self.networks_made += 1
        return self.networks_made

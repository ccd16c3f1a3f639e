"""What is known of a node, for the page that is made of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from crank.domain.capability import Capability
from crank.domain.profile import Profile


@dataclass(frozen=True, slots=True)
class Facts:
    """What a node is at this moment.

    version       of Crank
    capabilities  what connected workers offer, each once
    profiles      by name: what the environments hold, as far as this node has their files
    mounts        names under which jobs may ask for folders
    tools         name and purpose of each MCP tool; empty where the reader has none
    session_idle_sec, session_lifetime_sec   the clocks of a session that asks for none
    """

    version: str
    capabilities: Sequence[Capability]
    profiles: Mapping[str, Profile]
    mounts: Sequence[str]
    session_idle_sec: float
    session_lifetime_sec: float
    tools: Sequence[tuple[str, str]] = field(default=())


def default_profile(scripts: Sequence[Capability]) -> str | None:
    """Return the profile to use when nothing speaks for another one; None where no script can run."""
    names = [str(each.env_profile) for each in scripts]
    return "python-core" if "python-core" in names else (names[0] if names else None)

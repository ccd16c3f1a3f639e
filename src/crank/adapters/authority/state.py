"""What the authority must not forget: which generation signs, how far a rotation is, the sequence of the bundle."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from crank.adapters.authority.files import damaged, write
from crank.domain.trust import Rotation, RotationPhase

_VERSION = 1


@dataclass(frozen=True, slots=True)
class AuthorityState:
    """Written whole after each change.

    content          digest of the bundle that has this sequence
    current, other   marks of the generations that sign, and that is published beside it
    phase, drained_us, prepared_us   as in Rotation
    leaf_sec         how long leaves live by the setting of now
    alive_until_us   when the last leaf that was signed under a longer setting has expired
    flat_until_us    until when the single authority of older versions is still published; None: it is not
    """

    trust_domain: str
    current: str
    sequence: int = 0
    content: str = ""
    phase: RotationPhase = RotationPhase.SETTLED
    other: str | None = None
    drained_us: int | None = None
    flat_until_us: int | None = None
    leaf_sec: float = 0.0
    alive_until_us: int = 0
    prepared_us: int | None = None

    @property
    def rotation(self) -> Rotation:
        """Return which roots there are."""
        return Rotation(self.phase, self.current, self.other, self.drained_us, self.prepared_us)

    def turned(self, rotation: Rotation) -> "AuthorityState":
        """Return this state with other roots."""
        return replace(
            self,
            phase=rotation.phase,
            current=rotation.current,
            other=rotation.other,
            drained_us=rotation.drained_us,
            prepared_us=rotation.prepared_us,
        )


def read_state(path: Path) -> AuthorityState | None:
    """Return the state, or None at the first start. Raises ConfigurationError."""
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as fault:
        raise damaged(path, "the authority's state cannot be read") from fault
    try:
        if document.pop("version") != _VERSION:
            raise damaged(path, "it was written by another version of Crank")
        return AuthorityState(**{**document, "phase": RotationPhase(document["phase"])})
    except (AttributeError, KeyError, TypeError, ValueError) as fault:
        raise damaged(path, "the authority's state is not one") from fault


def write_state(path: Path, state: AuthorityState) -> None:
    """Write the state so that it outlives a crash."""
    document = {"version": _VERSION, **asdict(state), "phase": str(state.phase)}
    write(path, json.dumps(document, sort_keys=True, indent=1).encode() + b"\n", mode=0o600)

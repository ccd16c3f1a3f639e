"""What the body of a new session means: from checked JSON fields to a draft, or a clear complaint."""

from dataclasses import dataclass

from crank.domain.capability import Accelerator, parse_capability_name, parse_version_wanted
from crank.domain.ids import parse_name
from crank.domain.json import JsonObject
from crank.domain.profile import LIMIT_RANGES
from crank.domain.quantity import SESSION_SEC_MIN, TIMEOUT_SEC_MAX
from crank.domain.trust import Attestation, parse_attestation
from crank.domain.wanted import (
    DEFAULT_PROFILE,
    DraftMount,
    bounded,
    capability_of_profile,
    parse_accelerator,
    parse_mounts,
)


@dataclass(frozen=True, slots=True)
class SessionDraft:
    """A wanted session whose every field is well formed, before anything was looked up."""

    capability: str
    version: str | None
    env_profile: str | None
    accelerator: Accelerator | None
    gpu_model: str | None
    memory_bytes: int | None
    idle_sec: float | None
    lifetime_sec: float | None
    mounts: tuple[DraftMount, ...]
    name: str | None
    attestation: Attestation | None = None


@dataclass(frozen=True, slots=True)
class ClocksWanted:
    """Other clocks for a session that is open; None leaves one as it is."""

    idle_sec: float | None
    lifetime_sec: float | None


def parse_clocks(fields: JsonObject) -> ClocksWanted:
    """Read the two clocks. Raises InvalidRequest."""
    return ClocksWanted(
        idle_sec=bounded(fields, "idle_sec", SESSION_SEC_MIN, TIMEOUT_SEC_MAX, prefix=""),
        lifetime_sec=bounded(fields, "lifetime_sec", SESSION_SEC_MIN, 30 * TIMEOUT_SEC_MAX, prefix=""),
    )


def parse_session_request(fields: JsonObject) -> SessionDraft:
    """Make a draft of a body whose JSON types were checked. Raises InvalidRequest, TooLarge."""
    profile = fields.get("env_profile")
    if profile is not None:
        parse_name(profile, field="env_profile")
    capability = fields.get("capability")
    if capability is None:
        profile = profile or DEFAULT_PROFILE
        capability = capability_of_profile(profile)
    accelerator, level = fields.get("accelerator"), fields.get("attestation")
    memory_bytes = bounded(fields, "memory_bytes", *LIMIT_RANGES["memory_bytes"], prefix="")
    clocks = parse_clocks(fields)
    return SessionDraft(
        capability=parse_capability_name(capability, field="env_profile" if profile else "capability"),
        version=None if fields.get("version") is None else parse_version_wanted(fields["version"]),
        env_profile=profile,
        accelerator=None if accelerator is None else parse_accelerator(accelerator),
        gpu_model=fields.get("gpu_model"),
        memory_bytes=None if memory_bytes is None else int(memory_bytes),
        idle_sec=clocks.idle_sec,
        lifetime_sec=clocks.lifetime_sec,
        mounts=parse_mounts(fields.get("mounts") or []),
        name=None if fields.get("name") is None else parse_name(fields["name"], field="name"),
        attestation=None if level is None else parse_attestation(level, field="attestation"),
    )

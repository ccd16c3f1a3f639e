"""What a worker offers: versioned, typed, with its effects said openly."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from crank.domain.json import JsonObject
from crank.errors import InvalidRequest

CAPABILITY_SCHEMA = 1
CAPABILITIES_MAX = 256
CAPABILITY_NAME_CHARS_MAX = 128
_NAME = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)+")
_VERSION = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})")
_VERSION_WANTED = re.compile(r"(0|[1-9]\d{0,5})(\.(0|[1-9]\d{0,5})){0,2}")
_ERROR_CODE = re.compile(r"[a-z][a-z0-9_]{0,62}")


class Effects(StrEnum):
    """What running twice means. Only the first two may be retried by the node itself."""

    PURE = "pure"
    IDEMPOTENT = "idempotent"
    EXTERNAL = "external"


class Isolation(StrEnum):
    """What calls of a worker author's function share: nothing, or one sandbox after another of the same function."""

    PER_CALL = "per_call"
    PER_WORKER = "per_worker"


class Accelerator(StrEnum):
    """The kind of processor that a capability computes on."""

    CPU = "cpu"
    GPU = "gpu"


@dataclass(frozen=True, slots=True)
class Capability:
    """One offer of one worker, as it is stored, sent and shown.

    env_profile    the profile that runs scripts; None for a worker author's own function
    input_schema   JSON Schema 2020-12 of `args`; output_schema that of the result
    error_codes    codes that its own failures carry
    required_capabilities  what it may call in turn; everything else is denied
    profile_digest what the environment really is, when it is a profile
    timeout_sec    the longest run it accepts
    memory_bytes   the most memory that one job may ask for; None where nobody enforces memory
    limits         what one job may use, by the names of `profile.Limits`; a name that is missing is not enforced
    tier           how well its jobs are walled in, a word of `domain.isolation`; None where the worker did not say
    takes_files    whether a job may give files and mounts to a capability that takes no code
    """

    name: str
    version: str
    summary: str
    effects: Effects
    accelerator: Accelerator
    gpu_model: str | None
    env_profile: str | None
    profile_digest: str | None
    input_schema: JsonObject
    output_schema: JsonObject
    error_codes: tuple[str, ...]
    required_capabilities: tuple[str, ...]
    timeout_sec: float
    memory_bytes: int | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    tier: str | None = None
    takes_files: bool = False

    @property
    def takes_code(self) -> bool:
        """Tell whether it runs the caller's script (a profile) rather than its own function."""
        return self.env_profile is not None


def parse_capability_name(text: str, *, field: str = "capability") -> str:
    """Accept a dotted lower-case name such as `python.run.core`. Raises InvalidRequest."""
    if len(text) > CAPABILITY_NAME_CHARS_MAX or not _NAME.fullmatch(text):
        raise InvalidRequest(
            "A capability is named by two or more lower-case words with dots between, like python.run.core.",
            code="invalid_capability_name",
            field=field,
        )
    return text


def parse_version_wanted(text: str, *, field: str = "version") -> str:
    """Accept `1`, `1.2` or `1.2.3`: any version that starts so will do. Raises InvalidRequest."""
    if not _VERSION_WANTED.fullmatch(text):
        raise InvalidRequest(
            "A version is one to three numbers with dots between: 1, 1.2 or 1.2.3.", code="invalid_version", field=field
        )
    return text


def version_matches(wanted: str, offered: str) -> bool:
    """Tell whether an offered version starts with the numbers that are wanted."""
    numbers = wanted.split(".")
    return offered.split(".")[: len(numbers)] == numbers


_LIMITS_MAX = 64
# Known since version 2 of the wire; a worker of version 1 leaves them out.
_LATER = frozenset({"limits", "tier", "takes_files"})
_FIELDS: Mapping[str, tuple[type, ...]] = {
    "schema": (int,),
    "name": (str,),
    "version": (str,),
    "summary": (str,),
    "effects": (str,),
    "accelerator": (str,),
    "gpu_model": (str, type(None)),
    "env_profile": (str, type(None)),
    "profile_digest": (str, type(None)),
    "input_schema": (dict,),
    "output_schema": (dict,),
    "error_codes": (list,),
    "required_capabilities": (list,),
    "timeout_sec": (int, float),
    "memory_bytes": (int, type(None)),
    "limits": (dict,),
    "tier": (str, type(None)),
    "takes_files": (bool,),
}


def parse_capability(source: Any) -> Capability:
    """Make a Capability of what a worker sent. Raises InvalidRequest naming the first field that is wrong."""
    if not isinstance(source, Mapping):
        raise _wrong("", "A capability is an object.")
    for name, value in source.items():
        if name not in _FIELDS:
            raise _wrong(str(name), "It is not a field of a capability.")
        if not isinstance(value, _FIELDS[name]) or isinstance(value, bool) != (_FIELDS[name] == (bool,)):
            raise _wrong(name, "It has the wrong type.")
    for name in sorted(set(_FIELDS) - _LATER - set(source)):
        raise _wrong(name, "It is missing.")
    _check_values(source)
    return Capability(
        name=parse_capability_name(source["name"], field="name"),
        version=source["version"],
        summary=source["summary"],
        effects=Effects(source["effects"]),
        accelerator=Accelerator(source["accelerator"]),
        gpu_model=source["gpu_model"],
        env_profile=source["env_profile"],
        profile_digest=source["profile_digest"],
        input_schema=dict(source["input_schema"]),
        output_schema=dict(source["output_schema"]),
        error_codes=tuple(source["error_codes"]),
        required_capabilities=tuple(source["required_capabilities"]),
        timeout_sec=float(source["timeout_sec"]),
        memory_bytes=source["memory_bytes"],
        limits=dict(source.get("limits", {})),
        tier=source.get("tier"),
        takes_files=source.get("takes_files", False),
    )


def _wrong(name: str, cause: str) -> InvalidRequest:
    return InvalidRequest(
        f"The capability's field {name!r} is wrong: {cause}" if name else cause,
        code="invalid_capability",
        field=name or None,
        fix="Correct the worker's capability; it was not registered.",
    )


def _check_values(source: Mapping[str, Any]) -> None:
    if source["schema"] != CAPABILITY_SCHEMA:
        raise _wrong("schema", f"This controller reads schema {CAPABILITY_SCHEMA}.")
    if not _VERSION.fullmatch(source["version"]):
        raise _wrong("version", "It must be a semantic version of three numbers.")
    if source["effects"] not in set(Effects):
        raise _wrong("effects", f"It must be one of {', '.join(Effects)}.")
    if source["accelerator"] not in set(Accelerator):
        raise _wrong("accelerator", f"It must be one of {', '.join(Accelerator)}.")
    if (source["accelerator"] == Accelerator.GPU) != (source["gpu_model"] is not None):
        raise _wrong("gpu_model", "It is given exactly when the accelerator is gpu.")
    if not 0 < source["timeout_sec"] <= 86_400:
        raise _wrong("timeout_sec", "It must be more than 0 and at most 86400.")
    if source["memory_bytes"] is not None and source["memory_bytes"] <= 0:
        raise _wrong("memory_bytes", "It must be more than 0.")
    _check_limits(source.get("limits", {}))
    if not _ERROR_CODE.fullmatch(source.get("tier") or "none"):
        raise _wrong("tier", "It must be one lower-case word.")
    _check_lists(source)


def _check_limits(limits: Mapping[Any, Any]) -> None:
    named = len(limits) <= _LIMITS_MAX and all(
        isinstance(name, str) and _ERROR_CODE.fullmatch(name) for name in limits
    )
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in limits.values())
    if not named or not numbers or any(value < 0 for value in limits.values()):
        raise _wrong("limits", f"It must be at most {_LIMITS_MAX} names with a number of at least 0 each.")


def _check_lists(source: Mapping[str, Any]) -> None:
    if not all(isinstance(code, str) and _ERROR_CODE.fullmatch(code) for code in source["error_codes"]):
        raise _wrong("error_codes", "Each is 1 to 63 lower-case letters, digits or underscores.")
    for wanted in source["required_capabilities"]:
        if not isinstance(wanted, str):
            raise _wrong("required_capabilities", "Each is a capability's name.")
        parse_capability_name(wanted, field="required_capabilities")


def capability_document(capability: Capability) -> JsonObject:
    """Return the JSON form that `parse_capability` reads back to an equal value."""
    # Left out while it says nothing, as every later word of the wire is.
    later = {"takes_files": True} if capability.takes_files else {}
    return {
        "schema": CAPABILITY_SCHEMA,
        "name": capability.name,
        "version": capability.version,
        "summary": capability.summary,
        "effects": str(capability.effects),
        "accelerator": str(capability.accelerator),
        "gpu_model": capability.gpu_model,
        "env_profile": capability.env_profile,
        "profile_digest": capability.profile_digest,
        "input_schema": capability.input_schema,
        "output_schema": capability.output_schema,
        "error_codes": list(capability.error_codes),
        "required_capabilities": list(capability.required_capabilities),
        "timeout_sec": capability.timeout_sec,
        "memory_bytes": capability.memory_bytes,
        "limits": dict(capability.limits),
        "tier": capability.tier,
        **later,
    }

"""Parts that the body of a job and the body of a session have in common, read the same way for both."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crank.domain.capability import Accelerator
from crank.domain.ids import parse_name
from crank.domain.quantity import MOUNTS_MAX
from crank.errors import InvalidRequest, TooLarge

DEFAULT_PROFILE = "python-core"


@dataclass(frozen=True, slots=True)
class DraftMount:
    """A mount as it was asked for: seen in the job as `name`, found by `source` (a mount's id or name)."""

    name: str
    source: str


def capability_of_profile(profile: str) -> str:
    """Return the capability that runs scripts in a profile: `python-core` is `python.run.core`."""
    language, _, rest = profile.partition("-")
    return f"{language}.run.{rest}" if rest else profile


def parse_accelerator(text: str) -> Accelerator:
    """Read `cpu` or `gpu`. Raises InvalidRequest."""
    if text not in set(Accelerator):
        raise InvalidRequest(
            f"The accelerator {text[:40]!r} is not known.",
            code="invalid_field",
            field="constraints.accelerator",
            fix=f"Use one of {', '.join(Accelerator)}, or leave it out.",
        )
    return Accelerator(text)


def bounded(
    fields: Mapping[str, Any], name: str, low: float, high: float, *, prefix: str = "constraints."
) -> float | None:
    """Read a number that must lie in a range; None where there is none. Raises InvalidRequest."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidRequest(
            f"{name} must be a number from {low} to {high}.",
            code="limit_out_of_range",
            field=f"{prefix}{name}",
            fix="Choose a value in that range, or leave it out for the profile's default.",
        )
    return float(value)


def parse_mounts(entries: list[Any]) -> tuple[DraftMount, ...]:
    """Read which mounts are wanted, each by name or under another name. Raises InvalidRequest, TooLarge."""
    if len(entries) > MOUNTS_MAX:
        raise TooLarge(f"A job takes at most {MOUNTS_MAX} mounts.", code="too_many_mounts", field="mounts")
    found: dict[str, DraftMount] = {}
    for position, entry in enumerate(entries):
        where = f"mounts.{position}"
        name, source = (entry, entry) if isinstance(entry, str) else (entry["name"], entry["mount"])
        parse_name(name, field=f"{where}.name")
        if name in found:
            raise InvalidRequest(f"The mount {name!r} is given twice.", code="duplicate_mount", field=where)
        found[name] = DraftMount(name, source)
    return tuple(found.values())

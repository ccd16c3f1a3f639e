"""Parts that the body of a job and the body of a session have in common, read the same way for both."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crank.domain.capability import Accelerator
from crank.domain.ids import SessionId, parse_name
from crank.domain.json import JsonObject
from crank.domain.quantity import MOUNTS_MAX, PROGRAM_BYTES_MAX, PROGRAM_WORDS_MAX
from crank.domain.session import DEFAULT_CONTEXT
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


def parse_context(text: str | None, session_id: SessionId | None) -> str | None:
    """Read the name of a context, which only a job of a session has. Raises InvalidRequest."""
    if session_id is None and text is not None:
        raise InvalidRequest(
            "Only a job of a session has a context; every other has a sandbox of its own.",
            code="invalid_field",
            field="context",
            fix="Name a session too, or leave context out.",
        )
    return None if session_id is None else parse_name(text or DEFAULT_CONTEXT, field="context")


def parse_program(fields: JsonObject) -> tuple[str, ...] | None:
    """Read a program and its arguments, which stand in place of code. Raises InvalidRequest, TooLarge."""
    words = fields.get("program")
    if words is None:
        return None
    if fields.get("code") is not None:
        raise InvalidRequest("A job runs code or a program, not both.", code="invalid_field", field="program")
    if fields.get("args") is not None:
        raise InvalidRequest(
            "A program takes no args.", code="invalid_field", field="args", fix="Write its arguments into program."
        )
    if not words or not words[0] or any("\x00" in word for word in words):
        raise InvalidRequest(
            "program is a name and its arguments, without NUL characters.",
            code="invalid_field",
            field="program",
            fix='Send a list such as ["pandoc", "--version"].',
        )
    size_bytes = sum(len(word.encode("utf-8", "surrogatepass")) for word in words)
    if len(words) > PROGRAM_WORDS_MAX or size_bytes > PROGRAM_BYTES_MAX:
        raise TooLarge(
            f"A program takes at most {PROGRAM_WORDS_MAX} words of {PROGRAM_BYTES_MAX} bytes together.",
            code="program_too_large",
            field="program",
            fix="Write long input to a file and name the file.",
        )
    return tuple(words)

"""Rights as OAuth carries them: `authorization_details` (RFC 9396) of one type of our own, read strictly, bounded.

    {"type": "urn:crank:capability", "identifier": "document.convert", "version": "1.2.0",
     "constraints": [{…}], "mounts": ["papers"], "calls_max": 10, "budget_max": 5000,
     "expires_at_sec": 1800000000}

Only `type` and `identifier` must be there; each other field takes something away. What is not known is refused: a
limit that nobody would honour must never look like one.
"""

import re
from collections.abc import Callable
from typing import Any, Final, NoReturn

from crank.domain.capability import CAPABILITY_NAME_CHARS_MAX
from crank.domain.grant import CONSTRAINTS_MAX, EVERYTHING, MOUNTS_MAX, NODE_PREFIX, RIGHTS_MAX, Right
from crank.domain.grant_codec import DETAIL_TYPE, details_document, scope_of
from crank.domain.json import JsonObject, JsonValue, canonical, loads_strict
from crank.errors import InvalidRequest

__all__ = ["DETAIL_TYPE", "details_document", "parse_details", "parse_details_text", "parse_scope", "scope_of"]

# So that a token with all of it still fits into a request's head, beside all else there.
DETAILS_BYTES_MAX: Final = 8 * 1024
CONSTRAINT_BYTES_MAX: Final = 4 * 1024
COUNT_MAX: Final = 2**53 - 1
MOUNT_CHARS_MAX: Final = 80
_FIELDS: Final = frozenset(
    {"type", "identifier", "version", "constraints", "mounts", "calls_max", "budget_max", "expires_at_sec"}
)
_PATTERN = re.compile(r"\*|[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*\.\*|[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)+")
_VERSION = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})")
_MOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

# Says what is wrong with a schema, or None: the pure side does not know who looks.
SchemaProblem = Callable[[JsonObject], str | None]


def parse_details_text(text: str, schema_problem: SchemaProblem) -> tuple[Right, ...]:
    """Read the parameter `authorization_details`, which is JSON. Raises InvalidRequest."""
    if len(text) > DETAILS_BYTES_MAX:
        _wrong("", f"They are longer than {DETAILS_BYTES_MAX} bytes.")
    try:
        found = loads_strict(text.encode("utf-8", "surrogatepass"))
    except InvalidRequest as fault:
        _wrong("", fault.message)
    return parse_details(found, schema_problem)


def parse_details(source: JsonValue, schema_problem: SchemaProblem) -> tuple[Right, ...]:
    """Read a list of details. Raises InvalidRequest (`invalid_authorization_details`) that names the place."""
    if not isinstance(source, list) or not 0 < len(source) <= RIGHTS_MAX:
        _wrong("", f"They are a list of 1 to {RIGHTS_MAX} objects.")
    if len(canonical(source)) > DETAILS_BYTES_MAX:
        _wrong("", f"They are longer than {DETAILS_BYTES_MAX} bytes.")
    return tuple(_right(entry, f"[{place}]", schema_problem) for place, entry in enumerate(source))


def parse_scope(text: str) -> tuple[Right, ...]:
    """Read `scope`: patterns of capabilities with spaces between (RFC 6749 section 3.3). Raises InvalidRequest."""
    words = text.split(" ")
    if not 0 < len(words) <= RIGHTS_MAX or not all(words):
        raise _wrong_scope(f"It is 1 to {RIGHTS_MAX} words with one space between.")
    return tuple(Right(_pattern(word, "scope")) for word in words)


def _right(source: Any, place: str, schema_problem: SchemaProblem) -> Right:
    if not isinstance(source, dict):
        _wrong(place, "It is no object.")
    unknown = sorted(set(source) - _FIELDS)
    if unknown:
        _wrong(f"{place}.{unknown[0][:80]}", "It is not a field of this type.")
    if source.get("type") != DETAIL_TYPE:
        _wrong(f"{place}.type", f"This node knows the type {DETAIL_TYPE!r} alone.")
    version = source.get("version")
    if "version" in source and not (isinstance(version, str) and _VERSION.fullmatch(version)):
        _wrong(f"{place}.version", "It is a version of three numbers, like 1.2.0.")
    capability = _pattern(source.get("identifier"), f"{place}.identifier")
    limits = sorted(set(source) - {"type", "identifier"})
    if limits and capability.startswith(NODE_PREFIX):
        _wrong(f"{place}.{limits[0]}", f"What is under {NODE_PREFIX} is given whole, or not at all.")
    return Right(
        capability=capability,
        version=version,
        constraints=_constraints(source.get("constraints", []), f"{place}.constraints", schema_problem),
        mounts=_mounts(source["mounts"], f"{place}.mounts") if "mounts" in source else None,
        calls_max=_count(source, "calls_max", place, least=1),
        budget_max=_count(source, "budget_max", place, least=0),
        expires_at_sec=_count(source, "expires_at_sec", place, least=1),
    )


def _pattern(source: Any, place: str) -> str:
    if not isinstance(source, str) or len(source) > CAPABILITY_NAME_CHARS_MAX or not _PATTERN.fullmatch(source):
        _wrong(place, f"It is a capability's name, a prefix that ends in '.*', or {EVERYTHING!r}.")
    return source


def _constraints(source: Any, place: str, schema_problem: SchemaProblem) -> tuple[JsonObject, ...]:
    if not isinstance(source, list) or len(source) > CONSTRAINTS_MAX:
        _wrong(place, f"They are a list of at most {CONSTRAINTS_MAX} JSON Schemas.")
    found: dict[bytes, JsonObject] = {}
    for index, schema in enumerate(source):
        if not isinstance(schema, dict):
            _wrong(f"{place}[{index}]", "It is no object.")
        written = canonical(schema)
        if len(written) > CONSTRAINT_BYTES_MAX:
            _wrong(f"{place}[{index}]", f"It is longer than {CONSTRAINT_BYTES_MAX} bytes.")
        problem = schema_problem(schema)
        if problem is not None:
            _wrong(f"{place}[{index}]", problem)
        found[written] = schema
    return tuple(found[key] for key in sorted(found))


def _mounts(source: Any, place: str) -> tuple[str, ...]:
    named = isinstance(source, list) and all(
        isinstance(name, str) and len(name) <= MOUNT_CHARS_MAX and _MOUNT.fullmatch(name) for name in source
    )
    if not named or len(source) > MOUNTS_MAX:
        _wrong(place, f"They are a list of at most {MOUNTS_MAX} names or ids of mounts.")
    return tuple(sorted(set(source)))


def _count(source: JsonObject, name: str, place: str, *, least: int) -> int | None:
    if name not in source:
        return None
    count = source[name]
    if not isinstance(count, int) or isinstance(count, bool) or not least <= count <= COUNT_MAX:
        _wrong(f"{place}.{name}", f"It is a whole number from {least} to {COUNT_MAX}.")
    return count


def _wrong(place: str, cause: str) -> NoReturn:
    if place == "scope":
        raise _wrong_scope(cause)
    raise InvalidRequest(
        f"authorization_details{place}: {cause}",
        code="invalid_authorization_details",
        field=f"authorization_details{place}",
        fix="Correct it; docs/reference/tokens.md lists the fields.",
    )


def _wrong_scope(cause: str) -> InvalidRequest:
    return InvalidRequest(
        f"scope: {cause}", code="invalid_scope", field="scope", fix="Name capabilities, or leave it out."
    )

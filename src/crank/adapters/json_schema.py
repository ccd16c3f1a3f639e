"""JSON Schema 2020-12, held to what can be answered fast and without the network.

Schemas come from authors of workers and values from callers, so both are bounded: no reference leaves
the schema, patterns that can run for ever are refused, references may be followed only so often.
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from contextvars import ContextVar
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator, SchemaError, ValidationError, validators
from referencing import Registry
from referencing.exceptions import Unresolvable

from crank.domain.json import JsonObject, JsonValue, canonical
from crank.errors import Problem

PROBLEMS_MAX = 10
SCHEMA_BYTES_MAX = 256 * 1024
PATTERN_CHARS_MAX = 512
_DIALECTS = ("https://json-schema.org/draft/2020-12/schema", "https://json-schema.org/draft/2020-12/schema#")
_DEPTH_MAX = 64
_REFERENCES_MAX = 20_000
_TEXT_CHARS_MAX = 300
# A search with k open repeats takes about length**k / k! steps; this many take a fraction of a second.
_PATTERN_STEPS = 200_000_000
_PATTERN_CHARS_CHECKED_MIN = 32
_FIX_SCHEMA = "Correct the schema; JSON Schema 2020-12 describes it."
_FIX_VALUE = "Send a value that the capability's schema accepts."
_OPEN_REPEAT = re.compile(r"[*+]|\{\d*,\d*\}")

_followed: ContextVar[list[int] | None] = ContextVar("followed", default=None)


class _TooCostlyError(Exception):
    """The check would take too long; only this module sees it."""


class JsonSchemaChecker:
    """Keeps the promises of `ports.SchemaChecker`. Safe to share between threads."""

    def check_schema(self, schema: JsonObject) -> Problem | None:
        """Return the first thing that is wrong with a schema, or None."""
        for finding in _unsafe(schema):
            return finding
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as fault:
            return Problem(field=_place("", fault.absolute_path), cause=_short(fault.message), fix=_FIX_SCHEMA)
        except RecursionError:
            return Problem(field="", cause="It is nested too deeply.", fix=_FIX_SCHEMA)
        return None

    def check(self, schema: JsonObject, value: JsonValue, *, field: str) -> Sequence[Problem]:
        """Return where a value breaks a schema that `check_schema` accepted, at most 10 places."""
        token = _followed.set([0])
        try:
            found = islice(_Checker(schema, registry=Registry()).iter_errors(value), PROBLEMS_MAX)
            return [
                Problem(field=_place(field, fault.absolute_path), cause=_short(fault.message), fix=_FIX_VALUE)
                for fault in found
            ]
        except (RecursionError, _TooCostlyError):
            return [Problem(field=field, cause="It takes too long to check against its schema.", fix=_FIX_VALUE)]
        except Unresolvable as fault:
            return [Problem(field=field, cause=_short(f"Its schema refers to nothing: {fault}"), fix=_FIX_SCHEMA)]
        finally:
            _followed.reset(token)


def _place(field: str, path: Any) -> str:
    parts = [field] if field else []
    for step in path:
        if isinstance(step, int):
            parts.append(f"{parts.pop() if parts else ''}[{step}]")
        else:
            parts.append(str(step))
    return _short(".".join(parts))


def _short(text: str) -> str:
    return text if len(text) <= _TEXT_CHARS_MAX else text[:_TEXT_CHARS_MAX] + "…"


# --- what a schema may hold ----------------------------------------------------------------------


def _unsafe(schema: JsonObject) -> Iterator[Problem]:
    if schema.get("$schema", _DIALECTS[0]) not in _DIALECTS:
        yield Problem(field="$schema", cause="Only JSON Schema 2020-12 is read.", fix=f"Write {_DIALECTS[0]!r}.")
    with suppress(ValueError):
        if len(canonical(schema)) > SCHEMA_BYTES_MAX:
            yield Problem(field="", cause=f"It is larger than {SCHEMA_BYTES_MAX} bytes.", fix="Make it smaller.")
    yield from _unsafe_parts(schema, "", 0)


def _unsafe_parts(part: JsonValue, where: str, depth: int) -> Iterator[Problem]:
    if depth > _DEPTH_MAX:
        yield Problem(field=_short(where), cause=f"It is nested deeper than {_DEPTH_MAX} levels.", fix="Flatten it.")
        return
    if isinstance(part, list):
        for position, entry in enumerate(part):
            yield from _unsafe_parts(entry, f"{where}[{position}]", depth + 1)
    if isinstance(part, dict):
        for name, entry in part.items():
            place = f"{where}.{name}" if where else str(name)
            yield from _unsafe_entry(name, entry, place)
            yield from _unsafe_parts(entry, place, depth + 1)


def _unsafe_entry(name: str, entry: JsonValue, place: str) -> Iterator[Problem]:
    # Also inside `const` and the like: a pointer could lead the checker there.
    if name in ("$ref", "$dynamicRef") and isinstance(entry, str) and not entry.startswith("#"):
        yield Problem(
            field=_short(place), cause="It refers to another document.", fix="Put the schema under $defs, refer by #."
        )
    if name == "$id" and isinstance(entry, str) and "." in place:
        yield Problem(field=_short(place), cause="Only the whole schema may have an $id.", fix="Leave it out.")
    if name == "pattern" and isinstance(entry, str):
        yield from _unsafe_pattern(entry, place)
    if name == "patternProperties" and isinstance(entry, dict):
        for pattern in entry:
            yield from _unsafe_pattern(pattern, place)


def _unsafe_pattern(pattern: str, place: str) -> Iterator[Problem]:
    cause = None
    if len(pattern) > PATTERN_CHARS_MAX:
        cause = f"The pattern is longer than {PATTERN_CHARS_MAX} characters."
    elif _repeats_a_repeat(pattern):
        cause = "The pattern repeats something that itself repeats or branches; it could run for ever."
    elif re.search(r"\\[1-9]|\(\?P=", pattern):
        cause = "The pattern refers back to a group."
    else:
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as fault:
            cause = f"The pattern cannot be read: {fault}."
    if cause:
        yield Problem(field=_short(place), cause=cause, fix="Write a simpler pattern.")


def _repeats_a_repeat(pattern: str) -> bool:
    """Tell whether an open repeat stands on a group that holds a repeat or a branch.

    A group that starts with a fixed sign of its own, as in `[a-z]+(\\.[a-z]+)*`, is fine: each turn
    can begin in one way only.
    """
    bare = re.sub(r"\\.", lambda match: "~" if match[0][1].isalnum() else ".", pattern)
    bare = re.sub(r"\[\^?\]?[^\]]*\]", "~", bare)
    starts: list[int] = []
    for position, char in enumerate(bare):
        if char == "(":
            starts.append(position)
        elif char == ")" and starts:
            body = bare[starts.pop() + 1 : position].removeprefix("?:")
            if not _OPEN_REPEAT.match(bare, position + 1):
                continue
            if "|" in body or (_OPEN_REPEAT.search(body) and not _is_delimited(pattern, body)):
                return True
    return False


def _is_delimited(pattern: str, body: str) -> bool:
    # `.` in the bare text stands for one escaped sign; an unescaped dot in the pattern could match it too.
    any_char = re.search(r"(?<!\\)\.", re.sub(r"\[[^\]]*\]", "", pattern))
    return body[:1] in (".", "-", "_", "/", ",", ":", " ") and not any_char and body.count(body[0]) == 1


# --- costs while checking ------------------------------------------------------------------------


def _count_reference(keyword: str) -> Any:
    original = Draft202012Validator.VALIDATORS[keyword]

    def follow(checker: Any, reference: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        followed = _followed.get()
        if followed is not None:
            followed[0] += 1
            if followed[0] > _REFERENCES_MAX:
                raise _TooCostlyError
        yield from original(checker, reference, value, schema) or ()

    return follow


def _pattern(checker: Any, pattern: str, value: Any, _schema: Any) -> Iterator[ValidationError]:
    if not checker.is_type(value, "string"):
        return
    if len(value) > _length_max(pattern):
        yield ValidationError(f"The text of {len(value)} characters is too long to be matched with {pattern!r}")
    elif not re.search(pattern, value):
        yield ValidationError(f"{_short(value)!r} does not match {pattern!r}")


def _length_max(pattern: str) -> int:
    repeats = len(_OPEN_REPEAT.findall(pattern))
    if not repeats:
        return _PATTERN_STEPS
    # Without an anchor the search itself starts again at every place.
    loops = repeats + (not pattern.startswith("^"))
    return max(_PATTERN_CHARS_CHECKED_MIN, int((_PATTERN_STEPS * math.factorial(loops)) ** (1 / loops)))


def _unique(checker: Any, wanted: Any, value: Any, _schema: Any) -> Iterator[ValidationError]:
    # The library compares every pair; JSON text, with 1.0 and 1 made one, takes one pass.
    if wanted and checker.is_type(value, "array"):
        seen = {canonical(_plain_numbers(entry)) for entry in value}
        if len(seen) != len(value):
            yield ValidationError("The list has entries that are not unique")


def _plain_numbers(value: JsonValue) -> JsonValue:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_plain_numbers(entry) for entry in value]
    if isinstance(value, dict):
        return {name: _plain_numbers(entry) for name, entry in value.items()}
    return value


_Checker: Any = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {
        "$ref": _count_reference("$ref"),
        "$dynamicRef": _count_reference("$dynamicRef"),
        "pattern": _pattern,
        "uniqueItems": _unique,
    },
)

"""JSON Schema 2020-12, held to what can be answered fast and without the network.

Schemas come from authors of workers and from whoever narrows a token, values from callers, so both are bounded: no
reference leaves the schema, patterns that can run for ever are refused, references may be followed only so often, and
a check that takes seconds of its thread's own time is given up.
"""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator, SchemaError, ValidationError, validators
from referencing import Registry
from referencing.exceptions import Unresolvable

from crank.adapters.json_schema.pattern_cost import BadPatternError, length_max
from crank.domain.json import JsonObject, JsonValue, canonical
from crank.errors import Problem

PROBLEMS_MAX = 10
SCHEMA_BYTES_MAX = 256 * 1024
_DIALECTS = ("https://json-schema.org/draft/2020-12/schema", "https://json-schema.org/draft/2020-12/schema#")
_DEPTH_MAX = 64
_REFERENCES_MAX = 20_000
_TEXT_CHARS_MAX = 300
# Of the thread's time; what callers may send at most, against a schema as people write them, takes a part of it.
_CHECK_SEC = 4.0
_FIX_SCHEMA = "Correct the schema; JSON Schema 2020-12 describes it."
_FIX_VALUE = "Send a value that the capability's schema accepts."


class _TooCostlyError(Exception):
    """The check would take too long; only this module sees it. No mere finding: below a `not` that would let a value pass."""


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
        token = _spent.set(_Spent(time.thread_time() + _CHECK_SEC))
        try:
            _check_names(schema, value)
            found = islice(_Checker(schema, registry=Registry()).iter_errors(value), PROBLEMS_MAX)
            return [
                Problem(field=_place(field, fault.absolute_path), cause=_short(fault.message), fix=_FIX_VALUE)
                for fault in found
            ]
        except (RecursionError, _TooCostlyError) as fault:
            why = f": {fault}" if isinstance(fault, _TooCostlyError) and str(fault) else ""
            return [Problem(field, _short(f"It takes too long to check against its schema{why}."), _FIX_VALUE)]
        except Unresolvable as fault:
            return [Problem(field=field, cause=_short(f"Its schema refers to nothing: {fault}"), fix=_FIX_SCHEMA)]
        finally:
            _spent.reset(token)


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
    try:
        length_max(pattern)
    except BadPatternError as fault:
        yield Problem(field=_short(place), cause=str(fault), fix="Write a simpler pattern.")


# --- costs while checking ------------------------------------------------------------------------


@dataclass(slots=True)
class _Spent:
    """What one check has cost up to now: references followed, and when its thread has worked for long enough."""

    until_sec: float
    references: int = 0


_spent: ContextVar[_Spent | None] = ContextVar("spent", default=None)


def _afford(references: int = 0) -> None:
    spent = _spent.get()
    if spent is None:
        return
    spent.references += references
    # The thread's own time: a busy machine changes no answer.
    if spent.references > _REFERENCES_MAX or time.thread_time() > spent.until_sec:
        raise _TooCostlyError


def _metered(keyword: str, original: Any) -> Any:
    references = int(keyword in ("$ref", "$dynamicRef"))

    def check(checker: Any, wanted: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        _afford(references)
        yield from original(checker, wanted, value, schema) or ()

    return check


def _pattern(checker: Any, pattern: str, value: Any, _schema: Any) -> Iterator[ValidationError]:
    if not checker.is_type(value, "string"):
        return
    _check_length(pattern, value)
    if not re.search(pattern, value):
        yield ValidationError(f"{_short(value)!r} does not match {pattern!r}")


def _check_length(pattern: str, text: str) -> None:
    try:
        longest = length_max(pattern)
    except BadPatternError as fault:
        # A schema that nobody looked at before.
        raise _TooCostlyError(str(fault)) from fault
    if len(text) > longest:
        raise _TooCostlyError(f"a text of {len(text)} characters is too long to be matched with {pattern!r}")


def _check_names(schema: JsonValue, value: JsonValue) -> None:
    """Search the names in a value with all the patterns for names once, within bounds, before the library does so."""
    patterns = sorted({pattern for found in _parts_named("patternProperties", schema) for pattern in found})
    names = _names(value) if patterns else ()
    for name in names:
        for pattern in patterns:
            _afford()
            _check_length(pattern, name)
            re.search(pattern, name)


def _parts_named(keyword: str, part: JsonValue) -> Iterator[JsonObject]:
    if isinstance(part, dict):
        found = part.get(keyword)
        if isinstance(found, dict):
            yield found
    for inner in _inside(part):
        yield from _parts_named(keyword, inner)


def _names(value: JsonValue) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    for inner in _inside(value):
        yield from _names(inner)


def _inside(value: JsonValue) -> Iterator[JsonValue]:
    found = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (inner for inner in found if isinstance(inner, dict | list))


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


_OWN = {"pattern": _pattern, "uniqueItems": _unique}
_Checker: Any = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {name: _metered(name, _OWN.get(name, original)) for name, original in Draft202012Validator.VALIDATORS.items()},
)

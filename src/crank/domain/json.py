"""The JSON values that cross Crank's borders, and the one strict reader for them.

Strict means RFC 8259 plus I-JSON (RFC 7493): no duplicate names, no NaN or Infinity, no lone
surrogates, bounded depth. Two parsers that disagree about one text are an attack surface.
"""

import json
import re
from typing import Any, NoReturn, TypeAlias

from crank.domain.quantity import JSON_DEPTH_MAX
from crank.errors import InvalidRequest

JsonValue: TypeAlias = Any
JsonObject: TypeAlias = dict[str, Any]

# CPython refuses longer integers by itself (CVE-2020-10735); say it in our own words.
_INTEGER_DIGITS_MAX = 4_000
# All that says how deep a text is nested: brackets, where strings begin and end, and what is escaped in them.
_MARKS = re.compile(r'\\.|["\[\]{}]', re.DOTALL)


def _fail(cause: str, code: str = "malformed_json") -> NoReturn:
    raise InvalidRequest(cause, code=code, field="", fix="Send one JSON value as RFC 8259 describes it.")


def _unique(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    found: JsonObject = {}
    for name, value in pairs:
        if name in found:
            _fail(f"The name {name[:80]!r} appears twice in one object.", "duplicate_key")
        found[name] = value
    return found


def _no_constant(text: str) -> NoReturn:
    _fail(f"{text} is not JSON.")


def _bounded_int(text: str) -> int:
    if len(text) > _INTEGER_DIGITS_MAX:
        _fail(f"An integer has more than {_INTEGER_DIGITS_MAX} digits.")
    return int(text)


def _finite_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        _fail(f"The number {text[:40]} is too large.")
    return value


def _check_depth(raw: str, depth_max: int) -> None:
    # Counted on the text, before parsing: the parser itself recurses.
    depth = 0
    in_string = False
    for found in _MARKS.finditer(raw):
        mark = found[0]
        if mark == '"':
            in_string = not in_string
        elif in_string or mark[0] == "\\":
            continue
        elif mark in "[{":
            depth += 1
            if depth > depth_max:
                _fail(f"The JSON is nested deeper than {depth_max} levels.", "too_deep")
        else:
            depth -= 1


def loads_strict(raw: bytes, *, depth_max: int = JSON_DEPTH_MAX) -> JsonValue:
    """Read one JSON value from UTF-8 bytes. Raises InvalidRequest with a code that says what is wrong."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as fault:
        _fail(f"The body is not UTF-8 (byte {fault.start}).")
    # Depth can exceed the ceiling only if there are that many brackets; most bodies skip the scan.
    if text.count("[") + text.count("{") > depth_max:
        _check_depth(text, depth_max)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_bounded_int,
            parse_float=_finite_float,
        )
    except json.JSONDecodeError as fault:
        _fail(f"The JSON is broken at line {fault.lineno}, column {fault.colno}: {fault.msg}.")
    if "\\u" in text and not _is_unicode(value):
        _fail("A string holds half of a surrogate pair.")
    return value


def _is_unicode(value: JsonValue) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def dumps(value: JsonValue) -> str:
    """Write a value as compact JSON, refusing NaN and Infinity (ValueError)."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def canonical(value: JsonValue) -> bytes:
    """Write a value the same way every time (sorted names), to hash it."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()

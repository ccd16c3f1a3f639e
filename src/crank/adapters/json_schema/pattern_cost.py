"""What a regular expression may cost before it says no, told from its parts as Python's own reader sees them.

Python tries every way through a pattern. A way branches at each choice (`|`, `?`), and an open repeat (`*`, `+`,
`{2,5}`) can end at each place of the text; so k of these take about length**k / k! steps, times the choices.
"""

import importlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

PATTERN_CHARS_MAX: Final = 512
# This many take a second or so.
STEPS_MAX: Final = 200_000_000
# A pattern that may not even look at so short a text is of no use.
LENGTH_MIN: Final = 32
_CHOICES_MAX: Final = 100_000
_KNOWN_MAX: Final = 1024
_ENDLESS = "The pattern repeats something that itself repeats or branches; it could run for ever."
# The reader behind `re.compile`. That it has no public name is the price of not reading patterns a second way.
_reader: Any = importlib.import_module("re._parser")
_CLASSES = {"CATEGORY_DIGIT": r"\d", "CATEGORY_SPACE": r"\s", "CATEGORY_WORD": r"\w"}


class BadPatternError(Exception):
    """Why a pattern is not used."""


@dataclass(frozen=True, slots=True)
class Cost:
    """How many ways lead through a part, apart from its open repeats, and how many of those it has."""

    choices: int = 1
    repeats: int = 0

    @property
    def fixed(self) -> bool:
        """Tell whether only one way leads through it."""
        return self.choices == 1 and self.repeats == 0


@lru_cache(maxsize=_KNOWN_MAX)
def length_max(pattern: str) -> int:
    """Return how long a text may be that is searched with a pattern. Raises BadPatternError."""
    if len(pattern) > PATTERN_CHARS_MAX:
        raise BadPatternError(f"The pattern is longer than {PATTERN_CHARS_MAX} characters.")
    try:
        re.compile(pattern)
        parts = _reader.parse(pattern)
        cost = _of_all(parts)
    except (re.error, OverflowError, RecursionError) as fault:
        raise BadPatternError(f"The pattern cannot be read: {fault}.") from fault
    # Without an anchor the search itself starts again at every place.
    repeats = cost.repeats + (not _is_anchored(parts))
    if not repeats:
        return STEPS_MAX
    longest = int((STEPS_MAX / cost.choices * math.factorial(min(repeats, 100))) ** (1 / repeats))
    if longest < LENGTH_MIN or repeats > LENGTH_MIN:
        raise BadPatternError("The pattern has so many repeats that it could run for ever.")
    return longest


def _is_anchored(parts: Any) -> bool:
    first = parts[0] if len(parts) else None
    begins = first is not None and str(first[0]) == "AT" and str(first[1]) in ("AT_BEGINNING", "AT_BEGINNING_STRING")
    return begins and not parts.state.flags & re.MULTILINE


def _of_all(parts: Iterable[Any]) -> Cost:
    choices, repeats = 1, 0
    for name, value in parts:
        cost = _of(str(name), value)
        choices, repeats = choices * cost.choices, repeats + cost.repeats
        if choices > _CHOICES_MAX:
            raise BadPatternError("The pattern has so many branches that it could run for ever.")
    return Cost(choices, repeats)


def _of(name: str, value: Any) -> Cost:
    if name.startswith("GROUPREF"):
        raise BadPatternError("The pattern refers back to a group.")
    if name == "BRANCH":
        ways = [_of_all(way) for way in value[1]]
        return Cost(sum(way.choices for way in ways), max(way.repeats for way in ways))
    if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        return _of_repeat(*value)
    if name in ("SUBPATTERN", "ATOMIC_GROUP", "ASSERT", "ASSERT_NOT"):
        return _of_all(value if name == "ATOMIC_GROUP" else value[-1])
    return Cost()


def _of_repeat(least: int, most: int, body: Any) -> Cost:
    inner = _of_all(body)
    if most <= 1:
        return inner if least else Cost(1 + inner.choices, inner.repeats)
    if most is _reader.MAXREPEAT:
        if not inner.fixed and not _is_delimited(body, inner):
            raise BadPatternError(_ENDLESS)
        turns = least
    else:
        turns = most
        if not inner.fixed:
            inner = _in_turns(inner, most)
    # Turns that take no text are taken nevertheless.
    idle = max(1, turns) if body.getwidth()[0] == 0 else 1
    return Cost(inner.choices * idle, inner.repeats + (least != most))


def _in_turns(inner: Cost, turns: int) -> Cost:
    if turns > LENGTH_MIN or inner.choices**turns > _CHOICES_MAX:
        raise BadPatternError(_ENDLESS)
    return Cost(inner.choices**turns, inner.repeats * turns)


def _is_delimited(body: Any, inner: Cost) -> bool:
    """Tell whether each turn begins with a sign that stands nowhere else in it, as in `[a-z]+(\\.[a-z]+)*`: one way only."""
    while len(body) == 1 and str(body[0][0]) == "SUBPATTERN":
        body = body[0][1][-1]
    name, sign = body[0]
    if inner.choices > 1 or str(name) != "LITERAL" or chr(sign).isalnum():
        return False
    return not any(_may_take(part, sign) for part in list(body)[1:])


def _may_take(part: Any, sign: int) -> bool:
    name, value = str(part[0]), part[1]
    if name == "LITERAL":
        return bool(value == sign)
    if name == "IN":
        return _is_among(value, sign)
    if name == "SUBPATTERN" or name.endswith("_REPEAT"):
        return any(_may_take(inner, sign) for inner in value[-1])
    # Of all else nothing is known.
    return name != "AT"


def _is_among(members: list[Any], sign: int) -> bool:
    found = negated = False
    for kind, value in members:
        name = str(kind)
        negated = negated or name == "NEGATE"
        if name == "LITERAL":
            found = found or value == sign
        elif name == "RANGE":
            found = found or value[0] <= sign <= value[1]
        elif name == "CATEGORY":
            known = _CLASSES.get(str(value))
            found = found or (not negated if known is None else re.match(known, chr(sign)) is not None)
    return found != negated

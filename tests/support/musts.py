"""Rules of SPIFFE's standards by their numbers in docs/reference/standards.md, and cases that each break some of them.

A number is a standard, a section and a place in it: "X509-SVID 4.3/2"; of one standard "X509-SVID 2/2, 5.2/4" names two.
"""

import re
from collections.abc import Iterable
from typing import Any

import pytest
from _pytest.mark import ParameterSet

STANDARDS = ("SPIFFE-ID", "X509-SVID", "JWT-SVID", "Trust Domain and Bundle", "Federation", "Workload Endpoint", "Forgery")
_ONE = r"[0-9]+(?:\.[0-9]+)*(?:/[0-9]+)?"
_NAMED = re.compile(rf"({'|'.join(STANDARDS)}) ({_ONE}(?:, {_ONE})*)")


def numbers_in(text: str) -> tuple[str, ...]:
    """Return each rule that a text names, in full."""
    return tuple(f"{name} {one}" for name, listed in _NAMED.findall(text) for one in listed.split(", "))


def breaking(cases: Iterable[tuple[Any, ...]]) -> list[ParameterSet]:
    """Return cases for a parametrized test, each marked with the rules that its first value, a label, names, if any."""
    return [pytest.param(*case, marks=[pytest.mark.must(*named)] if (named := numbers_in(case[0])) else []) for case in cases]

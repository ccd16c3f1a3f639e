"""Results become strict, bounded JSON, or a reason why not."""

import dataclasses
import datetime as dt
import enum
import json
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.json import loads_strict
from crank.sandbox.guest_result import NotJson, bundle, checked, dumps, encode, is_rich

_BUDGET = 10_000
_scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=5))
_anything = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers(), st.none(), st.booleans()), inner, max_size=5),
    ),
    max_leaves=30,
)


@given(_anything)
def test_what_is_encoded_is_strict_json(value: Any) -> None:
    """Whatever goes in, what comes out is read by the strict reader, or there is a reason."""
    try:
        plain = encode(value, _BUDGET)
    except NotJson as fault:
        assert str(fault)
        return
    content = dumps(plain)
    assert len(content) <= _BUDGET
    assert loads_strict(content) == plain


@given(st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()), lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner))))  # fmt: skip
def test_the_encoder_agrees_with_json(value: Any) -> None:
    """The encoder beneath `json` writes what `json` writes."""
    expected = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    assert dumps(value) == expected


class _Colour(enum.Enum):
    RED = "red"


class _Number(enum.IntEnum):
    ONE = 1


@dataclasses.dataclass
class _Point:
    x: int
    inner: Any


class _Model:
    def model_dump(self, mode: str) -> dict[str, str]:
        return {"mode": mode}


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (_Point(1, [_Colour.RED]), {"x": 1, "inner": ["red"]}),
        (_Number.ONE, 1),
        (dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC), "2026-01-02T03:00:00+00:00"),
        (PurePosixPath("/out/a"), "/out/a"),
        (_Model(), {"mode": "json"}),
        ((1, (2,)), [1, [2]]),
        ({None: 1, True: 2, 1.5: 3}, {"null": 1, "true": 2, "1.5": 3}),
    ],
)
def test_common_values_have_the_expected_form(value: Any, plain: Any) -> None:
    """Common types of results become what a person would write."""
    assert encode(value, _BUDGET) == plain


def _nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def _cycle() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


class _Array:
    __module__ = "numpy"
    size = 10**9

    def tolist(self) -> list[int]:
        raise AssertionError("a huge array was unpacked")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: float("nan"), "NaN"),
        (lambda: float("-inf"), "infinite"),
        (lambda: "\ud800", "surrogate"),
        (lambda: {"\udfff": 1}, "surrogate"),
        (lambda: _nested(100_000), "nested"),
        (_cycle, "contains itself"),
        (lambda: 10**100_000, "digits"),
        (lambda: "x" * 20_000, "larger"),
        (lambda: ["x"] * 20_000, "larger"),
        (lambda: "ü" * 9_000, "larger"),
        (lambda: b"bytes", "bytes"),
        (lambda: {1: 1, "1": 2}, "both written"),
        (lambda: {(1, 2): 3}, "key"),
        (object, "no JSON form"),
        (_Array, "too large"),
        (lambda: range, "no JSON form"),
    ],
)
def test_what_has_no_form_says_why(make: Callable[[], Any], why: str) -> None:
    """A value with no bounded strict form is refused with a clause that a person understands."""
    with pytest.raises(NotJson, match=why):
        encode(make(), _BUDGET)


class _Hostile:
    def model_dump(self, mode: str) -> Any:
        raise ValueError("no")


def test_a_value_that_raises_is_a_reason() -> None:
    """The value's own code may fail; that is a reason, not a crash."""
    with pytest.raises(NotJson, match="ValueError"):
        encode(_Hostile(), _BUDGET)


class _Rich:
    def _repr_mimebundle_(self, include: Any, exclude: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"application/json": {"a": 1}}, {}

    def _repr_png_(self) -> bytes:
        return b"\x89PNG"

    def _repr_html_(self) -> None:
        return None


def test_bundles_hold_every_representation() -> None:
    """A rich value's bundle has its own forms, binary as base64, and always a plain text."""
    found = bundle(_Rich(), _BUDGET)
    assert found["application/json"] == {"a": 1}
    assert found["image/png"] == "iVBORw=="
    assert "text/html" not in found
    assert found["text/plain"].startswith("<")
    assert is_rich(_Rich())
    assert not is_rich(_Rich)
    assert not is_rich({"_repr_html_": 1})


def test_bundles_are_bounded() -> None:
    """A bundle that is too large is refused like a result."""
    with pytest.raises(NotJson, match="larger"):
        checked({"image/png": bytes(20_000)}, _BUDGET)

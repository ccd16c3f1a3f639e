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
from crank.sandbox.guest_plain import NotJson, cell, dumps, encode, is_table, made_by, table
from tests.unit.sandbox.lookalikes import Frame, Index, Series, scalar

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


def test_a_table_has_schema_size_and_head() -> None:
    """A frame becomes its columns with their types, its true size, and the first rows, which say that they are not all."""
    frame = Frame({"n": ("int64", [1, 2, 3]), "x": ("float64", [0.5, float("nan"), float("inf")])})
    assert table(frame, rows_max=2, bytes_max=_BUDGET) == {
        "schema": {
            "index": [{"name": None, "dtype": "int64"}],
            "columns": [{"name": "n", "dtype": "int64"}, {"name": "x", "dtype": "float64"}],
        },
        "row_count": 3,
        "column_count": 2,
        "head": {"index": [0, 1], "rows": [[1, 0.5], [2, None]]},
        "truncated": True,
    }
    assert table(frame, rows_max=9, bytes_max=_BUDGET)["truncated"] is False
    assert table(frame, rows_max=9, bytes_max=_BUDGET)["head"]["rows"][2] == [3, "Infinity"]


def test_a_series_is_a_table_of_one_column() -> None:
    """A series has its name and type as its only column."""
    found = table(Series([1, 2], name="n"), rows_max=9, bytes_max=_BUDGET)
    assert found["schema"]["columns"] == [{"name": "n", "dtype": "int64"}]
    assert (found["column_count"], found["head"]["rows"]) == (1, [[1], [2]])


def test_a_table_is_cut_by_bytes() -> None:
    """Rows are given while they fit; a frame of a million wide rows costs no more than a small one."""
    frame = Frame({"text": ("str", ["y" * 400] * 1_000)})
    found = table(frame, rows_max=1_000, bytes_max=4_000)
    assert 0 < len(found["head"]["rows"]) < 10
    assert found["truncated"]
    assert len(dumps(found)) <= 4_000


def test_a_result_may_hold_tables() -> None:
    """Wherever a table stands in a result, it has the same form, within the budget of all."""
    frame = Frame({"n": ("int64", list(range(5_000)))})
    plain = encode({"a": [frame, Series([1], name=None)]}, _BUDGET)
    assert plain["a"][0]["row_count"] == 5_000
    assert plain["a"][0]["truncated"]
    assert plain["a"][1]["head"]["rows"] == [[1]]
    assert len(dumps(plain)) <= _BUDGET


def test_several_levels_of_an_index_are_named() -> None:
    """An index of several levels gives a label of several parts for each row."""
    frame = Frame({"n": ("int64", [1])}, index=Index([("a", 1)], levels=[Index(["a"], "k"), Index([1], "m")]))
    found = table(frame, rows_max=9, bytes_max=_BUDGET)
    assert [level["name"] for level in found["schema"]["index"]] == ["k", "m"]
    assert found["head"]["index"] == [["a", 1]]


class _Silent:
    def __str__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (float("nan"), None),
        (float("-inf"), "-Infinity"),
        ("z" * 900, "z" * 500),
        ("\ud800", "?"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (b"abc", "<3 bytes>"),
        ((1, "a"), [1, "a"]),
        ({"a": 1}, "{'a': 1}"),
        (_Silent(), "<_Silent: ValueError>"),
        (scalar("NaTType"), None),
        (scalar("NAType"), None),
        (10**100_000, hex(10**100_000)[:500]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_cells_are_scalars(value: Any, plain: Any) -> None:
    """Whatever a cell holds becomes a short JSON scalar: missing is null, long is cut, hostile is named."""
    assert cell(value) == plain


def test_scalars_of_pandas_have_a_form_as_results() -> None:
    """Missing values and points in time are results like others."""
    assert encode([scalar("NaTType"), scalar("Timestamp", "2026-01-01T00:00:00")], _BUDGET) == [
        None,
        "2026-01-01T00:00:00",
    ]


def test_shapes_are_known_by_the_classes_they_derive_from() -> None:
    """A job's own subclass of a frame is a frame; a class that only has the name is not."""

    class Mine(Frame):
        pass

    class DataFrame:
        pass

    assert is_table(Mine({}))
    assert not is_table(DataFrame())
    assert not is_table(Frame)
    assert made_by(Mine({}), "pandas", "DataFrame")

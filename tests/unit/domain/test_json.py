"""The one strict reader of JSON: what it accepts comes back unchanged, what is doubtful is refused by name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.json import canonical, dumps, loads_strict
from crank.domain.quantity import JSON_DEPTH_MAX
from crank.errors import InvalidRequest

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_written_is_read_back(value: object) -> None:
    """Both writers and the reader agree about every JSON value."""
    assert loads_strict(dumps(value).encode()) == value
    assert loads_strict(canonical(value)) == value


@given(st.dictionaries(TEXTS, VALUES, min_size=2, max_size=5))
def test_canonical_form_ignores_the_order_of_names(value: dict[str, object]) -> None:
    """Two requests that differ only in the order of names have one digest."""
    assert canonical(value) == canonical(dict(reversed(value.items())))


@given(st.binary(max_size=200))
def test_bytes_are_json_or_refused(raw: bytes) -> None:
    """No input makes the reader fail in any way but its own."""
    try:
        loads_strict(raw)
    except InvalidRequest as fault:
        assert fault.error_code in {"malformed_json", "duplicate_key", "too_deep"}


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b'{"a": 1, "a": 2}', "duplicate_key"),
        (b'{"x": {"a": 1, "\\u0061": 2}}', "duplicate_key"),
        (b"NaN", "malformed_json"),
        (b"[-Infinity]", "malformed_json"),
        (b"1e999", "malformed_json"),
        (b"", "malformed_json"),
        (b"{} {}", "malformed_json"),
        (b"{'a': 1}", "malformed_json"),
        (b'"\xff"', "malformed_json"),
        (b'"\\ud800"', "malformed_json"),
        (b"9" * 5_000, "malformed_json"),
        (b"[" * (JSON_DEPTH_MAX + 1) + b"]" * (JSON_DEPTH_MAX + 1), "too_deep"),
        (b"[" * 200_000, "too_deep"),
    ],
)
def test_doubtful_json_is_refused_by_name(raw: bytes, code: str) -> None:
    """Whatever two parsers could read differently is refused with a stable code."""
    with pytest.raises(InvalidRequest) as caught:
        loads_strict(raw)
    assert caught.value.error_code == code


def test_brackets_in_texts_are_not_depth() -> None:
    """A script full of brackets is flat JSON."""
    assert loads_strict(json.dumps({"code": "[{" * 500 + '"\\'}).encode()) == {"code": "[{" * 500 + '"\\'}


def test_the_deepest_allowed_is_read() -> None:
    """The ceiling itself is allowed."""
    raw = b"[" * JSON_DEPTH_MAX + b"]" * JSON_DEPTH_MAX
    assert dumps(loads_strict(raw)).encode() == raw

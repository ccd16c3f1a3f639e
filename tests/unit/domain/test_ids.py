"""Identifiers: nothing that could act in a path, a header or a shell gets through."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.ids import is_uuid7, parse_digest, parse_job_id, parse_name
from crank.errors import InvalidRequest


@given(st.text(max_size=140))
def test_job_ids_are_inert(text: str) -> None:
    """A job id that passes holds no character that means something elsewhere."""
    try:
        job_id = parse_job_id(text)
    except InvalidRequest as fault:
        assert fault.field == "job_id"
        return
    assert job_id.isascii()
    assert 1 <= len(job_id) <= 128
    assert job_id not in {".", ".."}
    assert not set(job_id) & set("/\\ \n\r\t\0;:'\"&$%*?<>|")


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_job_id, "a\n"),
        (parse_job_id, "../x"),
        (parse_job_id, "-x"),
        (lambda text: parse_name(text, field="name"), "Upper"),
        (lambda text: parse_name(text, field="name"), ""),
        (lambda text: parse_name(text, field="name"), "a" * 64),
        (lambda text: parse_name(text, field="name"), "a/b"),
        (parse_digest, "A" * 64),
        (parse_digest, "a" * 63),
        (parse_digest, "a" * 64 + "\n"),
    ],
)
def test_odd_identifiers_are_refused(parse: Callable[[str], str], text: str) -> None:
    """Case, length and trailing newlines are checked too."""
    with pytest.raises(InvalidRequest):
        parse(text)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("0190a6a4-7b1c-7d2e-8f00-0123456789ab", True),
        ("0190a6a4-7b1c-4d2e-8f00-0123456789ab", False),
        ("0190A6A4-7b1c-7d2e-8f00-0123456789ab", False),
        ("0190a6a47b1c7d2e8f000123456789ab", False),
    ],
)
def test_uuid7_is_recognised(text: str, fits: bool) -> None:
    """Only version 7 in canonical form counts."""
    assert is_uuid7(text) is fits

"""Capabilities: a document that is read comes back equal, and the first thing wrong in it is named."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.capability import (
    capability_document,
    parse_capability,
    parse_capability_name,
    parse_version_wanted,
    version_matches,
)
from crank.errors import InvalidRequest
from tests.unit.domain.rules.builders import capability


def document(**changes: Any) -> dict[str, Any]:
    """Return a good document with changes."""
    return {**capability_document(capability()), **changes}


def test_a_document_comes_back_equal() -> None:
    """Writing and reading a capability loses nothing."""
    assert parse_capability(document()) == capability()


def test_every_field_is_needed() -> None:
    """A document without one of its fields is refused, and the field is named."""
    for name in set(document()) - {"limits", "tier"}:
        body = document()
        del body[name]
        with pytest.raises(InvalidRequest) as caught:
            parse_capability(body)
        assert caught.value.field == name


def test_a_worker_of_version_1_names_no_limits() -> None:
    """What came with version 2 of the wire may be missing; then nothing is promised about it."""
    body = document(limits={"idle_sec": 5.0}, tier="namespaces")
    assert parse_capability(body).limits == {"idle_sec": 5.0}
    del body["limits"], body["tier"]
    read = parse_capability(body)
    assert read.limits == {}
    assert read.tier is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("limits", {"idle_sec": -1}),
        ("limits", {"idle_sec": True}),
        ("limits", {"idle_sec": "5"}),
        ("limits", {"Idle Sec": 5}),
        ("limits", {f"l{number}": 1 for number in range(65)}),
        ("tier", "No Such"),
        ("tier", 1),
        ("schema", 2),
        ("name", "Upper.Case"),
        ("name", "single"),
        ("version", "1.0"),
        ("effects", "maybe"),
        ("accelerator", "tpu"),
        ("gpu_model", "NVIDIA H100"),
        ("timeout_sec", 0),
        ("timeout_sec", True),
        ("timeout_sec", 10**9),
        ("error_codes", ["Bad Code"]),
        ("error_codes", [3]),
        ("required_capabilities", [3]),
        ("required_capabilities", ["x"]),
        ("input_schema", []),
        ("surprise", 1),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object) -> None:
    """Whatever is wrong is told by the field's name."""
    with pytest.raises(InvalidRequest) as caught:
        parse_capability(document(**{field: value}))
    assert caught.value.field == field


def test_only_an_object_is_a_capability() -> None:
    """A list is no capability."""
    with pytest.raises(InvalidRequest):
        parse_capability([])


@given(st.text(max_size=150))
def test_names_are_dotted_or_refused(text: str) -> None:
    """A name that passes is printable, lower-case and safe in a path or header."""
    try:
        name = parse_capability_name(text)
    except InvalidRequest:
        return
    assert name.isascii()
    assert name == name.lower()
    assert "." in name
    assert not set(name) & set(" /\\\n\r\t")


@pytest.mark.parametrize(
    ("wanted", "offered", "fits"),
    [
        ("1", "1.2.3", True),
        ("1.2", "1.2.3", True),
        ("1.2.3", "1.2.3", True),
        ("1", "10.0.0", False),
        ("1.2", "1.20.0", False),
    ],
)
def test_versions_match_by_number(wanted: str, offered: str, fits: bool) -> None:
    """1 takes 1.2.3, but 1 does not take 10."""
    assert version_matches(parse_version_wanted(wanted), offered) is fits


@pytest.mark.parametrize("text", ["", "v1", "1.", "01", "1.2.3.4", "^1.2", "1.x"])
def test_odd_versions_are_refused(text: str) -> None:
    """What is not one to three numbers is no version."""
    with pytest.raises(InvalidRequest):
        parse_version_wanted(text)

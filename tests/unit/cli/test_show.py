"""What reaches a terminal is harmless, and faults look the same everywhere."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.cli.show import error_document, harmless, print_rows, size_text, tell_fault
from crank.errors import ConfigurationError, NotFound, Problem


@given(st.text())
def test_no_control_character_survives(text: str) -> None:
    """Whatever a job prints, only line feeds and tabs remain of what a terminal would act on."""
    shown = harmless(text)
    assert not any((ord(char) < 0x20 and char not in "\t\n") or 0x7F <= ord(char) < 0xA0 for char in shown)
    assert not set(shown) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068")


def test_plain_text_is_left_alone() -> None:
    """Ordinary text, in any language, is shown as it is."""
    assert harmless("naïve 日本 🙂\n\tindented") == "naïve 日本 🙂\n\tindented"


def test_an_escape_is_made_visible() -> None:
    """An escape sequence is shown, not obeyed, and a carriage return cannot hide a line."""
    assert harmless("\x1b[2Jgone\rhere") == "^[[2Jgone\nhere"


def test_a_fault_as_json_is_data(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json a fault is one object on stdout, and nothing on stderr."""
    tell_fault(ConfigurationError("bad", problems=[Problem("a", "b", "c")]), as_json=True)
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["problems"] == [{"field": "a", "cause": "b", "fix": "c"}]
    assert captured.err == ""


def test_a_fault_for_people_is_talk(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json a fault is sentences on stderr: what, why, what to do; stdout stays empty."""
    tell_fault(NotFound("There is no job x.", fix="List them."), as_json=False)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: There is no job x. [not_found]\n  fix: List them.\n"


def test_the_error_object_has_every_key() -> None:
    """The keys of an error are always there, so that programs need not guess."""
    assert set(error_document(NotFound("x"))["error"]) == {"code", "message", "field", "fix", "problems"}


def test_rows_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns are as wide as their widest cell, and a missing value is a dash."""
    print_rows(("A", "B"), [("long cell", None), ("x", "y\nz")])
    assert capsys.readouterr().out == "A          B\nlong cell  -\nx          y z\n"


def test_sizes_are_readable() -> None:
    """Sizes are shown in powers of 1024."""
    assert [size_text(n) for n in (0, 1023, 1024, 3 * 1024**3)] == ["0 B", "1023 B", "1.0 KiB", "3.0 GiB"]

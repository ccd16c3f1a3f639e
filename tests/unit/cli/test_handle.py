"""A handle on the command line."""

import pytest

from crank.cli.handle import parse_handle
from crank.errors import InvalidRequest


def test_a_handle_is_written_short_or_whole() -> None:
    """A capability, a mount, or one JSON object with every term."""
    assert parse_handle("convert=document.*") == {"name": "convert", "kind": "call", "capability": "document.*"}
    assert parse_handle("docs=mount:papers") == {"name": "docs", "kind": "mount", "mount": "papers"}
    assert parse_handle('{"name": "c", "kind": "call", "capability": "*", "calls_max": 3}')["calls_max"] == 3


@pytest.mark.parametrize("text", ["convert", "=document.convert", "convert=", "{", '{"a": 1, "a": 2}'])
def test_what_is_no_handle_is_refused(text: str) -> None:
    """Half a handle, or broken JSON, is told before anything is sent."""
    with pytest.raises(InvalidRequest):
        parse_handle(text)

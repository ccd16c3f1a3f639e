"""Headers that callers get wrong: what is honoured, lowered or ignored."""

import pytest

from crank.api.prefer import traceparent, wait_sec


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        (["wait=10"], 10),
        (["respond-async, wait=10"], 10),
        (['WAIT = "7"; x=1'], 7),
        (["wait=10", "wait=20"], 10),
        (["wait=41"], 40),
        (["wait=999999999"], 40),
        (["wait=-1"], None),
        (["wait=1.5"], None),
        (["wait=9999999999999999999999"], None),
        (["waiting=3"], None),
    ],
)
def test_wait_is_read_as_rfc_7240_says(headers, expected):
    """The first readable wait counts, is lowered to 40, and what cannot be read is ignored."""
    assert wait_sec(headers) == expected


def test_a_broken_trace_context_is_ignored():
    """Only a well-formed W3C trace context is taken over."""
    good = f"00-{'a' * 32}-{'b' * 16}-01"
    assert traceparent(good) == good
    for bad in (None, "", good.upper(), f"00-{'0' * 32}-{'b' * 16}-01", good + "\r\nx: y"):
        assert traceparent(bad) is None

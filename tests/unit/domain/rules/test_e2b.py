"""E2B's words for ours: pure translations, in both directions."""

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.ids import SessionId
from crank.domain.rules import e2b, e2b_result
from crank.errors import CrankError, InvalidRequest, NotFound, NotSupported

SESSION = SessionId("0190a5c0-1234-7abc-8def-0123456789ab")


def test_a_sandboxs_name_is_its_sessions_id() -> None:
    """The name goes both ways, and whatever is no name means no session."""
    name = e2b.sandbox_id(SESSION)
    assert name.isalnum()
    assert e2b.session_id(name) == SESSION
    for other in ("", "i", name[:-1], name + "0", name.upper(), SESSION, "../" + name, name + "\n"):
        assert e2b.session_id(other) is None


def test_a_sandbox_is_read_with_its_defaults() -> None:
    """What is left out has E2B's default; what is said is kept."""
    assert e2b.parse_sandbox({"templateID": "base"}) == e2b.SandboxDraft("base", 300.0, {}, {})
    said = {"templateID": "code-interpreter-v1:v2", "timeout": 9, "metadata": {"a": "b"}, "envVars": {"A": "1"}}
    assert e2b.parse_sandbox(said) == e2b.SandboxDraft("code-interpreter-v1:v2", 9.0, {"a": "b"}, {"A": "1"})
    harmless = {"autoPause": False, "allow_internet_access": False, "network": {"denyOut": ["0.0.0.0/0"]}, "mcp": None}
    assert e2b.parse_sandbox({"templateID": "base", **harmless}).timeout_sec == 300


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, InvalidRequest),
        ({"templateID": "other"}, NotFound),
        ({"autoPause": True}, NotSupported),
        ({"volumeMounts": [{"name": "v"}]}, NotSupported),
        ({"mcp": {"x": {}}}, NotSupported),
        ({"allow_internet_access": True}, NotSupported),
        ({"network": {"allowOut": ["1.1.1.1"]}}, NotSupported),
        ({"timeout": True}, InvalidRequest),
        ({"timeout": 86_401}, InvalidRequest),
        ({"envVars": {"A\0": "1"}}, InvalidRequest),
        ({"envVars": {"A": "1\0"}}, InvalidRequest),
        ({"envVars": {"A": 1}}, InvalidRequest),
        ({"metadata": "x"}, InvalidRequest),
    ],
)
def test_what_cannot_be_kept_is_refused(fields: dict[str, Any], kind: type[CrankError]) -> None:
    """A field that promises what a node does not do is refused, never dropped."""
    base = {"templateID": "base"} if fields else {}
    with pytest.raises(kind):
        e2b.parse_sandbox({**base, **fields})


def test_a_signature_covers_all_that_it_names() -> None:
    """The signature is E2B's own form, and another path, act, user, token or time makes another one."""
    raw = hashlib.sha256(b"a.txt:read:user:token:99").digest()
    assert e2b.signature("a.txt", "read", "user", "token", "99") == "v1_" + base64.b64encode(raw).rstrip(b"=").decode()
    made = {
        e2b.signature(*words)
        for words in (
            ("a", "read", "", "t", None),
            ("b", "read", "", "t", None),
            ("a", "write", "", "t", None),
            ("a", "read", "u", "t", None),
            ("a", "read", "", "x", None),
            ("a", "read", "", "t", "1"),
        )
    }
    assert len(made) == 6


def test_pages_follow_each_other() -> None:
    """A page's token leads to the next one; anything else is refused."""
    assert e2b.parse_page(None, None) == (e2b.PAGE_ENTRIES_MAX, 0)
    assert e2b.parse_page("5", e2b.page_token(5)) == (5, 5)
    odd = [(text, None) for text in ("9" * 5_000, "+5", " 5", "1_0", "٥", "")] + [("5", e2b.page_token(10**400))]
    for limit, token in (("0", None), ("101", None), ("x", None), ("5", "!"), ("5", e2b.page_token(-1)), *odd):
        with pytest.raises(InvalidRequest):
            e2b.parse_page(limit, token)
    assert e2b.matches({"a": "1", "b": "2"}, [("a", "1")])
    assert not e2b.matches({"a": "1"}, [("a", "2")])


def test_results_are_named_by_their_media_types() -> None:
    """Known media types become fields, others `extra`; a string's text is the string itself."""
    found = e2b_result.result({"text/plain": "'a'", "image/png": "iVBO", "application/json": {"a": 1}, "x/y": 1})
    assert found == {"text": "a", "png": "iVBO", "json": {"a": 1}, "extra": {"x/y": 1}}
    assert e2b_result.result({"text/plain": "'"}) == {"text": "'"}
    assert e2b_result.event({"type": "stdout", "text": "x"}, 7) == {"type": "stdout", "text": "x", "timestamp": 7}
    assert e2b_result.event({"type": "other"}, 7) is None
    assert e2b_result.event({"type": "count", "execution_count": "many"}, 7) == {
        "type": "number_of_executions",
        "execution_count": 0,
    }


def test_charts_take_e2bs_form() -> None:
    """A bar, a pie, a box, lines in two places, and what is no chart."""
    bars = {"type": "bar", "title": "T", "x": {"label": "city"}, "y": {}, "series": [{"label": None, "points": [["a", 3]]}]}
    drawn = e2b_result.chart({"title": None, "axes": [bars]})
    assert drawn is not None
    assert drawn["elements"] == [{"label": "a", "group": "", "value": "3"}]
    pie = {"type": "pie", "series": [{"label": None, "points": [["x", 0.25]]}]}
    both = e2b_result.chart({"title": "all", "axes": [bars, pie]})
    assert both is not None
    assert (both["type"], both["elements"][1]["elements"]) == ("superchart", [{"label": "x", "angle": 90.0, "radius": 1.0}])
    box = {"minimum": 1, "q1": 2, "median": 3, "q3": 4, "maximum": 5}
    boxes = {"type": "box", "series": [{"label": "b", "box": box, "outliers": [9]}]}
    found = e2b_result.chart({"title": "t", "axes": [boxes]})
    assert found is not None
    assert (found["title"], found["elements"][0]["third_quartile"]) == ("t", 4)
    broken: Any
    for broken in (None, {}, {"axes": [1]}, {"axes": [{"type": "line"}]}, {"axes": []}):
        assert e2b_result.chart(broken) is None


@given(st.recursive(st.none() | st.integers() | st.text(), lambda each: st.lists(each) | st.dictionaries(st.text(), each)))
def test_whatever_a_sandbox_says_is_translated_or_dropped(said: Any) -> None:
    """A word of any shape never breaks the translation: it came from a stranger's code."""
    e2b_result.event({"type": "result", "bundle": {"text/plain": said, "e2b/chart": said, "e2b/data": said}}, 0)
    e2b_result.event({"type": "error", "name": said}, 0)
    e2b_result.chart({"axes": said})

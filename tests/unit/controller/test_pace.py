"""How often each one may ask."""

from hypothesis import given
from hypothesis import strategies as st

from crank.controller import pace
from crank.controller.pace import Pace, too_often


def test_some_at_once_then_one_in_so_long():
    """The burst passes, the next waits for its time, and another name is not concerned."""
    each = Pace(burst=3, every_sec=2.0)
    assert [each.take("a", 10.0) for _ in range(3)] == [None, None, None]
    assert each.take("a", 10.0) == 2.0
    assert each.take("b", 10.0) is None
    assert each.take("a", 12.0) is None
    assert each.take("a", 12.0) == 2.0
    assert too_often(1.2).retry_after_sec == 2


@given(gaps=st.lists(st.floats(0, 5), max_size=60))
def test_no_more_than_the_pace_in_the_long_run(gaps):
    """Whatever the times, what passed is the burst and one for each period at most."""
    each, now_sec, passed = Pace(burst=5, every_sec=2.0), 100.0, 0
    for gap in gaps:
        now_sec += gap
        passed += each.take("a", now_sec) is None
    assert passed <= 5 + (now_sec - 100.0) / 2.0 + 1e-6


def test_names_are_bounded(monkeypatch):
    """The oldest are forgotten, so that memory has an end."""
    monkeypatch.setattr(pace, "NAMES_MAX", 3)
    each = Pace(burst=1, every_sec=100.0)
    for name in "abcd":
        assert each.take(name, 1.0) is None
    assert each.take("d", 1.0) is not None
    assert each.take("a", 1.0) is None

"""How signing keys follow each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.rules.key_overlap import KeyTimes, Lives, Plan, plan

LIVES = Lives(signs_sec=100.0, ahead_sec=10.0, after_sec=30.0)
US = 1_000_000


@pytest.mark.parametrize(
    ("keys", "now_sec", "expected"),
    [
        ([], 5, Plan(None, 5 * US, ())),
        ([("a", 0)], 89, Plan("a", None, ())),
        ([("a", 0)], 90, Plan("a", 100 * US, ())),
        # Away for long: the next one is still seen before it signs.
        ([("a", 0)], 500, Plan("a", 510 * US, ())),
        ([("a", 0), ("b", 100)], 99, Plan("a", None, ())),
        ([("a", 0), ("b", 100)], 100, Plan("b", None, ())),
        ([("a", 0), ("b", 100)], 129, Plan("b", None, ())),
        ([("a", 0), ("b", 100)], 130, Plan("b", None, ("a",))),
        # A clock that went back: somebody has to sign.
        ([("a", 50)], 5, Plan("a", None, ())),
    ],
)
def test_a_key_signs_between_being_seen_and_being_kept(keys, now_sec, expected):
    """It is published before it signs, and kept as long as what it signed may live."""
    assert plan([KeyTimes(kid, at * US) for kid, at in keys], LIVES, now_sec * US) == expected


@pytest.mark.must("Federation 4.1/1")
@given(st.lists(st.integers(1, 60), min_size=1, max_size=200))
def test_every_token_can_be_checked_while_it_lives(steps):
    """However time goes on, a key was published `ahead` before it signs, and stays `after` beyond its last signature."""
    now_us = 0
    keys: list[KeyTimes] = []
    seen: dict[str, int] = {}
    signed: dict[str, int] = {}
    for step in steps:
        due = plan(keys, LIVES, now_us)
        keys = [each for each in keys if each.kid not in due.drop]
        if due.make_us is not None:
            keys.append(KeyTimes(f"k{len(seen)}", due.make_us))
            seen[keys[-1].kid] = now_us
        signer = plan(keys, LIVES, now_us).signer
        first = signer == "k0"
        assert signer is not None
        assert first or now_us - seen[signer] >= 10 * US
        signed[signer] = now_us
        held = {each.kid for each in keys}
        assert all(kid in held for kid, at in signed.items() if now_us - at < 30 * US)
        now_us += step * US

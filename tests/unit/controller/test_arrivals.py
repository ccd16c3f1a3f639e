"""How often a source may knock."""

import pytest

from crank.controller.arrivals import TRIES_OF_ALL, TRIES_PER_SOURCE, WINDOW_SEC, Arrivals
from crank.errors import Unavailable


def knock(arrivals: Arrivals, source: str, times: int, now_sec: float = 0.0) -> int:
    """Knock so often and return how many times it was let through."""
    passed = 0
    for _ in range(times):
        try:
            arrivals.admit(source, now_sec)
        except Unavailable as fault:
            assert (fault.error_code, fault.retry_after_sec) == ("join_too_often", 60)
        else:
            passed += 1
    return passed


@pytest.mark.parametrize(
    ("one", "same", "another"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"),
        ("192.0.2.1", "::ffff:192.0.2.1", "::ffff:192.0.2.2"),
        ("somewhere", "somewhere", ""),
    ],
)
def test_a_source_is_an_address_or_what_one_machine_may_choose_from(one: str, same: str, another: str) -> None:
    """A /64 of IPv6 counts as one, and an IPv4 address in IPv6's clothes as itself."""
    arrivals = Arrivals()
    assert knock(arrivals, one, TRIES_PER_SOURCE) == TRIES_PER_SOURCE
    assert knock(arrivals, same, 1) == 0
    assert knock(arrivals, another, 1) == 1
    assert knock(arrivals, one, 1, WINDOW_SEC) == 1


def test_all_together_have_a_bound_too() -> None:
    """Whoever has many addresses gets no further than this, and memory stays bounded."""
    arrivals = Arrivals()
    passed = sum(knock(arrivals, f"192.0.{n // 250}.{n % 250}", 1) for n in range(2000))
    assert passed == TRIES_OF_ALL
    assert len(arrivals._tries) <= 1024
    assert knock(arrivals, "198.51.100.1", 1, WINDOW_SEC) == 1


def test_refusals_are_recorded_in_aggregate() -> None:
    """The first at once, those of the next minute with the first after it."""
    arrivals = Arrivals()
    counts = [arrivals.refusals_to_record(now_sec) for now_sec in (0.0, 1.0, 2.0, 60.0, 61.0)]
    assert counts == [1, 0, 0, 3, 0]

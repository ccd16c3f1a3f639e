"""Ids when the machine's clock misbehaves."""

from crank.adapters.clock import SystemIdSource
from crank.domain.ids import is_uuid7


def test_ids_stay_in_order_when_the_clock_stands_or_goes_back() -> None:
    """A clock set back by an hour, or one that stands for 5000 ids, does not turn the order round."""
    times_us = iter([5_000_000_000_000] + [1_400_000_000_000] * 5_000 + [5_000_000_001_000])
    source = SystemIdSource(now_us=lambda: next(times_us))
    ids = [source.uuid7() for _ in range(5_002)]
    assert ids == sorted(set(ids))
    assert all(is_uuid7(text) for text in ids)


def test_an_id_begins_with_its_millisecond() -> None:
    """The first 48 bits are Unix milliseconds, as RFC 9562 says."""
    text = SystemIdSource(now_us=lambda: 1_645_557_742_000_999).uuid7()
    assert text.startswith("017f22e2-79b0-7")

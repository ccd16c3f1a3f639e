"""Amounts: the ceilings fit together."""

from crank.domain import quantity
from crank.domain.profile import LIMIT_RANGES, Limits, under


def test_a_body_holds_the_largest_script_and_arguments() -> None:
    """A request at both ceilings still fits into one body."""
    assert quantity.CODE_BYTES_MAX + quantity.ARGS_BYTES_MAX < quantity.BODY_BYTES_MAX < quantity.BLOB_BYTES_MAX


def test_waiting_stays_below_what_hosts_cut() -> None:
    """A held request ends before common hosts of agents cut it."""
    assert 0 < quantity.WAIT_SEC_MAX < 45


def test_default_limits_lie_in_their_ranges() -> None:
    """Every limit of a profile has a range, and its default lies inside."""
    defaults = Limits()
    assert set(LIMIT_RANGES) == set(Limits.__dataclass_fields__)
    for name, (low, high) in LIMIT_RANGES.items():
        assert low <= getattr(defaults, name) <= high, name


def test_a_ceiling_lowers_and_never_raises() -> None:
    """The operator's ceiling is an upper bound; what a profile has below it stays."""
    limits = Limits(wall_sec=60.0, memory_bytes=1 << 30, processes=10)
    lowered = under(limits, {"wall_sec": 5, "memory_bytes": 1 << 40, "processes": 10.0})
    assert lowered == Limits(wall_sec=5.0, memory_bytes=1 << 30, processes=10)
    assert isinstance(lowered.wall_sec, float)
    assert isinstance(lowered.processes, int)
    assert under(limits, {}) == limits

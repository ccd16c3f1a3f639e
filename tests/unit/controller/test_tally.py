"""Counters: true sums, bounded labels, histograms as Prometheus reads them."""

from hypothesis import given
from hypothesis import strategies as st

from crank.controller.tally import Histogram, Tally
from crank.domain.outcome import Denial, End, Outcome, Reason, Usage


@given(st.lists(st.floats(0, 100), max_size=30))
def test_a_histogram_counts_each_value_once(values: list[float]) -> None:
    """Each bound tells how many values lay at or below it, and nothing is lost beyond the last."""
    histogram = Histogram((1.0, 5.0, 50.0))
    for value in values:
        histogram.observe(value)
    assert histogram.cumulative() == [(bound, sum(value <= bound for value in values)) for bound in histogram.bounds]
    assert histogram.count == len(values)


def test_an_outcome_is_counted_in_every_part() -> None:
    """End, tier, denials with their counts, memory and setup come from one outcome."""
    tally = Tally()
    usage = Usage(1.0, 0.5, 1 << 20, 0.0004, pool_hit=True)
    denials = (Denial("network", "a", 3, "job"), Denial("seccomp", "b"), Denial("network", "c", 1, "job"))
    tally.completed(Outcome(End(Reason.EXITED, exit_code=0), usage=usage, tier="namespaces", denials=denials))
    assert tally.ends == {("exited", "namespaces"): 1}
    assert tally.denials == {("network", "job"): 4, ("seccomp", "sandbox"): 1}
    assert tally.memory_bytes.count == 1
    assert tally.setup_sec["hit"].cumulative()[0] == (0.0005, 1)
    assert tally.setup_sec["miss"].count == 0


def test_a_worker_cannot_invent_labels() -> None:
    """Words that Crank does not know are counted together."""
    tally = Tally()
    for number in range(50):
        denial = Denial(f"layer_{'x' * number}", "x")
        tally.completed(Outcome(End(Reason.RAISED), tier=f"tier{number}", denials=(denial,)))
    assert tally.ends == {("raised", "other"): 50}
    assert tally.denials == {("other", "sandbox"): 50}


def test_what_never_stood_was_neither_hit_nor_miss() -> None:
    """A job that ended before it had a sandbox says nothing of the pool."""
    tally = Tally()
    tally.completed(Outcome(End(Reason.CANCELLED)))
    assert [known.count for known in tally.setup_sec.values()] == [0, 0]
    assert tally.memory_bytes.count == 0

"""Events of an attempt: numbered without gaps, bounded, and resent from anywhere."""

from hypothesis import given
from hypothesis import strategies as st

from crank.wire import OUTPUT_TEXT_CHARS_MAX, JobEvent
from crank.worker.feed import Feed


def drain(feed: Feed) -> list[JobEvent]:
    """Return everything that is left to send."""
    events: list[JobEvent] = []
    while batch := feed.batch():
        assert len(batch) == 1 or sum(len(event.text) for event in batch) <= OUTPUT_TEXT_CHARS_MAX
        events += batch
    return events


def test_small_writes_become_one_event() -> None:
    """What was written since the last batch travels together, under the first offset and time."""
    feed = Feed(3, live_bytes_max=1_000)
    feed.output("stdout", "a", 0, 0.5)
    feed.output("stdout", "b", 1, 0.6)
    feed.output("stderr", "e", 0, 0.7)
    feed.progress(0.5, "half")
    assert drain(feed) == [
        JobEvent(3, 1, "stdout", "ab", 0, None, 500),
        JobEvent(3, 2, "stderr", "e", 0, None, 700),
        JobEvent(3, 3, "progress", "half", 0, 0.5, 700),
    ]
    assert feed.batch() == []


def test_what_was_sent_never_grows() -> None:
    """An event that once went out keeps its text, even when it is to be sent again."""
    feed = Feed(1, live_bytes_max=1_000)
    feed.output("stdout", "a", 0, 0)
    first = drain(feed)
    feed.rewind(1)
    feed.output("stdout", "b", 1, 0)
    assert drain(feed)[:1] == first


def test_live_output_is_bounded() -> None:
    """Past the bound nothing more goes live, whatever the job prints."""
    feed = Feed(1, live_bytes_max=100)
    for number in range(1_000):
        feed.output("stdout", "x" * 10, number * 10, 0)
    assert sum(len(event.text) for event in drain(feed)) == 100


@given(
    writes=st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(max_size=20)), max_size=40),
    turns=st.lists(st.integers(0, 50), max_size=10),
)
def test_any_mix_of_writing_sending_and_rewinding_keeps_order(writes: list[tuple[str, str]], turns: list[int]) -> None:
    """A receiver that drops what it has gets each stream whole, in order, without a gap."""
    feed = Feed(1, live_bytes_max=1_000_000)
    got: list[JobEvent] = []
    for number, (stream, text) in enumerate(writes):
        feed.output(stream, text, 0, 0)
        if number < len(turns):
            feed.rewind(min(turns[number], len(got)) + 1)
            for event in feed.batch():
                assert event.seq <= len(got) + 1
                got += [event] if event.seq == len(got) + 1 else []
    feed.rewind(len(got) + 1)
    got += drain(feed)
    assert [event.seq for event in got] == list(range(1, len(got) + 1))
    for stream in ("stdout", "stderr"):
        assert "".join(event.text for event in got if event.kind == stream) == "".join(
            text for name, text in writes if name == stream
        )

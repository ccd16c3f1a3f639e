"""What is kept of a stream: exact counts, whole characters, bounded memory."""

from hypothesis import given
from hypothesis import strategies as st

from crank.domain.outcome import Stream
from crank.sandbox.ledger import StreamLedger, StreamText, tail_bytes


def _through(chunks: list[bytes], keep_bytes: int) -> tuple[str, Stream]:
    ledger, text = StreamLedger(keep_bytes), StreamText(keep_bytes)
    live = "".join(text.feed(ledger.take(chunk))[0] for chunk in chunks)
    live += text.rest()[0]
    return live, text.finish(ledger.seen_bytes, ledger.tail)


@given(st.lists(st.binary(max_size=50)), st.integers(1, 200))
def test_counts_are_exact_and_memory_is_bounded(chunks: list[bytes], keep_bytes: int) -> None:
    """Every byte is counted, no more is kept than allowed, and what fits is kept whole."""
    whole = b"".join(chunks)
    live, stream = _through(chunks, keep_bytes)
    assert stream.seen_bytes == len(whole)
    assert stream.kept_bytes == min(len(whole), keep_bytes)
    assert live == whole[:keep_bytes].decode("utf-8", "replace")
    if len(whole) <= keep_bytes:
        assert stream.text == live
        assert not stream.truncated


@given(st.text(max_size=100), st.lists(st.integers(1, 5)))
def test_characters_are_never_split(text: str, cuts: list[int]) -> None:
    """Text that is cut anywhere on its way arrives as it was, with the offset of its first byte."""
    content = text.encode("utf-8", "replace")
    receiver = StreamText(10_000)
    rest, found = content, []
    for cut in [*cuts, len(content)]:
        found.append(receiver.feed(rest[:cut]))
        rest = rest[cut:]
    assert "".join(part for part, _ in found) == content.decode()
    for part, offset in found:
        assert content[offset:].startswith(part.encode())


def test_the_middle_is_cut() -> None:
    """Of too much, the head and the tail stay around a line that says how much is missing."""
    _, stream = _through([bytes([65 + n % 26]) for n in range(1_000)], 100)
    assert stream.text.startswith("ABC")
    assert stream.text.endswith("JKL")
    assert "[... 900 bytes cut ...]" in stream.text
    assert (stream.seen_bytes, stream.kept_bytes) == (1_000, 100)


def test_a_tail_begins_with_a_whole_character() -> None:
    """A tail that would begin inside a character leaves the broken piece out."""
    _, stream = _through(["ü".encode() * 500], 101)
    tail = stream.text.rpartition("]\n")[2]
    assert set(tail) == {"ü"}


def test_one_byte_is_enough() -> None:
    """The smallest limit keeps one byte and counts the rest."""
    _, stream = _through([b"abc"], 1)
    assert (stream.text.startswith("a"), stream.seen_bytes, stream.kept_bytes) == (True, 3, 1)
    assert tail_bytes(1) == 0

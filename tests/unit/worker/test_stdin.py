"""The stdin of a run: in order, bounded, each byte once, whatever is sent twice and however slowly it is read."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.quantity import STDIN_CALL_BYTES_MAX, STDIN_WAITING_BYTES_MAX
from crank.errors import Conflict, CrankError, NotSupported, Unavailable
from crank.worker.stdin import StdinQueue


class Reader:
    """Takes bytes when it may, or faults."""

    def __init__(self, *faults: CrankError) -> None:
        self.faults = list(faults)
        self.got = b""
        self.closed = asyncio.Event()

    async def write_stdin(self, chunk: bytes) -> None:
        """Keep bytes, or raise the next fault."""
        if self.faults:
            raise self.faults.pop(0)
        self.got += chunk

    async def close_stdin(self) -> None:
        """Note the end."""
        self.closed.set()


@given(st.binary(min_size=1, max_size=60), st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12))
def test_repeats_and_overlaps_give_each_byte_once(whole: bytes, pieces: list[tuple[int, int]]) -> None:
    """Pieces of one text, sent in any order and more than once, arrive as that text without a gap."""

    async def feed() -> bytes:
        stdin, reader = StdinQueue(), Reader()
        for begin, length in pieces:
            chunk = whole[begin : begin + length]
            if begin > stdin.taken_bytes:
                with pytest.raises(Conflict):
                    stdin.take(chunk, begin, end=False)
            elif begin < len(whole):
                stdin.take(chunk, begin, end=False)
        stdin.take(whole[stdin.taken_bytes :], None, end=True)
        await stdin.pump(reader)
        assert reader.closed.is_set()
        return reader.got

    assert asyncio.run(feed()) == whole


async def test_a_run_that_is_about_to_begin_gets_its_bytes() -> None:
    """Bytes that come a moment too early wait for the first line."""
    stdin, reader = StdinQueue(), Reader(Conflict("no", code="not_running"), Conflict("no", code="not_running"))
    stdin.take(b"x", None, end=True)
    await asyncio.wait_for(stdin.pump(reader), 10)
    assert reader.got == b"x"


@pytest.mark.parametrize("fault", [NotSupported("no"), Conflict("no", code="stdin_closed")])
async def test_a_run_that_takes_no_stdin_refuses_the_next_bytes(fault: CrankError) -> None:
    """What the run refused earlier bytes with is what later ones are refused with: nothing is swallowed."""
    stdin = StdinQueue()
    stdin.take(b"x", None, end=False)
    await asyncio.wait_for(stdin.pump(Reader(fault)), 10)
    with pytest.raises(type(fault)):
        stdin.take(b"y", None, end=False)


async def test_what_is_not_read_is_bounded() -> None:
    """Beyond its bound the queue says full and takes nothing; the bytes it took are counted."""
    stdin = StdinQueue()
    for _ in range(STDIN_WAITING_BYTES_MAX // STDIN_CALL_BYTES_MAX):
        stdin.take(bytes(STDIN_CALL_BYTES_MAX), None, end=False)
    with pytest.raises(Unavailable):
        stdin.take(b"x", None, end=False)
    assert stdin.taken_bytes == STDIN_WAITING_BYTES_MAX


async def test_nothing_follows_the_end() -> None:
    """After the end a repeat of what was taken is harmless, and more is refused."""
    stdin = StdinQueue()
    stdin.take(b"abc", 0, end=True)
    stdin.take(b"bc", 1, end=True)
    with pytest.raises(Conflict):
        stdin.take(b"d", 3, end=False)
    assert stdin.taken_bytes == 3

"""The worker's end of a session's socket: whole frames out, whatever becomes of the caller; nonsense in is an end."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from crank.domain.profile import Limits
from crank.sandbox.channel import Channel
from crank.sandbox.frames import Frame, FrameReader, encode


class _Ends:
    """A channel, and what it was told."""

    def __init__(self) -> None:
        self.taken: list[Frame] = []
        self.lost = asyncio.Event()
        self.channel = Channel(Limits(), take=self.taken.append, lost=self.lost.set)
        self.other = self.channel.theirs.dup()
        self.other.setblocking(False)


@pytest.fixture
async def ends() -> AsyncIterator[_Ends]:
    """Give a channel and the supervisor's end of it."""
    ends = _Ends()
    yield ends
    ends.channel.close()
    ends.other.close()


@pytest.mark.parametrize("nonsense", [b"?\0\0\0\0", encode("Z", b"")[:1] + b"\xff\xff\xff\xff"])
async def test_what_cannot_be_read_is_an_end(ends: _Ends, nonsense: bytes) -> None:
    """A frame of an unknown kind, or one that claims too much, is a loss, and nothing after it is believed."""
    ends.other.sendall(encode("R", b"{}") + nonsense + encode("R", b"{}"))
    await asyncio.wait_for(ends.lost.wait(), 5)
    assert [frame.kind for frame in ends.taken] in ([], ["R"])
    assert not ends.channel.is_connected


async def test_a_cancelled_sender_leaves_no_half_frame(ends: _Ends) -> None:
    """A frame that the socket takes slowly arrives whole although its sender gave up, and the next one after it."""
    payload = bytes(range(256)) * 16_384
    sending = asyncio.ensure_future(ends.channel.send("r", payload))
    await asyncio.sleep(0)
    assert not sending.done()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    later = asyncio.ensure_future(ends.channel.send("s", b"{}"))
    reader = FrameReader({"r": 16 << 20, "s": 64})
    frames: list[Frame] = []
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        while len(frames) < 2:
            frames += reader.feed(await loop.sock_recv(ends.other, 1 << 20))
    await later
    assert frames == [Frame("r", payload), Frame("s", b"{}")]


async def test_sending_to_nobody_returns(ends: _Ends) -> None:
    """When the other side is gone, sending does nothing and waits for nothing."""
    ends.channel.theirs.close()
    ends.other.shutdown(socket.SHUT_RDWR)
    ends.other.close()
    async with asyncio.timeout(5):
        await ends.channel.send("r", bytes(8 << 20))
        await ends.channel.send("s", b"{}")

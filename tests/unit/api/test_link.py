"""The controller's end of a worker's link: bounded, in order, and closed with a reason."""

import asyncio

import pytest
from starlette.websockets import WebSocketState

from crank.api import link
from crank.api.link import CLOSE_CODE, SocketLink
from crank.errors import Unavailable
from crank.wire import Beat, Cancel, decode


class Socket:
    """A socket that takes messages when the test lets it."""

    def __init__(self) -> None:
        self.application_state = WebSocketState.CONNECTED
        self.reads = asyncio.Event()
        self.sent: list[str] = []
        self.closed: tuple[int, str] | None = None

    async def send_text(self, text: str) -> None:
        """Take a message once the other side reads."""
        await self.reads.wait()
        self.sent.append(text)

    async def close(self, code: int, reason: str) -> None:
        """Note how it was closed."""
        self.application_state = WebSocketState.DISCONNECTED
        self.closed = (code, reason)


def make() -> tuple[Socket, SocketLink]:
    """Make a link over a socket that nobody reads yet."""
    socket = Socket()
    return socket, SocketLink(socket)  # type: ignore[arg-type]


async def test_what_was_queued_is_sent_before_the_end():
    """Messages keep their order, and closing lets them go out first."""
    socket, opened = make()
    for number in range(5):
        await opened.send(Cancel(f"j{number}", 1))
    await opened.close("replaced", "A newer connection took over.")
    socket.reads.set()
    await opened.finish()
    assert [decode(text) for text in socket.sent] == [Cancel(f"j{number}", 1) for number in range(5)]
    assert socket.closed == (CLOSE_CODE, "replaced: A newer connection took over.")


async def test_a_worker_that_does_not_read_is_dropped(monkeypatch):
    """Sending never waits: when the queue is full the link ends, and says so to the sender."""
    monkeypatch.setattr(link, "QUEUED_MESSAGES_MAX", 4)
    socket, opened = make()
    with pytest.raises(Unavailable) as caught:
        await _flood(opened)
    assert caught.value.error_code == "worker_slow"
    await opened.finish()
    assert socket.closed is not None
    with pytest.raises(Unavailable):
        await opened.send(Beat(1))


async def _flood(opened: SocketLink) -> None:
    for _ in range(100):
        await opened.send(Beat(1))


async def test_the_queue_is_bounded_in_bytes_too(monkeypatch):
    """A few large messages fill it as well as many small ones."""
    monkeypatch.setattr(link, "QUEUED_BYTES_MAX", 10)
    _, opened = make()
    with pytest.raises(Unavailable):
        await opened.send(Cancel("j", 1))
    await opened.finish()


async def test_a_send_that_hangs_ends_the_link(monkeypatch):
    """A socket that takes nothing for too long is closed."""
    monkeypatch.setattr(link, "SEND_SEC_MAX", 0.01)
    socket, opened = make()
    await opened.send(Beat(1))
    await asyncio.wait_for(opened.writer, 10)
    assert socket.closed is not None


async def test_finishing_twice_is_legal():
    """The second finish changes nothing."""
    _, opened = make()
    await opened.finish()
    await opened.finish()

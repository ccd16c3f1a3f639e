"""One request and its bounded answer on a connection that is open already. No cookie, no packing, no second request."""

import asyncio
from collections.abc import Callable

import h11

PIECE_BYTES = 64 * 1024
_HEAD_BYTES_MAX = 32 * 1024
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def exchange(
    streams: Streams,
    host: str,
    target: str,
    *,
    bytes_max: int,
    check: Callable[[h11.Response], None],
    too_large: Callable[[], Exception],
    accept: str = "*/*",
) -> bytes:
    """Return the body of the answer to a GET.

    check  looks at the head of the answer and raises what it thinks of it
    Raises what `check` and `too_large` make, OSError, EOFError, h11.RemoteProtocolError.
    """
    reader, writer = streams
    talk = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES_MAX)
    headers = [("Host", host), ("Accept", accept), ("Accept-Encoding", "identity"), ("Connection", "close")]
    asked = talk.send(h11.Request(method="GET", target=target, headers=headers))
    assert asked is not None, "a request has bytes"
    writer.write(asked + (talk.send(h11.EndOfMessage()) or b""))
    await writer.drain()
    content = bytearray()
    while True:
        event = talk.next_event()
        if event is h11.NEED_DATA:
            talk.receive_data(await reader.read(PIECE_BYTES))
        elif isinstance(event, h11.Response):
            check(event)
        elif isinstance(event, h11.Data):
            content += event.data
            if len(content) > bytes_max:
                raise too_large()
        elif isinstance(event, h11.EndOfMessage):
            return bytes(content)
        elif not isinstance(event, h11.InformationalResponse):
            raise EOFError

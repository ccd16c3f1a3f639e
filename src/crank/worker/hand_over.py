"""Hand over: from one link to the next without a gap, so that what runs never notices that a certificate was renewed.

Steps, marked again in the code; `controller/take_over` is the other side:
 1. open the new link while the older one works on
 2. let whoever sends wait, and stop what tells of events: it goes on where the controller says
 3. say hello on the new link, as one that renews
 4. welcome: everything is said on the new link from now on
 5. read the older link to its end, which its controller makes once it has sent what was queued
 6. say what is held, so that what never came is sent again
A fault before 3 leaves the older link as it is. One after it drops both: the worker comes back as after every cut.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from crank.errors import NotAllowed, ProtocolError, Unavailable, UntrustedPeer
from crank.ports import Connector, ControllerLink, IdSource
from crank.wire import Held, Hello, Message, Rejected, Welcome
from crank.worker.current import Relay
from crank.worker.renewing import Renewing

_log = structlog.get_logger(__name__)

WELCOME_SEC = 15.0
# How long the older link may take to its end.
LAST_WORDS_SEC = 10.0
# Before a link that could not be opened is tried again, while the older one works on.
AGAIN_SEC = 3.0


class Side(Protocol):
    """What a worker does at the border between two links."""

    async def read(self, stream: AsyncIterator[Message]) -> None:
        """Act on every message until the link ends. Raises ProtocolError, Unavailable."""
        ...

    def hello(self, *, renews: bool) -> Hello:
        """Return the first message of a link."""
        ...

    async def pause(self) -> None:
        """Stop what tells of events; what carries bytes goes on."""
        ...

    def resume(self, welcome: Welcome, link: ControllerLink) -> None:
        """Tell everything that the controller has not heard, on this link."""
        ...

    def held(self) -> Held:
        """Return all that is held now."""
        ...

    async def tell_sessions(self, link: ControllerLink) -> None:
        """Tell of sessions what may have been missed."""
        ...


@dataclass(frozen=True, slots=True)
class Way:
    """How the next link comes to be; `shown` is the generation of the certificate that the first one shows."""

    connector: Connector
    renewing: Renewing
    ids: IdSource
    shown: int


async def follow(side: Side, relay: Relay, stream: AsyncIterator[Message], way: Way) -> None:
    """Read a link to its end, and the next one after each renewal of the certificate.

    Raises Unavailable, ProtocolError, TimeoutError, as reading does.
    """
    shown = way.shown
    reading: asyncio.Task[None] = asyncio.create_task(side.read(stream))
    try:
        while await _newer_comes(reading, way.renewing, shown):
            generation = way.renewing.generation
            following = await hand_over(side, relay, reading, way.connector)
            if following is None:
                await asyncio.wait({reading}, timeout=AGAIN_SEC * (0.5 + way.ids.jitter() / 2))
                continue
            shown = generation
            reading.cancel()
            reading = asyncio.create_task(side.read(following))
        reading.result()
    finally:
        reading.cancel()
        await asyncio.wait({reading})


async def _newer_comes(reading: asyncio.Task[None], renewing: Renewing, shown: int) -> bool:
    """Wait for a newer certificate; tell whether one came before the link ended."""
    newer = asyncio.create_task(renewing.newer_than(shown))
    try:
        await asyncio.wait({reading, newer}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        newer.cancel()
    return not reading.done()


async def hand_over(
    side: Side, relay: Relay, reading: asyncio.Task[Any], connector: Connector
) -> AsyncIterator[Message] | None:
    """Go over to a new link; return its messages, or None when the older one stays.

    reading  reads the older link
    Raises Unavailable, ProtocolError, TimeoutError when both links are gone.
    """
    older = relay.below
    try:
        newer = await connector.connect()  # 1
    except (Unavailable, UntrustedPeer, NotAllowed) as fault:
        _log.warning("link.not_renewed", code=fault.error_code, cause=fault.message)
        return None
    if reading.done():
        await newer.close()
        return None
    try:
        relay.hold()  # 2
        await side.pause()
        await newer.send(side.hello(renews=True))  # 3
        stream = newer.messages()
        welcome = await _welcome(stream)
        relay.go_on(newer)  # 4
        side.resume(welcome, relay)
        await asyncio.wait({reading}, timeout=LAST_WORDS_SEC)  # 5
        await older.close()
        await newer.send(side.held())  # 6
        await side.tell_sessions(newer)
    except BaseException:
        await asyncio.gather(older.close(), newer.close(), return_exceptions=True)
        raise
    _log.info("link.renewed")
    return stream


async def _welcome(stream: AsyncIterator[Message]) -> Welcome:
    async with asyncio.timeout(WELCOME_SEC):
        first = await anext(stream, None)
    if isinstance(first, Rejected):
        raise Unavailable(f"The controller did not take over: {first.message}", code=first.code)
    if not isinstance(first, Welcome):
        raise ProtocolError("The controller did not answer hello with welcome or rejected.")
    return first

"""The controller's end of one worker's WebSocket: what is sent waits in a short, bounded queue.

Nobody who sends waits for a slow worker. One that does not read is dropped; its leases stay with it
until it is back or they run out.
"""

import asyncio
import contextlib

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from crank.errors import Unavailable
from crank.wire import MESSAGE_BYTES_MAX, Message, encode

QUEUED_MESSAGES_MAX = 512
QUEUED_BYTES_MAX = 4 * MESSAGE_BYTES_MAX
SEND_SEC_MAX = 10.0
_REASON_BYTES_MAX = 120
# In the range that RFC 6455 leaves to applications.
CLOSE_CODE = 4000


class SocketLink:
    """Implements `ports.WorkerLink`. `writer` is done when the connection is closed."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._queue: asyncio.Queue[str] = asyncio.Queue(QUEUED_MESSAGES_MAX)
        self._queued_bytes = 0
        self._closing: str | None = None
        self.writer = asyncio.create_task(self._write(), name="worker link")

    async def send(self, message: Message) -> None:
        """Queue one message. Raises Unavailable when the connection is gone or the worker does not read."""
        text = encode(message)
        if self._closing is not None or self.writer.done():
            raise Unavailable("The worker's connection is gone.", code="worker_gone")
        if self._queue.full() or self._queued_bytes + len(text) > QUEUED_BYTES_MAX:
            self.writer.cancel()
            raise Unavailable("The worker does not read its messages.", code="worker_slow")
        self._queued_bytes += len(text)
        self._queue.put_nowait(text)

    async def refuse(self, message: Message) -> None:
        """Queue a last message, if the connection still stands."""
        with contextlib.suppress(Unavailable):
            await self.send(message)

    async def close(self, code: str, message: str) -> None:
        """End the connection when what is queued has been sent, telling why."""
        if self._closing is None:
            self._closing = f"{code}: {message}".encode()[:_REASON_BYTES_MAX].decode(errors="ignore")
            with contextlib.suppress(asyncio.QueueFull):
                # Wakes the writer; an empty text is never sent.
                self._queue.put_nowait("")

    async def finish(self) -> None:
        """Wait until the connection is closed. Safe to call twice."""
        await self.close("closed", "The connection has ended.")
        await asyncio.gather(self.writer, return_exceptions=True)
        # A writer that was cancelled before its first step never reached its own end.
        await self._hang_up()

    async def _write(self) -> None:
        try:
            while text := await self._queue.get():
                async with asyncio.timeout(SEND_SEC_MAX):
                    await self._socket.send_text(text)
                self._queued_bytes -= len(text)
        except (TimeoutError, WebSocketDisconnect, RuntimeError, OSError):
            # The other side is gone or does not read; the reader of this socket notices the same.
            return
        finally:
            await self._hang_up()

    async def _hang_up(self) -> None:
        if self._socket.application_state is WebSocketState.CONNECTED:
            with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError, OSError):
                async with asyncio.timeout(SEND_SEC_MAX):
                    await self._socket.close(CLOSE_CODE, self._closing or "worker_slow: It does not read.")

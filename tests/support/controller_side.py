"""A controller's worker listener for tests of the link: WebSocket and blobs over mutual TLS on one loopback port."""

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from crank.adapters.controller_link import WebSocketConnector
from crank.domain.ids import Digest
from crank.security import Verifier
from crank.wire import Message, decode, encode

TRUST_DOMAIN = "test.internal"


class SocketPeer:
    """The controller's end of one WebSocket."""

    def __init__(self, socket: ServerConnection) -> None:
        self._socket = socket

    async def send(self, message: Message) -> None:
        """Send a message to the worker."""
        await self._socket.send(encode(message))

    async def send_raw(self, raw: str) -> None:
        """Send what may not be a message."""
        await self._socket.send(raw)

    async def messages(self) -> AsyncIterator[Message]:
        """Yield what the worker sends."""
        with contextlib.suppress(ConnectionClosed):
            async for raw in self._socket:
                yield decode(raw)

    async def hang_up(self) -> None:
        """End the connection."""
        await self._socket.close()


class TlsController:
    """One port in front: by its path, a connection is a WebSocket (passed on within the process) or a blob."""

    def __init__(self, server_context: ssl.SSLContext) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.spoil_blobs = False
        # Connections that brought or took blobs; and whether each serves more than one.
        self.blob_connections = 0
        self.keep_alive = False
        self._context = server_context
        self._accepted: asyncio.Queue[SocketPeer] = asyncio.Queue()
        self._gone = asyncio.Event()
        self.url = ""

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["TlsController"]:
        """Listen while the block runs."""
        sockets: Server = await serve(self._socket, "127.0.0.1", 0)
        socket_port = next(iter(sockets.sockets)).getsockname()[1]

        async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._connection(reader, writer, socket_port)

        front = await asyncio.start_server(one, "127.0.0.1", 0, ssl=self._context)
        self.url = f"wss://127.0.0.1:{front.sockets[0].getsockname()[1]}/v1/worker"
        try:
            yield self
        finally:
            self._gone.set()
            front.close()
            sockets.close()
            await sockets.wait_closed()

    async def accept(self) -> SocketPeer:
        """Return the next WebSocket."""
        return await self._accepted.get()

    async def _socket(self, socket: ServerConnection) -> None:
        await self._accepted.put(SocketPeer(socket))
        await socket.wait_closed()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET /v1/worker "):
                await self._tunnel(head, reader, writer, port)
                return
            self.blob_connections += 1
            while True:
                await self._blob(head, reader, writer)
                if not self.keep_alive:
                    break
                head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def _tunnel(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        inner_writer.write(head)
        copies = [
            asyncio.create_task(_copy(reader, inner_writer)),
            asyncio.create_task(_copy(inner_reader, writer)),
        ]
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        for copy in copies:
            copy.cancel()
        await asyncio.wait(copies)
        inner_writer.close()

    async def _blob(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, path, _ = head.decode().split("\r\n")[0].split(" ")
        digest = Digest(path.rpartition("/")[2])
        if method == "PUT":
            lines = [line.lower() for line in head.decode().split("\r\n")]
            (length,) = [int(line.split(":")[1]) for line in lines if line.startswith("content-length:")]
            self.blobs[digest] = await reader.readexactly(length)
            status, body = "201 Created", b""
            assert hashlib.sha256(self.blobs[digest]).hexdigest() == digest
        elif digest not in self.blobs:
            status, body = "404 Not Found", b""
        else:
            status, body = "200 OK", self.blobs[digest]
        if self.spoil_blobs:
            body = bytes(reversed(body))
        size = len(body)
        last = "keep-alive" if self.keep_alive else "close"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\nConnection: {last}\r\n\r\n".encode())
        if method != "HEAD":
            writer.write(body)
        await writer.drain()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while chunk := await source.read(65_536):
            target.write(chunk)
            await target.drain()


class LinkSide:
    """A listening controller with a connector to it, as the contract suite wants it."""

    def __init__(self, controller: TlsController, client_context: ssl.SSLContext, verifier: Verifier) -> None:
        self.controller = controller
        self.connector = WebSocketConnector(controller.url, client_context, TRUST_DOMAIN, identify=verifier.peer)
        self.blobs = controller.blobs

    async def accept(self) -> SocketPeer:
        """Return the next connection."""
        return await self.controller.accept()

"""`crank mcp`: the bridge that a host of agents starts; nothing but the protocol on stdout."""

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import AsyncIterator

from crank.bootstrap.leash import Child
from crank.bootstrap.node import STOP_MARGIN_SEC, client_options, node_info, start_free_node
from crank.cli.exit_codes import ExitCode
from crank.cli.show import say
from crank.client import ClientOptions
from crank.client.mcp_bridge import Bridge
from crank.client.mcp_messages import MESSAGE_BYTES_MAX
from crank.config import load
from crank.errors import NotFound

_LINES_AHEAD = 64


def bridge() -> int:
    """Speak MCP on stdin and stdout, for hosts that start their servers as programs.

    Every message goes to the node's /mcp over HTTPS. Uses the node that runs, or starts one for as long
    as the host keeps this program.
    """
    asyncio.run(_bridge())
    return ExitCode.OK


async def _bridge() -> None:
    found = _Found()
    serving = asyncio.ensure_future(Bridge(found.locate, _put).serve(_lines()))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, serving.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await serving
    finally:
        await found.leave()


class _Found:
    """The node: one that runs, or one of our own when none does."""

    def __init__(self) -> None:
        self._own: Child | None = None

    async def locate(self) -> ClientOptions:
        """Return how to reach the node. Raises ConfigurationError and what keeps a node from starting."""
        settings = load()
        try:
            return client_options(node_info(settings))
        except NotFound:
            await self.leave()
        # Half of what this program would load, for what a running node never needs of it.
        from crank.bootstrap.profiles import Profiles

        await asyncio.to_thread(Profiles(settings).build_first, say)
        self._own, document = await start_free_node(settings)
        say(f"started a node at {document['api']}")
        return client_options(document)

    async def leave(self) -> None:
        """Stop the node that was started here."""
        if self._own is not None:
            own, self._own = self._own, None
            await own.stop(load().drain_sec + STOP_MARGIN_SEC)


async def _lines() -> AsyncIterator[bytes | None]:
    """Yield lines of stdin, whatever kind of file it is; None for one that is too long."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[tuple[bytes | None] | None] = asyncio.Queue(_LINES_AHEAD)

    def read() -> None:
        source = sys.stdin.buffer
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it who listens
            while line := source.readline(MESSAGE_BYTES_MAX + 2):
                whole = line.endswith(b"\n") or len(line) <= MESSAGE_BYTES_MAX
                while not whole and line and not line.endswith(b"\n"):
                    line = source.readline(MESSAGE_BYTES_MAX)
                asyncio.run_coroutine_threadsafe(arrived.put((line if whole else None,)), loop).result()
            asyncio.run_coroutine_threadsafe(arrived.put(None), loop).result()

    # Not waited for at exit: a host may keep stdin open for ever.
    threading.Thread(target=read, daemon=True, name="stdin").start()
    while (entry := await arrived.get()) is not None:
        yield entry[0]


_writing = threading.Lock()


async def _put(line: bytes) -> None:
    def write() -> None:
        with _writing:
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()

    await asyncio.to_thread(write)

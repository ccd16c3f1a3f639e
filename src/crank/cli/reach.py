"""How commands reach the running node."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from crank.bootstrap.node import client_options, node_info
from crank.client import AsyncClient
from crank.config import load

T = TypeVar("T")


def ask(work: Callable[[AsyncClient], Awaitable[T]]) -> T:
    """Do something with a client of the running node. Raises NotFound when none runs."""

    async def asking() -> T:
        async with AsyncClient(client_options(node_info(load()), retry_sec=10.0)) as client:
            return await work(client)

    return asyncio.run(asking())

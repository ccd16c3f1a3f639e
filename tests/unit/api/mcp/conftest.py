"""The door of MCP before a desk on real adapters."""

import httpx2
import pytest

from crank.api.mcp.door import Door
from crank.api.peer import Gate
from crank.domain.rules.doorway import known_names
from tests.support.desk import SECRET, open_desk


@pytest.fixture
async def house(tmp_path):
    """Give a desk, its door and a client of it."""
    async with open_desk(tmp_path) as desk:
        door = Door(desk, Gate(desk), version="0", names=known_names("127.0.0.1"))
        transport = httpx2.ASGITransport(app=door, raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {SECRET}"}
        async with httpx2.AsyncClient(transport=transport, base_url="https://localhost", headers=headers) as client:
            yield desk, door, client
        await door.close()

"""Sessions of the older era: how many one credential holds, which one ends for a new one, and what a refusal says."""

import asyncio
import contextlib

import httpx2
import mcp_types.version
import pytest

from crank.api.app import build_api
from crank.api.mcp import seats
from crank.api.mcp.seats import OLDER_REVISIONS, SESSION_IDLE_SEC, SESSIONS_MAX, SESSIONS_OF_ONE_MAX, Seats
from crank.errors import Unavailable
from crank.testing.fakes import FakeClock
from tests.unit.api.conftest import check_problem
from tests.unit.api.test_keys import minted

OPENING = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}},
}  # fmt: skip
LISTING = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
FORM = {"content-type": "application/json", "accept": "application/json, text/event-stream"}


class Ends:
    """Notes which sessions were to end."""

    def __init__(self):
        self.told = []

    async def __call__(self, session_id):
        """Note one."""
        self.told.append(session_id)


async def _open(held, owner, session_id, end=None):
    async with held.opening(owner, end or Ends()) as note:
        note(session_id)


def test_the_older_revisions_are_those_that_the_sdk_opens_sessions_for():
    """The door counts exactly what the SDK would open."""
    assert OLDER_REVISIONS == mcp_types.version.HANDSHAKE_PROTOCOL_VERSIONS


async def test_the_idlest_ends_for_a_new_one():
    """At the bound of one credential its least lately used session ends, never one with a call under way or another's."""
    held, ends = Seats(FakeClock()), Ends()
    await _open(held, "b", "other")
    for number in range(SESSIONS_OF_ONE_MAX):
        await _open(held, "a", f"a{number}", ends)
    assert ends.told == []
    with held.using("a0", "a", "POST"), held.using("a2", "b", "POST"), held.using("a3", "a", "GET"):
        await _open(held, "a", "new", ends)
        with held.using("a2", "a", "POST"):
            pass
        await _open(held, "a", "newer", ends)
        await _open(held, "a", "newest", ends)
    assert ends.told == ["a1", "a3", "a4"]


async def test_one_whose_sessions_are_all_in_use_is_refused():
    """Nothing that is under way is ended for what comes; who asks is told, and others are not held up."""
    held = Seats(FakeClock())
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(SESSIONS_OF_ONE_MAX):
            await stack.enter_async_context(held.opening("a", Ends()))
        with pytest.raises(Unavailable) as caught:
            await _open(held, "a", "x")
        assert caught.value.error_code == "mcp_sessions_full"
        await _open(held, "b", "y")


async def test_a_full_node_refuses_until_idle_ones_are_gone():
    """Many credentials together reach the node's bound; sessions that nobody uses make room by themselves."""
    clock = FakeClock()
    held = Seats(clock)
    for number in range(SESSIONS_MAX):
        await _open(held, f"k{number // SESSIONS_OF_ONE_MAX}", f"s{number}")
    with pytest.raises(Unavailable) as caught:
        await _open(held, "late", "x")
    assert "DELETE" in caught.value.fix
    clock.advance(SESSION_IDLE_SEC + 1)
    await _open(held, "late", "x")


async def test_a_client_that_ends_its_session_makes_room():
    """Only whoever it belongs to takes a session out of the count."""
    held, ends = Seats(FakeClock()), Ends()
    for number in range(SESSIONS_OF_ONE_MAX):
        await _open(held, "a", f"a{number}")
    with held.using("a5", "b", "DELETE"):
        pass
    with held.using("a7", "a", "DELETE"):
        pass
    await _open(held, "a", "x", ends)
    assert ends.told == []
    await _open(held, "a", "y", ends)
    assert ends.told == ["a0"]


# --- through the door ------------------------------------------------------------------------


@pytest.fixture
async def doors(api, desk):
    """Give clients of two keys on one application."""
    app = build_api(desk, version="0", more_names=["node.test"])
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    clients = []
    for name in ("one", "two"):
        headers = {**FORM, "authorization": f"Bearer {(await minted(api, name))['secret']}"}
        clients.append(httpx2.AsyncClient(transport=transport, base_url="https://node.test", headers=headers))
    yield clients
    for client in clients:
        await client.aclose()
    await app.state.mcp.close()


async def _opened(client):
    answer = await client.post("/mcp", json=OPENING)
    assert answer.status_code == 200, answer.text
    return answer.headers["mcp-session-id"]


async def _status(client, session):
    return (await client.post("/mcp", json=LISTING, headers={"mcp-session-id": session})).status_code


async def test_one_credential_that_opens_without_end_costs_only_itself(doors, monkeypatch):
    """Its oldest sessions end, those of another stay and are opened as before; at once or one by one."""
    monkeypatch.setattr(seats, "SESSIONS_OF_ONE_MAX", 5)
    one, two = doors
    others = await _opened(two)
    mine = [await _opened(one) for _ in range(7)]
    assert [await _status(one, session) for session in mine] == [404, 404, 200, 200, 200, 200, 200]
    answers = await asyncio.gather(*(one.post("/mcp", json=OPENING) for _ in range(40)))
    assert {answer.status_code for answer in answers} <= {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            assert check_problem(answer, 503, "mcp_sessions_full")["fix"]
    assert await _status(two, others) == 200
    assert await _status(two, await _opened(two)) == 200
    assert await _status(one, await _opened(one)) == 200


async def test_a_full_node_says_so_with_a_code(doors, monkeypatch):
    """Who finds every place taken is told what to do."""
    monkeypatch.setattr(seats, "SESSIONS_MAX", 1)
    one, two = doors
    session = await _opened(one)
    check_problem(await two.post("/mcp", json=OPENING), 503, "mcp_sessions_full")
    assert (await one.delete("/mcp", headers={"mcp-session-id": session})).status_code == 200
    await _opened(two)


async def test_what_opens_nothing_takes_no_place(doors, monkeypatch):
    """A request that no session comes of is answered and counted nowhere."""
    monkeypatch.setattr(seats, "SESSIONS_MAX", 1)
    one, two = doors
    for _ in range(3):
        assert (await one.post("/mcp", json=LISTING)).status_code >= 400
    await _opened(two)

"""The pages for agents, without a network: who sees which, and what a forged Host header cannot do."""

import json

import httpx2
import pytest

from crank.api.app import build_api
from crank.controller.mounts import add
from crank.domain.ids import LOCAL_TENANT


@pytest.mark.usefixtures("worker")
async def test_instructions_name_what_the_caller_has(api, desk, tmp_path_factory):
    """Mounts and capabilities come from this desk at this moment."""
    folder = tmp_path_factory.mktemp("shared")
    await add(desk, tenant=LOCAL_TENANT, subject="local", path=str(folder), name="papers")
    text = (await api.get("/llms.txt")).text
    assert "`papers`" in text
    assert "python.run.core" in text
    assert str(folder) not in text


@pytest.mark.usefixtures("worker")
async def test_strangers_get_the_same_page_from_every_node(api):
    """Without a credential nothing tells one node from another, and no cache keeps what it saw."""
    del api.headers["authorization"]
    page = await api.get("/llms.txt")
    assert page.status_code == 200
    assert "python" not in page.text
    assert (page.headers["vary"], page.headers["cache-control"]) == ("Authorization", "no-store")
    assert (await api.get("/.well-known/agent-card.json")).json()["skills"] == []


@pytest.mark.parametrize("path", ["/.well-known/agent-card.json", "/openapi/actions.json", "/openapi/actions-3.0.json"])
async def test_a_forged_host_is_not_repeated(api, path):
    """Under a name that is not the node's, each document names the node by its own."""
    for host in ("evil.test", "evil.test:443", "node.test.evil.test", "evil.test/path", "a b", 'x"y', "user@host", ""):
        document = (await api.get(path, headers={"Host": host})).json()
        assert "evil" not in json.dumps(document)
        told = document["supportedInterfaces"] if "supportedInterfaces" in document else document["servers"]
        assert told[0]["url"].removesuffix("/v1") == "https://localhost", host


@pytest.mark.parametrize("host", ["node.test", "node.test:8443", "localhost:7443", "[::1]:7443"])
async def test_a_name_of_the_node_is_repeated(api, host):
    """Whoever reached the node by one of its names is told that name, with the port."""
    card = (await api.get("/.well-known/agent-card.json", headers={"Host": host})).json()
    assert card["supportedInterfaces"][0]["url"] == f"https://{host}/v1"


async def test_a_forged_host_is_answered_with_the_public_address_where_one_is_set(desk):
    """Behind a tunnel the Host may be anything, so the operator's word counts."""
    transport = httpx2.ASGITransport(app=build_api(desk, version="0", public_url="https://crank.example.org"))
    async with httpx2.AsyncClient(transport=transport, base_url="https://evil.test") as client:
        card = (await client.get("/.well-known/agent-card.json")).json()
    assert card["supportedInterfaces"][0]["url"] == "https://crank.example.org/v1"

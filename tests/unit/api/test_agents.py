"""The pages for agents, without a network: who sees which, and what a forged Host header cannot do."""

import pytest

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


@pytest.mark.parametrize("host", ["evil.test/path", "a b", 'x"y', "user@host", ""])
async def test_a_forged_host_is_not_repeated(api, host):
    """The card's address is a host and a port or nothing that came from outside."""
    card = (await api.get("/.well-known/agent-card.json", headers={"Host": host})).json()
    assert card["supportedInterfaces"][0]["url"] == "https://localhost/v1"

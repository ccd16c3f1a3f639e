"""Tokens on a real node: the command line, the client and MCP's door, over what the real authority signs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crank import Client
from crank.client import ProofKey, TokenWanted
from crank.errors import NotAllowed
from tests.support.node import Node, running_node
from tests.unit.api.mcp.test_door import message

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("tokens")]

ROLE = """
summary = "Two runs."
who = ["owner"]
lifetime_sec = 120
bearer_sec = 60

[[rights]]
identifier = "python.run.core"
calls_max = 2
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory) -> Iterator[Node]:
    """Give one node to all tests of this module."""
    home: Path = tmp_path_factory.mktemp("tokens") / "home"
    (home / "roles").mkdir(parents=True)
    (home / "roles" / "twice.toml").write_text(ROLE)
    with running_node(home) as running:
        yield running


def reach(node: Node) -> dict[str, Any]:
    """Return how a client without a secret reaches the node."""
    info = node.info()
    return {"api": info["api"], "ca_file": info["ca_file"]}


def minted(node: Node, *argv: str) -> dict[str, str]:
    """Make a token by the command line."""
    done = node.crank("token", "mint", *argv, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_a_token_is_made_used_and_ended_by_the_command_line(node: Node) -> None:
    """Mint under a role, look, verify, spend, revoke: what each says is what the node does."""
    assert "twice" in node.crank("token", "roles").stdout
    token = minted(node, "--role", "twice")
    text = token["access_token"]
    shown = json.loads(node.crank("token", "inspect", "-", stdin=text).stdout)
    assert shown["claims"]["jti"] == token["grant_id"]
    assert shown["claims"]["iss"] == node.info()["api"]
    assert node.crank("token", "verify", text).returncode == 0
    with Client(**reach(node), token=text) as agent:
        assert agent.run("print('hi')").stdout == "hi\n"
        assert agent.run("print('hi')").stdout == "hi\n"
        with pytest.raises(NotAllowed) as spent:
            agent.run("print('hi')")
        assert spent.value.error_code == "calls_spent"
    narrower = node.crank("token", "exchange", "-", "--allow", "python.run.core", "--expires", "1m", stdin=text)
    assert narrower.returncode == 0, narrower.stderr
    assert node.crank("token", "revoke", token["grant_id"]).returncode == 0
    assert node.crank("token", "verify", "-", stdin=narrower.stdout).returncode != 0
    rows = json.loads(node.crank("token", "list", "--json").stdout)["tokens"]
    assert {one["grant_id"]: one["active"] for one in rows}[token["grant_id"]] is False


def test_what_is_wrong_is_said(node: Node) -> None:
    """Bad times, roles and tokens end with a sentence and a code, and nothing is made."""
    assert node.crank("token", "mint", "--calls", "2").returncode == 2
    assert "role_not_found" in node.crank("token", "mint", "--role", "none", "--json").stdout
    assert node.crank("token", "inspect", "nonsense").returncode != 0


def test_a_session_and_mcp_obey_the_grant(node: Node) -> None:
    """A session runs under a token that names its capability; MCP answers a token as it answers a key, and refuses what it does not name."""
    key = ProofKey()
    with Client(home=node.home) as owner:
        given = owner.tokens.exchange(scope="python.run.core", holder_jkt=key.jkt)
        other = owner.tokens.exchange(scope="document.*")
    with Client(**reach(node), token=given.text, proof_key=key) as agent, agent.session() as session:
        session.run("x = 41")
        assert session.run("x + 1").result == 42
    asked = message("tools/call", name="run_python", arguments={"code": "print('hi')"})
    headers = {**asked["headers"], "authorization": f"Bearer {other.text}"}
    answer = node.client().http.post("/mcp", content=asked["content"], headers=headers)
    assert answer.status_code == 200, answer.text
    assert "capability_not_granted" in answer.text
    with Client(**reach(node), token=other.text) as agent, pytest.raises(NotAllowed):
        agent.session().__enter__()


def test_a_client_that_exchanges_sends_its_secret_to_the_token_endpoint_alone(node: Node) -> None:
    """The token file's secret becomes a token that runs jobs and mints no key."""
    with Client(home=node.home, exchange=TokenWanted(scope="python.*")) as agent:
        assert agent.run("print('hi')").stdout == "hi\n"
        with pytest.raises(NotAllowed):
            agent.keys.mint("another")

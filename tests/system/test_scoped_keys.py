"""Keys with rights on a real node: made by the command line, shown at each listener, and used by a real sandbox."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from crank import Client
from crank.errors import NotAllowed
from tests.support.node import Node, running_node

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("scoped-keys")]


@pytest.fixture(scope="module")
def node(tmp_path_factory) -> Iterator[Node]:
    """Give one node that serves E2B's clients, too."""
    settings = {"CRANK_E2B": "true", "CRANK_E2B_PORT": "0"}
    with running_node(tmp_path_factory.mktemp("scoped") / "home", settings) as running:
        yield running


def minted(node: Node, *argv: str) -> dict[str, Any]:
    """Make a key by the command line."""
    done = node.crank("key", "mint", *argv, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_an_e2b_key_for_sandboxes_opens_one_and_a_key_for_something_else_none(node: Node) -> None:
    """The steward answers in a sandbox of a key that names python.run.interpreter alone; the other key gets 403 and a sentence."""
    address = json.loads(node.crank("node", "info", "--json").stdout)["e2b"]["env"]["E2B_API_URL"]
    own = minted(node, "sandboxes", "--kind", "e2b", "--capability", "python.run.interpreter")
    other = minted(node, "other", "--kind", "e2b", "--capability", "python.run.core", "--capability", "python.run")
    with httpx2.Client(base_url=address, timeout=120) as e2b:
        refused = e2b.post("/sandboxes", json={"templateID": "base"}, headers={"x-api-key": other["secret"]})
        assert (refused.status_code, "python.run.interpreter" in refused.json()["message"]) == (403, True)
        mine = {"x-api-key": own["secret"]}
        opened = e2b.post("/sandboxes", json={"templateID": "base"}, headers=mine)
        assert opened.status_code == 201, opened.text
        place = f"/sandboxes/{opened.json()['sandboxID']}"
        assert e2b.get(place, headers=mine).status_code == 200
        assert len(e2b.get("/sandboxes", headers=mine).json()) == 1
        # A job of the sandbox answers this, for the key that it belongs to.
        measured = e2b.get(f"{place}/metrics", headers=mine)
        assert (measured.status_code, len(measured.json())) == (200, 1), measured.text
        assert e2b.get(place, headers={"x-api-key": other["secret"]}).status_code == 404
        assert e2b.delete(place, headers=mine).status_code == 204


def test_a_key_for_one_capability_runs_that_alone(node: Node) -> None:
    """What `crank key mint` was told is what the list shows and the API obeys; counts are sent to a token."""
    key = minted(node, "narrow", "--capability", "python.run.core")
    calls = minted(node, "calls", "--capability", "python.run.core", "--constraint", '{"required": ["n"]}')
    shown = [row for row in node.crank("key", "list").stdout.splitlines() if "narrow" in row]
    assert ["python.run.core" in row for row in shown] == [True]
    info = node.info()
    with Client(api=info["api"], ca_file=info["ca_file"], token=key["secret"]) as agent:
        assert agent.run("result = args['n']", args={"n": 3}).result == 3
        assert agent.keys.own().rights == tuple(key["authorization_details"])
        with pytest.raises(NotAllowed) as elsewhere:
            agent.run("1", capability="python.run.interpreter")
        assert elsewhere.value.error_code == "capability_not_granted"
        once = agent.tokens.exchange(key["secret"], rights=[{"identifier": "*", "calls_max": 1}])
    with Client(api=info["api"], ca_file=info["ca_file"], token=once.text) as agent:
        assert agent.run("result = args['n']", args={"n": 4}).result == 4
        with pytest.raises(NotAllowed) as spent:
            agent.run("1", args={"n": 5})
        assert spent.value.error_code == "calls_spent"
    # A schema of args lets functions through and no script.
    with Client(api=info["api"], ca_file=info["ca_file"], token=calls["secret"]) as agent, pytest.raises(NotAllowed) as code:
        agent.run("1", args={"n": 1})
    assert code.value.error_code == "code_not_granted"
    assert node.crank("key", "mint", "owner-too", "--kind", "owner", "--capability", "*").returncode != 0

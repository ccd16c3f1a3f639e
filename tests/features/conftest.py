"""Steps that several features share: a running node, and a controller with workers of known kinds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_bdd import given

from tests.support.node import Node, running_node


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give one started node to the scenarios of a feature."""
    with running_node(tmp_path_factory.mktemp("node") / "home") as started:
        yield started


@given("a running node", target_fixture="running")
def _(node: Node) -> Node:
    return node


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder of the agent's own."""
    made = tmp_path / "agent"
    made.mkdir()
    return made

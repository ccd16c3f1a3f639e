"""The E2B surface, judged by programs that were written for E2B: unmodified, told where to go by variables alone."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import Node, running_node

pytestmark = [pytest.mark.system]
JUDGES = Path(__file__).parent
PROGRAM_SEC = 150


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One node that serves E2B's clients."""
    settings = {"CRANK_E2B": "true", "CRANK_E2B_PORT": "0", "CRANK_WORKER_SLOTS": "8"}
    with running_node(tmp_path_factory.mktemp("e2b") / "home", settings) as running:
        yield running


@pytest.fixture(scope="module")
def env(node: Node) -> dict[str, str]:
    """What `crank node info` says that a client must set."""
    said = node.crank("node", "info", "--json")
    found: dict[str, str] = json.loads(said.stdout)["e2b"]["env"]
    assert set(found) == {"E2B_API_URL", "E2B_SANDBOX_URL", "E2B_API_KEY"}
    return found


def faults(program: Path, interpreter: Path, env: dict[str, str]) -> dict[str, str | None]:
    """Run a program and return what became of each of its checks."""
    plain = {name: text for name, text in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    done = subprocess.run(
        [str(interpreter), str(program)],
        env={**plain, **env},
        capture_output=True,
        text=True,
        timeout=PROGRAM_SEC,
        check=False,
        cwd=program.parent,
    )
    lines: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"check"')]
    assert done.returncode == 0 and lines, done.stdout[-2000:] + done.stderr[-4000:]
    return {line["check"]: line["fault"] for line in lines}


def expect_none(found: dict[str, str | None], count: int) -> None:
    """Insist that so many checks ran and none failed."""
    assert "\n".join(f"{name}: {fault}" for name, fault in found.items() if fault) == ""
    assert len(found) >= count, sorted(found)


def test_pythons_client(node: Node, env: dict[str, str], judge: Callable[[str], Path]) -> None:
    """E2B's Python client does everything it can do against a node, and is told what a node does not offer."""
    expect_none(faults(JUDGES / "e2b" / "sync_client.py", judge("e2b"), env), 21)


def test_pythons_asynchronous_client(node: Node, env: dict[str, str], judge: Callable[[str], Path]) -> None:
    """E2B's asynchronous Python client runs code, commands and watches beside each other."""
    expect_none(faults(JUDGES / "e2b" / "async_client.py", judge("e2b"), env), 4)


def test_javascripts_client(node: Node, env: dict[str, str], judge: Callable[[str], Path]) -> None:
    """E2B's JavaScript client runs code, commands and files."""
    expect_none(faults(JUDGES / "e2b_node" / "client.cjs", judge("e2b_node"), env), 5)


def test_smolagents(node: Node, env: dict[str, str], judge: Callable[[str], Path]) -> None:
    """smolagents' code agent reaches its final answer with variables, a tool and state in the sandbox."""
    expect_none(faults(JUDGES / "smolagents" / "agent.py", judge("smolagents"), env), 1)


def test_langchain(node: Node, env: dict[str, str], judge: Callable[[str], Path]) -> None:
    """LangChain's sandbox backend runs commands and works on files."""
    expect_none(faults(JUDGES / "langchain_e2b" / "agent.py", judge("langchain_e2b"), env), 3)

"""`crank connect` as a person uses it: the host's file is written once its command is proven, and taken back whole."""

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crank.bootstrap.list_tools import list_tools
from crank.errors import Unavailable
from tests.support.node import REPO, Node, running_node

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("connect")]

FILES = {
    "claude": ".config/Claude/claude_desktop_config.json", "cursor": ".cursor/mcp.json", "vscode": ".config/Code/User/mcp.json",
    "windsurf": ".codeium/windsurf/mcp_config.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give a running node, and a person whose folder is not the tester's."""
    folder = tmp_path_factory.mktemp("connect")
    (folder / "person").mkdir()
    environment = {"HOME": str(folder / "person"), "XDG_CONFIG_HOME": ""}
    with running_node(folder / "home", environment) as node:
        yield node


def person(node: Node) -> Path:
    """Return the person's folder."""
    return Path(node.environment["HOME"])


def connect(node: Node, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return node.crank("connect", *argv)


@pytest.mark.parametrize("host", FILES)
def test_a_host_is_connected_and_proven(node: Node, host: str) -> None:
    """The entry stands where the host looks, starts by itself, lists real tools, and holds no secret."""
    # That the others' commands list their tools too is shown by the pages that tell of them.
    proven = host == "claude"
    done = connect(node, host, "--json", *([] if proven else ["--no-verify"]))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    path = person(node) / FILES[host]
    assert told["file"] == str(path)
    written = path.read_text()
    assert json.loads(written)["servers" if host == "vscode" else "mcpServers"]["crank"] == told["entry"]
    secret = Path(node.info()["token_file"]).read_text().strip()
    assert secret not in written
    entry = told["entry"]
    if proven:
        assert "run_python" in told["tools"]
        assert list_tools([entry["command"], *entry["args"]], entry["env"]) == told["tools"]


def test_what_was_there_stays_and_comes_back(node: Node) -> None:
    """Beside another server: connecting keeps it and a backup, again changes nothing, removing leaves the rest."""
    path = person(node) / "project" / ".cursor" / "mcp.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"mcpServers": {"other": {"url": "https://x"}}}')
    path.chmod(0o644)
    project = ("--project", str(path.parents[1]), "--no-verify", "--json")
    first = json.loads(connect(node, "cursor", *project).stdout)
    assert Path(first["backup"]).read_text() == '{"mcpServers": {"other": {"url": "https://x"}}}'
    assert set(json.loads(path.read_text())["mcpServers"]) == {"other", "crank"}
    again = json.loads(connect(node, "cursor", *project).stdout)
    assert again["backup"] is None
    connect(node, "cursor", *project, "--remove")
    assert json.loads(path.read_text()) == {"mcpServers": {"other": {"url": "https://x"}}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_claude_code_reads_the_project(node: Node) -> None:
    """Without --project the folder that one stands in is meant."""
    done = connect(node, "claude-code", "--no-verify", "--json")
    assert json.loads(done.stdout)["file"] == str(node.home.parent / ".mcp.json")


def test_a_file_with_comments_is_left_alone(node: Node) -> None:
    """The refusal carries what to put in by hand, and the file is as before."""
    path = person(node) / "commented" / ".vscode" / "mcp.json"
    path.parent.mkdir(parents=True)
    path.write_text("{\n  // mine\n}\n")
    done = connect(node, "vscode", "--project", str(path.parents[1]), "--no-verify", "--json")
    fault = json.loads(done.stdout)["error"]
    assert (done.returncode, fault["code"]) == (2, "host_file_unreadable")
    assert '"servers"' in fault["fix"]
    assert path.read_text() == "{\n  // mine\n}\n"


def test_printing_writes_nothing(node: Node) -> None:
    """--print shows the entry and the place."""
    done = connect(node, "windsurf", "--print", "--project", str(person(node)))
    assert done.returncode == 2
    before = sorted(person(node).rglob("*"))
    done = connect(node, "windsurf", "--print")
    assert set(json.loads(done.stdout)) == {"mcpServers"}
    assert sorted(person(node).rglob("*")) == before


def test_chatgpt_is_told_with_this_nodes_facts(node: Node) -> None:
    """Each way names the commands with this node's port and files; no secret is printed."""
    ways = connect(node, "chatgpt", "--tunnel").stdout
    port = node.info()["api"].rpartition(":")[2]
    for promised in ("tunnel-client run --profile crank", "crank mcp", f"127.0.0.1:{port}", "--tls-cert", "crank doctor --public"):
        assert promised in ways
    steps = connect(node, "chatgpt").stdout
    assert "/openapi/actions.json" in steps
    secret = Path(node.info()["token_file"]).read_text().strip()
    assert secret not in ways + steps


def test_other_words_are_refused(node: Node) -> None:
    """An unknown host, a tunnel for an editor, E2B where it is not served: each with its own code."""
    for argv, code in (
        (("emacs",), "unknown_host"), (("cursor", "--tunnel"), "not_supported"), (("chatgpt", "--remove"), "not_supported"),
        (("e2b",), "e2b_not_served"),
    ):  # fmt: skip
        done = connect(node, *argv, "--json")
        assert json.loads(done.stdout)["error"]["code"] == code
        assert done.returncode != 0


def test_the_bundle_for_claude_desktop_starts(node: Node) -> None:
    """What the bundle runs becomes this machine's crank and lists the very tools that its manifest names."""
    from tests.judges.test_mcpb import builder

    server = REPO / "tools" / "mcpb" / "server.py"
    environment = {"CRANK_COMMAND": str(Path(sys.executable).with_name("crank")), "CRANK_HOME": str(node.home)}
    tools = list_tools([sys.executable, str(server)], environment)
    assert list(tools) == [tool["name"] for tool in builder().manifest()["tools"]]


@pytest.mark.parametrize("program", ["import sys; sys.exit('broken here')", "print(1)", "print('{\"id\": 1}')", "import time; print('x' * 5_000_000)"])
def test_a_command_that_does_not_speak_is_told(program: str) -> None:
    """Whatever the command does instead of answering, the person learns that it does not work, and why if it said so."""
    with pytest.raises(Unavailable) as caught:
        list_tools([sys.executable, "-c", program], {})
    assert caught.value.error_code == "tools_not_listed"
    assert ("broken here" in caught.value.message) is ("broken" in program)

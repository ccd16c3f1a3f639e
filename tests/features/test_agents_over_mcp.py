"""Steps of features/agents_over_mcp.feature: a host that starts `crank mcp`, and an agent that only sees its answers."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_bdd import given, scenarios, then, when

from tests.support.node import Node

scenarios("agents_over_mcp.feature")

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("mcp-feature")]

NOTES = 40
SCRIPT = """
import json, time
from pathlib import Path

outcomes = []
for number, path in enumerate(sorted(Path("/in/notes").glob("*.json"))):
    print(f"note {number + 1}", flush=True)
    time.sleep(0.06)
    try:
        note = json.loads(path.read_text())
    except ValueError as error:
        outcomes.append([path.name, str(error)])
        continue
    (Path("/out") / f"{path.stem}.md").write_text(f"# {note['title']}\\n")
    outcomes.append([path.name, "ok"])
result = outcomes
"""


class Agent:
    """A host and its agent: every line that comes back is kept."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.heard: list[str] = []
        self._errors = (folder / "mcp.err").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "crank", "mcp"],
            env=environment, cwd=folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip
        self._next = 0
        opening = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "agent", "version": "1"}}
        self.ask("initialize", **opening)
        self._write({"method": "notifications/initialized"})

    def _write(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.process.stdin.flush()

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask, and read until the answer."""
        self._next += 1
        self._write({"id": self._next, "method": method, "params": params})
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.heard.append(line)
            message = json.loads(line)
            if message.get("id") == self._next:
                result: dict[str, Any] = message["result"]
                return result
        raise AssertionError("the bridge ended")

    def use(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Use a tool, listening for progress."""
        return self.ask("tools/call", name=tool, arguments=arguments, _meta={"progressToken": self._next})

    def leave(self) -> None:
        """End as a host does."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(30) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()


@given("a host whose agent speaks MCP over crank mcp", target_fixture="agent")
def _(agent_of: Agent) -> Agent:
    return agent_of


@pytest.fixture
def agent_of(node: Node, folder: Path) -> Iterator[Agent]:
    """Give an agent that leaves at the end."""
    started = Agent(node.environment, folder)
    yield started
    started.leave()


@given("the user has mounted a folder of 40 notes, of which one is broken", target_fixture="notes")
def _(running: Node, folder: Path) -> dict[str, Any]:
    notes = folder / "private-notes"
    notes.mkdir()
    for number in range(NOTES):
        (notes / f"n{number:02}.json").write_text(json.dumps({"title": f"Note {number}"}))
    (notes / "n07.json").write_text('{"title": ')
    done = running.crank("mount", "add", "notes", str(notes))
    assert done.returncode == 0, done.stderr
    return {"path": notes, "before": _prints(notes)}


def _prints(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@when("the agent finds the folder and submits a script over all of its files", target_fixture="answer")
def _(agent: Agent) -> dict[str, Any]:
    mounts = agent.use("list_files")["structuredContent"]["files"]
    assert [entry["path"] for entry in mounts] == ["notes"]
    listed = agent.use("list_files", mount="notes", limit=200)["structuredContent"]["files"]
    assert len(listed) == NOTES
    looked = agent.use("read_file", mount="notes", path=listed[0]["path"])["structuredContent"]
    assert json.loads(looked["text"]) == {"title": "Note 0"}
    answer: dict[str, Any] = agent.use("run_python", code=SCRIPT, mounts=["notes"])["structuredContent"]
    while not answer["ended"]:
        answer = agent.use("job_wait", job_id=answer["job_id"])["structuredContent"]
    return answer


@then("the agent is told how it goes while the script runs")
def _(agent: Agent) -> None:
    told = [json.loads(line) for line in agent.heard]
    messages = [entry["params"]["message"] for entry in told if entry.get("method") == "notifications/progress"]
    assert any("note" in message for message in messages)


@then("the agent gets a result that names the broken note")
def _(answer: dict[str, Any]) -> None:
    assert answer["status"] == "succeeded"
    assert [name for name, outcome in answer["result"] if outcome != "ok"] == ["n07.json"]
    assert len(answer["result"]) == NOTES


@then("the user finds an output for each good note, with its hash")
def _(running: Node, answer: dict[str, Any], folder: Path) -> None:
    assert answer["artifacts_total"] == NOTES - 1
    done = running.crank("job", "fetch", answer["job_id"], "--out", str(folder / "out"))
    assert done.returncode == 0, done.stderr
    assert (folder / "out" / "n08.md").read_text() == "# Note 8\n"
    fetched = _prints(folder / "out")
    assert len(fetched) == NOTES - 1
    shown = {entry["path"]: entry["sha256"] for entry in answer["artifacts"]}
    assert shown.items() <= fetched.items()


@then("the user's notes are unchanged")
def _(notes: dict[str, Any]) -> None:
    assert _prints(notes["path"]) == notes["before"]


@then("nothing that the agent was told names a path of the user's machine")
def _(agent: Agent, notes: dict[str, Any]) -> None:
    assert not [line for line in agent.heard if "private-notes" in line or str(notes["path"].parent) in line]


@when("the agent asks for a folder that nobody mounted", target_fixture="refused")
def _(agent: Agent, running: Node) -> dict[str, Any]:
    before = len(running.client().http.get("/v1/jobs").json()["jobs"])
    return {"answer": agent.use("run_python", code="1", mounts=["taxes"]), "before": before}


@then("the agent is told what is wrong and what to do")
def _(refused: dict[str, Any]) -> None:
    assert refused["answer"]["isError"] is True
    told = json.loads(refused["answer"]["content"][0]["text"])["error"]
    assert told["code"] == "mount_not_allowed"
    assert "taxes" in told["message"]
    assert told["fix"]


@then("no job was made of it")
def _(refused: dict[str, Any], running: Node) -> None:
    assert len(running.client().http.get("/v1/jobs").json()["jobs"]) == refused["before"]

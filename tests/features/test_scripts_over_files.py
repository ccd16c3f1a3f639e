"""Steps of features/scripts_over_files.feature: the command line against a real node."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pytest_bdd import given, scenarios, then, when

from tests.support.node import Node

scenarios("scripts_over_files.feature")

SCRIPT = """
import json
from pathlib import Path

broken = []
for path in sorted(Path("/in/docs").iterdir()):
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        broken.append({"name": path.name, "cause": str(error)})
        continue
    (Path("/out") / f"{path.stem}.txt").write_text(value["title"])
result = {"broken": broken}
"""
FAILING = """
print("before")
open("/out/half.txt", "w").write("half")
raise ValueError("the third page is missing")
"""


@given("a folder of 3 documents, of which one is broken", target_fixture="documents")
def _(folder: Path) -> dict[str, Any]:
    documents = folder / "docs"
    documents.mkdir()
    (documents / "a.json").write_text('{"title": "Alpha"}')
    (documents / "b.json").write_text('{"title": ')
    (documents / "c.json").write_text('{"title": "Gamma"}')
    return {"path": documents, "before": _prints(documents)}


def _prints(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@when("the agent runs a script over the folder", target_fixture="answer")
def _(running: Node, documents: dict[str, Any], folder: Path) -> dict[str, Any]:
    (folder / "titles.py").write_text(SCRIPT)
    done = running.crank(
        "run", str(folder / "titles.py"), "--mount", f"docs={documents['path']}", "--out", str(folder / "out"), "--json"
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@then("the job has succeeded")
def _(answer: dict[str, Any]) -> None:
    assert (answer["status"], answer["end"]["reason"], answer["end"]["exit_code"]) == ("succeeded", "exited", 0)


@then("an artifact for each good document came back")
def _(answer: dict[str, Any], folder: Path) -> None:
    assert {path.name: path.read_text() for path in (folder / "out").iterdir()} == {"a.txt": "Alpha", "c.txt": "Gamma"}
    assert {artifact["path"] for artifact in answer["artifacts"]} == {"a.txt", "c.txt"}


@then("the broken document is named in the result")
def _(answer: dict[str, Any]) -> None:
    assert [entry["name"] for entry in answer["result"]["broken"]] == ["b.json"]


@then("the documents are unchanged")
def _(documents: dict[str, Any]) -> None:
    assert _prints(documents["path"]) == documents["before"]


@when("the agent runs a script that prints, leaves a file and then raises", target_fixture="answer")
def _(running: Node, folder: Path) -> dict[str, Any]:
    (folder / "failing.py").write_text(FAILING)
    done = running.crank("run", str(folder / "failing.py"), "--out", str(folder / "out"), "--json")
    assert done.returncode == 1, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@then("the job has failed and its end says what was raised")
def _(answer: dict[str, Any]) -> None:
    assert (answer["status"], answer["end"]["reason"]) == ("failed", "raised")
    assert "the third page is missing" in answer["end"]["message"]


@then("the output and the file from before are kept")
def _(answer: dict[str, Any], folder: Path) -> None:
    assert answer["stdout"] == "before\n"
    assert "ValueError" in answer["stderr"]
    assert (folder / "out" / "half.txt").read_text() == "half"


@when("the agent sends one request twice with the same idempotency key", target_fixture="answers")
def _(running: Node) -> list[Any]:
    body = {"code": "print('once')"}
    headers = {"Idempotency-Key": "story-1", "Prefer": "wait=30"}
    client = running.client()
    return [client.submit(body, **headers) for _ in range(2)]


@then("both answers name one job, which ran once")
def _(answers: list[Any]) -> None:
    first, second = (answer.json() for answer in answers)
    assert first["job_id"] == second["job_id"]
    assert (second["attempts"], second["stdout"]) == (1, "once\n")
    assert answers[1].headers["Idempotency-Replayed"] == "true"

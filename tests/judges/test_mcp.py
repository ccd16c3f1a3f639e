"""Real MCP clients of both generations visit one real node, by HTTP and by `crank mcp`; 200 of them come at once."""

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import Node, running_node, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("mcp")]

JUDGES = Path(__file__).parent
VISIT_SEC = 180
NEWEST, LEGACY = "2026-07-28", "2025-11-25"
WAYS = {
    "mcp2-http": ("mcp2", "http", "auto", NEWEST),
    "mcp2-http-legacy": ("mcp2", "http", "legacy", LEGACY),
    "mcp2-stdio": ("mcp2", "stdio", "auto", NEWEST),
    "mcp1-http": ("mcp1", "http", "-", LEGACY),
    "mcp1-stdio": ("mcp1", "stdio", "-", LEGACY),
}
MODULE = '''
from crank import Worker

app = Worker("text-tools")


@app.capability("text.count", version="1.0.0", effects="pure")
def count(text: str) -> dict[str, int]:
    """Count the words of a text."""
    return {word: text.split().count(word) for word in text.split()}
'''


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give a node with a mount, a worker author's function, and room for jobs that sleep."""
    folder = tmp_path_factory.mktemp("mcp")
    docs = folder / "docs"
    docs.mkdir()
    (docs / "a.md").write_text("# A\n")
    (docs / "b.md").write_text("b is here\n")
    (docs / "link").symlink_to("/etc/passwd")
    (folder / "tools.py").write_text(MODULE)
    with running_node(folder / "home", {"CRANK_WORKER_SLOTS": "32", "CRANK_WORKER_SESSIONS": "16"}) as started:
        assert started.crank("mount", "add", "docs", str(docs)).returncode == 0
        command = [sys.executable, "-m", "crank", "worker", "serve", "tools:app"]
        with (folder / "serve.log").open("wb") as log:
            serving = subprocess.Popen(command, env=started.environment, cwd=folder, stderr=log, stdout=log)
        try:
            until(lambda: "text.count" in started.crank("worker", "list").stdout, what="the function to be offered")
            yield started
        finally:
            serving.send_signal(signal.SIGINT)
            serving.wait(30)


def plan_of(node: Node, way: str, mode: str, mark: str) -> str:
    """Return what a judge's program is told on stdin."""
    info = node.info()
    if way == "stdio":
        environment = {name: node.environment[name] for name in node.environment if name.startswith("CRANK_")}
        told: dict[str, Any] = {"command": [sys.executable, "-m", "crank", "mcp"], "env": environment}
    else:
        token = Path(info["token_file"]).read_text().strip()
        told = {"url": f"{info['api']}/mcp", "ca_file": info["ca_file"], "token": token}
    return json.dumps({**told, "mode": mode, "mark": mark})


@pytest.fixture(scope="module")
def reports(node: Node, judge: Callable[[str], Path]) -> dict[str, dict[str, Any]]:
    """Give every visitor's report; they come together, and one fixture waits for all."""
    visitors = {}
    for name, (generation, way, mode, _) in WAYS.items():
        visitor = subprocess.Popen(
            [str(judge(generation)), str(JUDGES / generation / "visit.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert visitor.stdin is not None
        visitor.stdin.write(plan_of(node, way, mode, name))
        visitor.stdin.close()
        visitor.stdin = None
        visitors[name] = visitor
    found = {}
    for name, visitor in visitors.items():
        said, complained = visitor.communicate(timeout=VISIT_SEC)
        assert visitor.returncode == 0, f"{name}: {complained[-3000:]}"
        found[name] = json.loads(said)
    return found


@pytest.fixture(params=sorted(WAYS))
def report(request: pytest.FixtureRequest, reports: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Give one visitor's report."""
    return reports[request.param] | {"way": request.param}


def refusal(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what a refused call said, after checking its shape."""
    assert answer["error"] is True
    assert answer["structured"] is None
    told: dict[str, Any] = json.loads(answer["texts"][0])["error"]
    assert set(told) == {"code", "message", "field", "fix", "problems"}
    assert told["fix"]
    assert "Traceback" not in answer["texts"][0]
    return told


def test_the_era_is_the_clients(report: dict[str, Any]) -> None:
    """Each client speaks the revision that it knows best, and finds the same seven tools, described in full."""
    assert report["version"] == WAYS[report["way"]][3]
    tools = {tool["name"]: tool for tool in report["tools"]}
    assert list(tools) == [
        "run_python", "job_wait", "job_cancel", "list_files", "read_file", "find_capability", "call_capability",
    ]  # fmt: skip
    for tool in tools.values():
        assert tool["outputSchema"]["type"] == "object"
        assert tool["annotations"]["readOnlyHint"] is (
            tool["name"] in {"job_wait", "list_files", "read_file", "find_capability"}
        )
        assert "$ref" not in json.dumps(tool)
    assert tools["job_cancel"]["annotations"]["destructiveHint"] is True


def test_a_script_answers_in_structure_and_in_text(report: dict[str, Any]) -> None:
    """What a script prints and gives comes back structured, checked by the client, and as text for older hosts."""
    answer = report["run"]
    shown = answer["structured"]
    assert (shown["status"], shown["ended"], shown["next"]) == ("succeeded", True, None)
    assert (shown["stdout"], shown["stderr"], shown["result"]) == ("hi\n", "bad\n", {"total": 42})
    assert json.loads(answer["texts"][0]) == shown


def test_progress_is_told_every_two_seconds(report: dict[str, Any]) -> None:
    """While a script runs, its last line comes as progress, with values that only grow."""
    seen = report["progress"]["seen"]
    assert report["progress"]["answer"]["structured"]["result"] == "done"
    assert len(seen) >= 2
    # How often is the beat of `controller.attend`; this machine runs all tests at once.
    moments = [0.0, *(at for at, _, _ in seen)]
    assert max(later - earlier for earlier, later in itertools.pairwise(moments)) < 10.0
    values = [done for _, done, _ in seen]
    assert values == sorted(set(values))
    assert any("step" in message for _, _, message in seen)


def test_a_long_job_outlives_the_soft_wait(report: dict[str, Any]) -> None:
    """After its soft wait a call answers with the job and what to do; the job goes on until it is cancelled."""
    soft = {name: answer["structured"] for name, answer in report["soft_wait"].items()}
    assert soft["begun"]["ended"] is False
    assert "job_wait" in soft["begun"]["next"]
    assert soft["waited"]["ended"] is False
    assert soft["after"]["status"] == "cancelled"
    assert report["took_sec"]["soft_wait"] < 20


def test_cancelling_a_call_ends_its_job_unless_detached(report: dict[str, Any], node: Node) -> None:
    """A cancelled call takes its job along, a detached job stays, and a cancelled wait ends only the wait."""
    assert report["cancelled"]["after"]["structured"]["ended"] is False
    mark = report["way"]
    jobs = node.client().http.get("/v1/jobs", params={"limit": 200}).json()["jobs"]
    running = [job["job_id"] for job in jobs if job["status"] == "running"]
    database = subprocess.run(
        [sys.executable, "-c", FIND_MARKED, str(node.home / "controller" / "crank.db"), mark],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    attached, detached = json.loads(database.stdout)
    until(
        lambda: node.client().job(attached)["status"] == "cancelled", what="the attached job to end", deadline_sec=15
    )
    assert detached in running
    node.client().http.post(f"/v1/jobs/{detached}/cancel")


FIND_MARKED = """
import json, sqlite3, sys
database = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
found = {}
for job_id, text in database.execute("select job_id, request from job"):
    request = json.loads(text)
    if (request.get("code") or "").endswith(f"# {sys.argv[2]} attached"):
        found["attached"] = job_id
    if request.get("args") == sys.argv[2]:
        found["detached"] = job_id
print(json.dumps([found["attached"], found["detached"]]))
"""


def test_files_are_listed_and_read(report: dict[str, Any]) -> None:
    """What a job left and what lies in a mount is read page by page; nothing leads out of the mount."""
    files = report["files"]
    assert (files["whole"], files["pages"]) == (True, 5)
    assert files["left"]["kinds"] == ["text", "resource_link", "resource_link"]
    assert [entry["path"] for entry in files["listed"]["structured"]["files"]] == ["b.bin"]
    assert [entry["path"] for entry in files["listed_next"]["structured"]["files"]] == ["note.txt"]
    assert files["binary"]["structured"]["base64"] == files["binary_resource"]["blob"]
    assert files["too_large"]["fault"]["data"]["code"] == "resource_too_large"
    assert json.loads(files["files_resource"]["text"])["total"] == 2
    assert files["mounts"]["structured"]["files"] == [{"path": "docs", "kind": "mount", "size_bytes": None}]
    kinds = {entry["path"]: entry["kind"] for entry in files["mount"]["structured"]["files"]}
    assert kinds == {"a.md": "file", "b.md": "file", "link": "link"}
    assert files["mounted"]["structured"]["text"] == "b is here\n"
    assert refusal(files["escape"])["code"] == "file_not_found"


def test_a_session_keeps_what_a_script_made(report: dict[str, Any]) -> None:
    """session=new opens one: variables and files of the first script are there for the second."""
    session = report["session"]
    assert session["second"]["structured"]["result"] == 42
    assert session["second"]["structured"]["session"] == session["first"]["structured"]["session"]
    assert session["read"]["structured"]["text"] == "x"


def test_capabilities_are_found_and_called(report: dict[str, Any]) -> None:
    """A function is found by words, with reasons and its schema, and called; nonsense finds nothing."""
    found = report["capabilities"]
    best = found["found"]["structured"]["candidates"][0]
    assert best["name"] == "text.count"
    assert best["why"]
    assert best["input_schema"]["properties"]["text"]["type"] == "string"
    assert found["named"]["structured"]["candidates"][0]["name"] == "python.run.core"
    assert found["nonsense"]["structured"]["candidates"] == []
    assert found["called"]["structured"]["result"] == {"a": 2, "b": 1}
    assert "text.count" in found["listed"]["text"]
    assert json.loads(found["one"]["text"])["offers"][0]["name"] == "text.count"


def test_resources_and_prompts(report: dict[str, Any]) -> None:
    """The node's resources and prompts are listed, and a prompt names the folder and the work."""
    assert "crank://capabilities" in report["resources"]["uris"]
    assert "crank://jobs/{job_id}/files/{+path}" in report["resources"]["templates"]
    prompts = report["prompts"]
    assert "process_folder" in prompts["listed"]
    assert "/in/docs" in prompts["text"]["text"]
    assert prompts["incomplete"]["fault"]["data"]["field"] == "goal"
    assert prompts["unknown"]["fault"]["code"] == -32602
    # What the node says to agents is one text, wherever they read it.
    assert prompts["instructions"]["text"] == prompts["instructions_resource"]["text"]
    assert "text.count" in prompts["instructions"]["text"]
    assert "docs" in prompts["instructions"]["text"]


BAD = {
    "missing": "missing_field",
    "misspelt": "unknown_field",
    "wrong_type": "invalid_field",
    "too_long_wait": "invalid_field",
    "no_profile": "unsatisfied-capability",
    "no_mount": "mount_not_allowed",
    "no_session": "invalid_session_id",
    "refused_new_session": "invalid_code",
    "no_job": "job_not_found",
    "bad_job": "invalid_job_id",
    "two_places": "invalid_field",
    "no_place": "invalid_field",
    "dots": "invalid_path",
    "absent": "file_not_found",
    "empty_query": "invalid_field",
    "no_capability": "unsatisfied-capability",
    "bad_args": "invalid_args",
    "script_needed": "missing_field",
}


def test_bad_input_on_every_tool_says_what_to_do(report: dict[str, Any]) -> None:
    """Every tool answers bad input with its code, the field and a fix; what does not exist is a protocol error."""
    bad = report["bad"]
    assert {name: refusal(bad[name])["code"] for name in BAD} == BAD
    assert refusal(bad["misspelt"])["fix"] == "Did you mean 'timeout_sec'?"
    assert bad["no_tool"]["fault"]["code"] == -32602
    assert bad["no_resource"]["fault"]["data"]["code"] == "resource_not_found"


def test_two_hundred_clients_at_once(node: Node, judge: Callable[[str], Path], reports: dict[str, Any]) -> None:
    """200 clients, half of either era, connect together; each lists, looks and runs its own script, all rightly."""
    done = subprocess.run(
        [str(judge("mcp2")), str(JUDGES / "mcp2" / "many.py")],
        input=plan_of(node, "http", "-", "many"), capture_output=True, text=True, timeout=VISIT_SEC, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    print(f"200 MCP clients: {told}")
    assert (told["right"], told["wrong"]) == (200, [])

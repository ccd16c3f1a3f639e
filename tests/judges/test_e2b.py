"""The E2B surface, judged by programs that were written for E2B: unmodified, told where to go by variables alone."""

import gzip
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import Node, running_node, until

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
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert lines, done.stdout[-2000:] + done.stderr[-4000:]
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


# --- what no honest client sends --------------------------------------------------------------


class Raw:
    """Bare HTTP, so that anything can be sent."""

    def __init__(self, env: dict[str, str]) -> None:
        import httpx2

        self.http = httpx2.Client(base_url=env["E2B_API_URL"], timeout=30)
        self.key = {"X-API-KEY": env["E2B_API_KEY"]}
        made = self.http.post("/v2/sandboxes", json={"templateID": "base", "timeout": 120}, headers=self.key)
        assert made.status_code == 201, made.text
        self.box: dict[str, Any] = made.json()
        self.inside = {"E2b-Sandbox-Id": self.box["sandboxID"], "X-Access-Token": self.box["envdAccessToken"]}

    def frames(self, path: str, raw: bytes) -> dict[str, Any]:
        """Post frames and return the error that the stream ends with."""
        answer = self.http.post(
            path, content=raw, headers={**self.inside, "Content-Type": "application/connect+json"}
        )
        assert answer.status_code == 200, answer.text
        ends: dict[str, Any] = json.loads(answer.content[5:])
        assert answer.content[0] == 2
        found: dict[str, Any] = ends["error"]
        return found


@pytest.fixture(scope="module")
def raw(env: dict[str, str]) -> Iterator[Raw]:
    """A sandbox of its own, reached by bare HTTP."""
    found = Raw(env)
    yield found
    found.http.delete(f"/sandboxes/{found.box['sandboxID']}", headers=found.key)
    found.http.close()


def test_only_a_key_of_its_kind_opens_the_control_plane(node: Node, raw: Raw) -> None:
    """No key, a wrong one, the node's own token and a key for the API are all answered alike."""
    token = Path(node.info()["token_file"]).read_text().strip()
    minted = json.loads(node.crank("key", "mint", "an-agent", "--json").stdout)
    answers = [
        raw.http.get("/v2/sandboxes", headers={} if key is None else {"X-API-KEY": key})
        for key in (None, "", "e2b_" + "0" * 40, token, minted["secret"], "x" * 5_000)
    ]
    assert {(answer.status_code, answer.text) for answer in answers} == {(401, answers[0].text)}
    assert answers[0].json()["code"] == 401
    # And the E2B key opens nothing else.
    assert node.client().http.get("/v1/jobs", headers={"Authorization": f"Bearer {raw.key['X-API-KEY']}"}).status_code == 401


def test_anothers_sandbox_is_as_good_as_none(node: Node, raw: Raw) -> None:
    """Another key is answered about a sandbox of this one exactly as about one that never was."""
    minted = json.loads(node.crank("key", "mint", "another", "--kind", "e2b", "--json").stdout)
    other = {"X-API-KEY": minted["secret"]}
    mine, never = raw.box["sandboxID"], "i" + "0" * 32
    for method, path, body in (
        ("GET", "/sandboxes/{}", None),
        ("DELETE", "/sandboxes/{}", None),
        ("POST", "/sandboxes/{}/timeout", {"timeout": 5}),
        ("POST", "/v2/sandboxes/{}/connect", {"timeout": 5}),
        ("POST", "/sandboxes/{}/refreshes", {}),
        ("GET", "/sandboxes/{}/metrics", None),
        ("GET", "/v2/sandboxes/{}/logs", None),
    ):
        told = [raw.http.request(method, path.format(name), json=body, headers=other) for name in (mine, never, "x")]
        assert {(answer.status_code, answer.text) for answer in told} == {(404, told[0].text)}, path
    assert raw.http.get("/v2/sandboxes", headers=other).json() == []
    assert raw.http.get(f"/sandboxes/{mine}", headers=raw.key).status_code == 200
    assert node.crank("key", "revoke", "another").returncode == 0
    assert raw.http.get("/v2/sandboxes", headers=other).status_code == 401


def test_a_wrong_token_is_as_good_as_no_sandbox(raw: Raw) -> None:
    """Inside a sandbox a wrong token and a sandbox that never was get one answer; no token gets 401."""
    wrong = {**raw.inside, "X-Access-Token": "0" * 64}
    never = {**raw.inside, "E2b-Sandbox-Id": "i" + "0" * 32}
    for method, path in (
        ("GET", "/health"),
        ("GET", "/files?path=x"),
        ("POST", "/execute"),
        ("GET", "/contexts"),
        ("POST", "/filesystem.Filesystem/Stat"),
        ("POST", "/process.Process/Start"),
    ):
        kind = "application/connect+json" if path.endswith("Start") else "application/json"
        told = [
            raw.http.request(method, path, content=b"" if method == "GET" else b"{}", headers={**head, "Content-Type": kind})
            for head in (wrong, never, {})
        ]
        assert told[0].status_code == 502, path
        assert "was not found" in told[0].json()["message"], path
        assert told[0].content == told[1].content
        assert told[2].status_code in (200, 401), told[2].text
        assert b"access token" in told[2].content, told[2].text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/sandboxes", {}),
        ("/v2/sandboxes", {"templateID": 1}),
        ("/v2/sandboxes", {"templateID": "base", "timeout": -1}),
        ("/v2/sandboxes", {"templateID": "base", "timeout": 1e9}),
        ("/v2/sandboxes", {"templateID": "base", "metadata": {"a": 1}}),
        ("/v2/sandboxes", {"templateID": "base", "envVars": {"A=B": "1"}}),
        ("/v2/sandboxes", []),
        ("/v2/sandboxes", {"templateID": "base", "metadata": {"a": "x" * 20_000}}),
        ("/sandboxes/{}/timeout", {}),
        ("/sandboxes/{}/timeout", {"timeout": "long"}),
        ("/v2/sandboxes/{}/connect", {"timeout": True}),
    ],
)
def test_the_control_plane_names_what_is_wrong(raw: Raw, path: str, body: Any) -> None:
    """A body that can never work is answered with 400 and a sentence, and opens nothing."""
    before = raw.http.get("/v2/sandboxes", headers=raw.key).json()
    answer = raw.http.post(path.format(raw.box["sandboxID"]), json=body, headers=raw.key)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"code", "message"}, answer.text
    assert len(raw.http.get("/v2/sandboxes", headers=raw.key).json()) == len(before)


def test_broken_bodies_are_refused_in_words(raw: Raw) -> None:
    """What is no JSON, twice the same name, or too large is told in the words of the part it was sent to."""
    json_head = {**raw.inside, "Content-Type": "application/json"}
    for body in (b"{", b'{"path":1,"path":2}', b'"text"', b"\xff", b"[" * 500, b'{"path": 7}'):
        told = raw.http.post("/filesystem.Filesystem/Stat", content=body, headers=json_head)
        assert told.status_code == 400, (body, told.text)
        assert told.json()["code"] == "invalid_argument", (body, told.text)
        told = raw.http.post("/execute", content=body, headers=json_head)
        assert told.status_code == 400, (body, told.text)
        assert told.json()["code"] == 400, (body, told.text)
    large = b'{"path":"' + b"x" * 3_000_000 + b'"}'
    assert raw.http.post("/filesystem.Filesystem/Stat", content=large, headers=json_head).status_code == 429
    assert raw.http.post("/execute", content=large, headers=json_head).status_code == 413
    assert raw.http.post("/filesystem.Filesystem/Stat", content=b"{}", headers=raw.inside).status_code == 415
    assert raw.http.post("/process.Process/Nope", content=b"{}", headers=json_head).status_code == 404
    assert raw.http.put("/v2/sandboxes", headers=raw.key).status_code == 405


def test_broken_frames_end_the_stream_with_a_code(raw: Raw) -> None:
    """Frames that are cut off, lie about their length, are compressed or hold no object are each refused in a frame."""
    start, watch = "/process.Process/Start", "/filesystem.Filesystem/WatchDir"
    for octets, code in (
        (b"", "invalid_argument"),
        (b"\0\0\0", "invalid_argument"),
        (b"\0\xff\xff\xff\xff{}", "invalid_argument"),
        (b"\1\0\0\0\2{}", "unimplemented"),
        (b"\0\0\0\0\2[]", "invalid_argument"),
        (b"\0\0\0\0\2{}\0\0\0\0\2{}", "invalid_argument"),
        (b"\0\0\0\0\2{}", "invalid_argument"),
        (b"\0" + (3_000_000).to_bytes(4, "big") + b" " * 3_000_000, "resource_exhausted"),
    ):
        assert raw.frames(start, octets)["code"] == code, octets[:20]
    assert raw.frames(watch, _frame({"path": "/nowhere"}))["code"] == "not_found"
    for process in ({"cmd": ""}, {"cmd": "x", "args": [1]}, {"cmd": "a\0b"}, {"cmd": "true", "envs": {"": ""}}):
        assert raw.frames(start, _frame({"process": process}))["code"] == "invalid_argument", process
    assert raw.frames(start, _frame({"process": {"cmd": "/no/such"}}))["code"] == "invalid_argument"
    assert raw.frames(start, _frame({"process": {"cmd": "true"}, "pty": {"size": {}}}))["code"] == "unimplemented"


def _frame(word: dict[str, Any]) -> bytes:
    octets = json.dumps(word).encode()
    return b"\0" + len(octets).to_bytes(4, "big") + octets


def test_paths_lead_nowhere_but_into_the_sandbox(raw: Raw) -> None:
    """Dots, links and devices reach what the sandbox's own code reaches, and nothing of the host."""

    def read(path: str) -> Any:
        return raw.http.get("/files", params={"path": path}, headers=raw.inside)

    assert "user:x:1000" in read("../../etc/passwd").text
    assert "root:x:0:0:root:/nonexistent" in read("/etc/passwd").text
    for path in ("", "x\0y", "/proc/1/environ", "/proc/self/mem", "/dev/zero", "/home", "x" * 5_000, "~root/x"):
        assert read(path).status_code in (400, 403, 404), (path, read(path).status_code)
    for path in ("/etc/passwd", "/usr/bin/bash", "/proc/self/oom_score_adj", "/opt/site/new.py", ""):
        put = raw.http.post(
            "/files", params={"path": path}, content=b"x", headers={**raw.inside, "Content-Type": "application/octet-stream"}
        )
        assert put.status_code in (400, 403), (path, put.text)
    head = {**raw.inside, "Content-Type": "application/json"}
    for path in ("/", "/home/user", "/etc", "/usr"):
        assert raw.http.post("/filesystem.Filesystem/Remove", json={"path": path}, headers=head).status_code == 403
    bomb = gzip.compress(b"\0" * 80_000_000)
    sent = {**raw.inside, "Content-Type": "application/octet-stream", "Content-Encoding": "gzip"}
    assert raw.http.post("/files", params={"path": "bomb"}, content=bomb, headers=sent).status_code == 413
    assert raw.http.post("/files", params={"path": "x"}, content=b"no gzip", headers=sent).status_code == 400
    form = {**raw.inside, "Content-Type": "multipart/form-data; boundary=x"}
    for octets in (b"", b"--x--", b"--x\r\nbroken", b"--y\r\n\r\n\r\n--y--"):
        assert raw.http.post("/files", content=octets, headers=form).status_code == 400, octets
    fill = {"process": {"cmd": "/bin/bash", "args": ["-c", "head -c 240000000 /dev/zero > fill"]}}
    done = raw.http.post(
        "/process.Process/Start", content=_frame(fill), headers={**raw.inside, "Content-Type": "application/connect+json"}
    )
    assert b'"exitCode":0' in done.content
    full = b"\1" * 20_000_000
    plain = {**raw.inside, "Content-Type": "application/octet-stream"}
    told = [raw.http.post("/files", params={"path": f"full-{n}"}, content=full, headers=plain) for n in range(2)]
    assert {answer.status_code for answer in told} <= {200, 507}, [a.text for a in told]
    assert told[-1].status_code == 507, [a.text for a in told]


def test_a_sandbox_outlives_its_controller(node: Node, env: dict[str, str], raw: Raw) -> None:
    """A controller that is killed is restarted, and the sandbox is there with its variables and files."""

    def run(code: str) -> str:
        answer = raw.http.post("/execute", json={"code": code}, headers=raw.inside)
        return answer.text if answer.status_code == 200 else ""

    assert '"text":"41"' in run("kept = 41; kept")
    os.kill(int(node.info()["controller_pid"]), signal.SIGKILL)

    def is_back() -> bool:
        try:
            told = raw.http.post(f"/v2/sandboxes/{raw.box['sandboxID']}/connect", json={}, headers=raw.key)
        except Exception:
            return False
        return told.status_code == 200 and told.json()["envdAccessToken"] == raw.box["envdAccessToken"]

    until(is_back, what="the sandbox to be found by the next controller", deadline_sec=60)
    assert '"text":"42"' in until(lambda: run("kept + 1"), what="the sandbox to answer again", deadline_sec=60)

"""The E2B surface, judged by programs that were written for E2B: unmodified, told where to go by variables alone."""

import gzip
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import Node, running_node, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("judge-e2b")]
JUDGES = Path(__file__).parent
PROGRAM_SEC = 200
PROGRAMS = {
    "python": "e2b/sync_client.py",
    "asynchronous": "e2b/async_client.py",
    "javascript": "e2b_node/client.cjs",
    "smolagents": "smolagents/agent.py",
    "langchain": "langchain_e2b/agent.py",
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One node that serves E2B's clients."""
    settings = {"CRANK_E2B": "true", "CRANK_E2B_PORT": "0", "CRANK_WORKER_SLOTS": "16"}
    # Room for every program at once: they share the key that a node's own user has, and a key takes half.
    settings |= {"CRANK_WORKER_SESSIONS": "24", "CRANK_WORKER_SESSIONS_BYTES": str(24 << 30)}
    with running_node(tmp_path_factory.mktemp("e2b") / "home", settings) as running:
        yield running


@pytest.fixture(scope="module")
def env(node: Node) -> dict[str, str]:
    """What `crank node info` says that a client must set."""
    said = node.crank("node", "info", "--json")
    found: dict[str, str] = json.loads(said.stdout)["e2b"]["env"]
    return found


@dataclass
class Program:
    """A program that was started; it writes what it says into files."""

    process: subprocess.Popen[bytes]
    said: Path

    def faults(self) -> dict[str, str | None]:
        """Wait for its end and return what became of each of its checks."""
        self.process.wait(timeout=PROGRAM_SEC)
        said = self.said.read_text()
        told = said[-2000:] + self.said.with_suffix(".err").read_text()[-4000:]
        assert self.process.returncode == 0, told
        lines: list[dict[str, Any]] = [json.loads(line) for line in said.splitlines() if line.startswith('{"check"')]
        assert lines, told
        return {line["check"]: line["fault"] for line in lines}


@pytest.fixture(scope="module")
def programs(
    env: dict[str, str], judge: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Program]]:
    """Every program, started at once: each has sandboxes of its own, and mostly waits."""
    plain = {name: text for name, text in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    folder = tmp_path_factory.mktemp("programs")
    # Built before any is started: nothing of it is part of what a program waits for.
    interpreters = {name: judge(Path(program).parent.name) for name, program in PROGRAMS.items()}
    started: dict[str, Program] = {}
    try:
        for name, program in PROGRAMS.items():
            said, path = folder / f"{name}.out", JUDGES / program
            with said.open("wb") as out, said.with_suffix(".err").open("wb") as err:
                process = subprocess.Popen(
                    [str(interpreters[name]), str(path)], env={**plain, **env}, stdout=out, stderr=err, cwd=path.parent
                )
            started[name] = Program(process, said)
        yield started
    finally:
        for each in started.values():
            each.process.kill()
            each.process.wait()


def expect_none(found: dict[str, str | None], count: int) -> None:
    """Insist that so many checks ran and none failed."""
    assert "\n".join(f"{name}: {fault}" for name, fault in found.items() if fault) == ""
    assert len(found) >= count, sorted(found)


def test_a_node_says_what_a_client_must_set(env: dict[str, str], programs: dict[str, Program]) -> None:
    """Two addresses and a key are all that the programs need; they run while the tests below ask by hand."""
    assert set(env) == {"E2B_API_URL", "E2B_SANDBOX_URL", "E2B_API_KEY"}
    assert set(programs) == set(PROGRAMS)


# --- what no honest client sends --------------------------------------------------------------


def mint(node: Node, name: str, kind: str) -> str:
    """Make a key and return its secret."""
    made = node.client().http.post("/v1/keys", json={"name": name, "kind": kind})
    assert made.status_code == 201, made.text
    return str(made.json()["secret"])


class Raw:
    """Bare HTTP, so that anything can be sent."""

    def __init__(self, node: Node, env: dict[str, str]) -> None:
        import httpx2

        self.http = httpx2.Client(base_url=env["E2B_API_URL"], timeout=60)
        self.key = {"X-API-KEY": mint(node, "by-hand", "e2b")}
        made = self.http.post("/v2/sandboxes", json={"templateID": "base", "timeout": 120}, headers=self.key)
        assert made.status_code == 201, made.text
        self.box: dict[str, Any] = made.json()
        self.inside = {"E2b-Sandbox-Id": self.box["sandboxID"], "X-Access-Token": self.box["envdAccessToken"]}

    def stream(self, path: str, raw: bytes) -> Any:
        """Post frames and return the answer."""
        return self.http.post(path, content=raw, headers={**self.inside, "Content-Type": "application/connect+json"})

    def run(self, line: str) -> None:
        """Run a line of shell, which must end well."""
        word = {"process": {"cmd": "/bin/bash", "args": ["-c", line]}}
        answer = self.stream("/process.Process/Start", _frame(word))
        assert b'"exitCode":0' in answer.content, answer.content

    def put(self, path: str, octets: bytes, **headers: str) -> Any:
        """Upload a file as an octet stream."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        head = {**self.inside, "Content-Type": "application/octet-stream", **named}
        return self.http.post("/files", params={"path": path}, content=octets, headers=head)

    def frames(self, path: str, raw: bytes) -> dict[str, Any]:
        """Post frames and return the error that the stream ends with."""
        answer = self.stream(path, raw)
        assert answer.status_code == 200, answer.text
        ends: dict[str, Any] = json.loads(answer.content[5:])
        assert answer.content[0] == 2
        found: dict[str, Any] = ends["error"]
        return found


@pytest.fixture(scope="module")
def raw(node: Node, env: dict[str, str]) -> Iterator[Raw]:
    """A sandbox of its own, and a key of its own, reached by bare HTTP."""
    found = Raw(node, env)
    yield found
    found.http.delete(f"/sandboxes/{found.box['sandboxID']}", headers=found.key)
    found.http.close()


def test_only_a_key_of_its_kind_opens_the_control_plane(node: Node, raw: Raw) -> None:
    """No key, a wrong one, the node's own token and a key for the API are all answered alike."""
    token = Path(node.info()["token_file"]).read_text().strip()
    minted = mint(node, "an-agent", "api")
    answers = [
        raw.http.get("/v2/sandboxes", headers={} if key is None else {"X-API-KEY": key})
        for key in (None, "", "e2b_" + "0" * 40, token, minted, "x" * 5_000)
    ]
    assert {(answer.status_code, answer.text) for answer in answers} == {(401, answers[0].text)}
    assert answers[0].json()["code"] == 401
    # And the E2B key opens nothing else.
    assert node.client().http.get("/v1/jobs", headers={"Authorization": f"Bearer {raw.key['X-API-KEY']}"}).status_code == 401


def test_anothers_sandbox_is_as_good_as_none(node: Node, raw: Raw) -> None:
    """Another key is answered about a sandbox of this one exactly as about one that never was."""
    other = {"X-API-KEY": mint(node, "another", "e2b")}
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
    assert node.client().http.delete("/v1/keys/another").status_code in (200, 204)
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
    terminals: tuple[Any, ...] = ({}, {"size": {}}, False, "")
    for pty in terminals:
        assert raw.frames(start, _frame({"process": {"cmd": "true"}, "pty": pty}))["code"] == "unimplemented", pty


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
        put = raw.put(path, b"x")
        assert put.status_code in (400, 403), (path, put.text)
    head = {**raw.inside, "Content-Type": "application/json"}
    for path in ("/", "/home/user", "/etc", "/usr"):
        assert raw.http.post("/filesystem.Filesystem/Remove", json={"path": path}, headers=head).status_code == 403
    form = {**raw.inside, "Content-Type": "multipart/form-data; boundary=x"}
    for octets in (b"", b"--x--", b"--x\r\nbroken", b"--y\r\n\r\n\r\n--y--"):
        assert raw.http.post("/files", content=octets, headers=form).status_code == 400, octets


def test_a_listing_leaves_out_what_it_may_not_see(raw: Raw) -> None:
    """A folder that is shut, one whose entries cannot be looked at, and an impossible time do not fail a listing."""
    raw.run(
        "mkdir -p tree/a/shut/in tree/b tree/blind && touch tree/b/c tree/blind/f"
        " && touch -d @99999999999999 tree/b/late && chmod 0 tree/a/shut && chmod 444 tree/blind"
    )
    head = {**raw.inside, "Content-Type": "application/json"}
    listed = raw.http.post("/filesystem.Filesystem/ListDir", json={"path": "tree", "depth": 5}, headers=head)
    assert listed.status_code == 200, listed.text
    assert [entry["name"] for entry in listed.json()["entries"]] == ["a", "shut", "b", "c", "late", "blind"]
    shut = raw.http.post("/filesystem.Filesystem/ListDir", json={"path": "tree/a/shut"}, headers=head)
    assert shut.json()["code"] == "permission_denied", shut.text


def test_packed_bodies_are_stored_whole_or_refused(node: Node, raw: Raw) -> None:
    """Every member of a gzip body is stored, and the node answers others while bodies that grow too large are refused."""
    packed = gzip.compress(b"one ") + gzip.compress(b"two")
    assert raw.put("packed", packed, Content_Encoding="gzip").status_code == 200
    assert raw.http.get("/files", params={"path": "packed"}, headers=raw.inside).text == "one two"
    for octets in (packed + b"x", packed[:-1], b"no gzip", b""):
        assert raw.put("packed", octets, Content_Encoding="gzip").status_code == 400, octets
    assert raw.http.get("/files", params={"path": "packed"}, headers=raw.inside).text == "one two"
    bomb = gzip.compress(b"\0" * 4_000_000) * 125
    over = threading.Event()
    with ThreadPoolExecutor() as others:
        slowest = others.submit(slowest_sec, node, over)
        told = list(others.map(lambda name: raw.put(name, bomb, Content_Encoding="gzip").status_code, "abc"))
        over.set()
        assert told == [507] * 3
        # Unpacked in the loop, these kept it for ten seconds.
        assert slowest.result() < 8, slowest.result()


def slowest_sec(node: Node, over: threading.Event) -> float:
    """Ask a node whether it is ready until told to stop; return the longest wait for its answer, in seconds."""
    slowest = 0.0
    while not over.is_set():
        began = time.monotonic()
        node.client().ready()
        slowest = max(slowest, time.monotonic() - began)
        over.wait(0.05)
    return slowest


def test_a_full_sandbox_says_so(raw: Raw) -> None:
    """What has no room left in a sandbox is refused with 507, and breaks nothing."""
    raw.run("head -c 240000000 /dev/zero > fill")
    told = [raw.put(f"full-{n}", b"\1" * 20_000_000) for n in range(2)]
    assert {answer.status_code for answer in told} <= {200, 507}, [a.text for a in told]
    assert told[-1].status_code == 507, [a.text for a in told]


# --- the programs, which ran meanwhile ---------------------------------------------------------


def test_pythons_asynchronous_client(programs: dict[str, Program]) -> None:
    """E2B's asynchronous Python client runs code, commands and watches beside each other."""
    expect_none(programs["asynchronous"].faults(), 4)


def test_javascripts_client(programs: dict[str, Program]) -> None:
    """E2B's JavaScript client runs code, commands and files."""
    expect_none(programs["javascript"].faults(), 5)


def test_smolagents(programs: dict[str, Program]) -> None:
    """smolagents' code agent reaches its final answer with variables, a tool and state in the sandbox."""
    expect_none(programs["smolagents"].faults(), 1)


def test_langchain(programs: dict[str, Program]) -> None:
    """LangChain's sandbox backend runs commands and works on files."""
    expect_none(programs["langchain"].faults(), 3)


def test_pythons_client(programs: dict[str, Program]) -> None:
    """E2B's Python client does everything it can do against a node, and is told what a node does not offer."""
    expect_none(programs["python"].faults(), 21)


def test_a_sandbox_outlives_its_controller(node: Node, programs: dict[str, Program], raw: Raw) -> None:
    """A controller that is killed is restarted, and the sandbox is there with its variables and files."""
    for each in programs.values():
        each.process.wait(timeout=PROGRAM_SEC)

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

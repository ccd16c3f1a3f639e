"""`crank mcp` as a host starts it: ready at once, both eras, through a node's restart, and clear when there is none."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import Node, running_node, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("mcp-bridge")]

READY_SEC_MAX = 1.0
ANSWER_SEC = 60.0
NEWEST = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": NEWEST,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "0"},
}
INITIALIZE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}


class Host:
    """A host: it starts the bridge and reads its lines, none of which may be anything but the protocol."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._errors = (folder / "bridge.err").open("wb")
        self.begun_sec = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "crank", "mcp"],
            env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._early: list[dict[str, Any]] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(json.loads(line))
        self._lines.put(None)

    def send(self, *messages: dict[str, Any] | bytes) -> None:
        """Write messages, or lines that are none."""
        assert self.process.stdin is not None
        for message in messages:
            self.process.stdin.write(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self, request_id: Any) -> dict[str, Any]:
        """Return the answer to a request; what comes before it is kept."""
        until_sec = time.monotonic() + ANSWER_SEC
        for early in [entry for entry in self._early if "id" in entry and entry["id"] == request_id]:
            self._early.remove(early)
            return early
        while True:
            message = self._lines.get(timeout=max(0.1, until_sec - time.monotonic()))
            assert message is not None, "the bridge ended"
            if message.get("id") == request_id and "method" not in message:
                return message
            self._early.append(message)

    def notices(self) -> list[dict[str, Any]]:
        """Return the notifications that came so far."""
        return [entry for entry in self._early if "method" in entry]

    def ask(self, request_id: Any, method: str, modern: bool = True, **params: Any) -> dict[str, Any]:
        """Send a request and return its answer."""
        told = {"_meta": META, **params} if modern else params
        self.send({"jsonrpc": "2.0", "id": request_id, "method": method, "params": told})
        return self.answer(request_id)

    def close(self) -> int:
        """Close stdin, as a host does at its end, and return the exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            return self.process.wait(60)
        finally:
            self._reading.join(10)
            self._errors.close()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give a node that the tests of this module may start anew."""
    with running_node(tmp_path_factory.mktemp("bridge") / "home") as started:
        yield started


@pytest.fixture
def host(node: Node, tmp_path: Path) -> Iterator[Host]:
    """Give a host whose bridge reaches the node."""
    started = Host(node.environment, tmp_path)
    yield started
    if started.process.poll() is None:
        assert started.close() == 0


def run(code: str, **more: Any) -> dict[str, Any]:
    """Return the params of a call of run_python."""
    return {"name": "run_python", "arguments": {"code": code, **more}}


def test_it_is_ready_at_once_without_the_server_stack(node: Node, host: Host) -> None:
    """The bridge answers within a second of work of its start, and loads neither the SDK nor what servers need."""
    host.send(b"this is no message\n")
    refused = host.answer(None)
    took_sec = time.monotonic() - host.begun_sec
    spent = Path(f"/proc/{host.process.pid}/stat").read_text().rpartition(")")[2].split()
    # Its own time on a processor: what a test beside it takes is not its slowness.
    cpu_sec = (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK")
    print(f"crank mcp ready after {took_sec:.3f} s, of which {cpu_sec:.3f} s its own")
    assert refused["error"]["code"] == -32700
    assert cpu_sec < READY_SEC_MAX
    script = (
        "import sys, crank.cli.mcp; "
        "sys.exit(bool({'mcp', 'fastapi', 'starlette', 'uvicorn', 'pydantic', 'jsonschema'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], env=node.environment, check=False).returncode == 0


def test_both_eras_and_a_restart(node: Node, host: Host) -> None:
    """One bridge serves both eras; after the node started anew, on other ports, the host goes on as if nothing was."""
    opened = host.ask(1, "initialize", modern=False, **INITIALIZE)
    assert opened["result"]["protocolVersion"] == "2025-11-25"
    host.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
    older = host.ask("old", "tools/call", modern=False, **run("result = 1"))
    assert older["result"]["structuredContent"]["result"] == 1
    newer = host.ask("new", "tools/call", **run("result = 2"))
    assert newer["result"]["structuredContent"]["result"] == 2
    before = node.info()["api"]
    node.stop()
    node.start()
    assert node.info()["api"] != before
    assert len(host.ask("old-2", "tools/list", modern=False)["result"]["tools"]) == 7
    again = host.ask("old-3", "tools/call", modern=False, **run("result = 3"))
    assert again["result"]["structuredContent"]["result"] == 3
    newer = host.ask("new-2", "tools/call", **run("result = 4"))
    assert newer["result"]["structuredContent"]["result"] == 4


def test_progress_comes_while_it_runs_and_cancelling_ends_the_job(node: Node, host: Host) -> None:
    """Progress is handed on as it comes; the host's cancelling ends the job, and no answer comes after it."""
    slow = run("import time\nfor step in range(600):\n    print(step, flush=True); time.sleep(0.1)", wait_sec=40)
    told = {"_meta": {**META, "progressToken": "t1"}, **slow}
    host.send({"jsonrpc": "2.0", "id": "slow", "method": "tools/call", "params": told})
    while not host.notices():
        message = host._lines.get(timeout=ANSWER_SEC)
        assert message is not None
        host._early.append(message)
    notice = host.notices()[0]
    assert (notice["method"], notice["params"]["progressToken"]) == ("notifications/progress", "t1")
    host.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "slow"}})
    newest = node.client().http.get("/v1/jobs", params={"limit": 1}).json()["jobs"][0]["job_id"]
    assert node.client().ended(newest, deadline_sec=20)["status"] == "cancelled"
    assert "result" in host.ask("after", "tools/list")
    assert not [entry for entry in host._early if entry.get("id") == "slow"]


def test_what_is_no_message_is_told_and_the_rest_goes_on(host: Host) -> None:
    """Broken, oversized and nonsensical lines get an error each; the next good message is served."""
    host.send(b"[]\n", b'{"jsonrpc":"2.0","id":{},"method":"x"}\n', b'{"id":1}\n', b"\n", b"x" * (9 * 1024 * 1024) + b"\n")
    for _ in range(4):
        assert host.answer(None)["error"]["code"] == -32600
    assert "error" in host.ask("no", "no/such", modern=True)
    assert "tools" in host.ask("yes", "tools/list")["result"]


def test_a_host_that_leaves_takes_its_work_along(node: Node, host: Host) -> None:
    """Jobs that a host waits for end when it closes its bridge, in both eras; a detached one goes on."""
    host.ask(1, "initialize", modern=False, **INITIALIZE)
    host.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
    sleeping = "import time; time.sleep(50)"
    before = _newest(node, 1)
    for request_id, meta, more in (("old", {}, {}), ("new", {"_meta": META}, {}), ("kept", {"_meta": META}, {"detach": True})):
        told = {**meta, **run(sleeping, wait_sec=40, **more)}
        host.send({"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": told})
        before = until(partial(_newer, node, before), what="the job to be there")
    kept, new, old = _newest(node, 3)
    until(lambda: node.client().job(old)["status"] == "running", what="the job to run")
    assert host.close() == 0
    for job_id in (old, new):
        assert node.client().ended(job_id, deadline_sec=20)["status"] == "cancelled"
    assert node.client().job(kept)["end"] is None
    node.client().http.post(f"/v1/jobs/{kept}/cancel")


def _newer(node: Node, before: list[str]) -> list[str] | None:
    found = _newest(node, 1)
    return found if found != before else None


def _newest(node: Node, count: int) -> list[str]:
    jobs = node.client().http.get("/v1/jobs", params={"limit": count}).json()["jobs"]
    return [job["job_id"] for job in jobs]


def test_without_a_node_it_starts_one_and_takes_it_along(builds: Path, tmp_path: Path) -> None:
    """When no node runs, the bridge starts one as `crank run` does, and stops it when the host leaves."""
    home = tmp_path / "alone"
    host = Host({**_clean(), "CRANK_HOME": str(home), "CRANK_PROFILES_BUILDS": str(builds)}, tmp_path)
    opened = host.ask(1, "initialize", modern=False, **INITIALIZE)
    assert opened["result"]["serverInfo"]["name"] == "crank"
    assert (home / "run" / "node.json").exists()
    assert host.close() == 0
    assert not (home / "run" / "node.json").exists()


def test_a_node_that_cannot_start_is_told_to_the_host(tmp_path: Path) -> None:
    """What keeps a node from starting is an answer of the protocol, with its code and what to do."""
    host = Host({**_clean(), "CRANK_HOME": str(tmp_path / "home"), "CRANK_API_PORT": "many"}, tmp_path)
    told = host.ask(7, "server/discover")["error"]
    assert told["data"]["code"] == "configuration_error"
    assert told["data"]["fix"]
    assert "Traceback" not in json.dumps(told)
    assert host.close() == 0


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("CRANK_")}

"""A real node in a home of its own: `crank up` as a user starts it, on free ports, ended by its process id."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
BUILDS = Path(os.environ.get("CRANK_TEST_BUILDS", REPO / ".cache" / "profiles"))
READY_SEC = 120.0
LOOK_AGAIN_SEC = 0.02


def until(condition: Callable[[], Any], *, what: str, deadline_sec: float = 60.0) -> Any:
    """Return the condition's first true value; fail with `what` when the deadline passes."""
    give_up_sec = time.monotonic() + deadline_sec
    while time.monotonic() < give_up_sec:
        value = condition()
        if value:
            return value
        time.sleep(LOOK_AGAIN_SEC)
    raise AssertionError(f"Waited {deadline_sec:g} s in vain for {what}.")


class Node:
    """One node under test."""

    def __init__(self, home: Path, environment: dict[str, str] | None = None) -> None:
        self.home = home
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CRANK_")}
        self.environment = {
            **inherited,
            "CRANK_HOME": str(home),
            "CRANK_API_PORT": "0",
            "CRANK_WORKERS_PORT": "0",
            "CRANK_PROFILES_BUILDS": str(BUILDS),
            **(environment or {}),
        }
        self.keeper: subprocess.Popen[bytes] | None = None
        self._api: Api | None = None

    def crank(self, *argv: str, stdin: str | None = None, timeout_sec: float = 120) -> subprocess.CompletedProcess[str]:
        """Run the command line against this node."""
        return subprocess.run(
            [sys.executable, "-m", "crank", *argv],
            env=self.environment,
            input=stdin,
            text=True,
            capture_output=True,
            timeout=timeout_sec,
            cwd=self.home.parent,
            check=False,
        )

    def start(self) -> None:
        """Start the node and wait until its worker takes jobs."""
        self.home.parent.mkdir(parents=True, exist_ok=True)
        with (self.home.parent / "up.log").open("ab") as log:
            self.keeper = subprocess.Popen(
                [sys.executable, "-m", "crank", "up"],
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        until(self._ready, what="the node to be ready", deadline_sec=READY_SEC)

    def _ready(self) -> bool:
        assert self.keeper is not None
        if self.keeper.poll() is not None:
            raise AssertionError(f"crank up ended: {(self.home.parent / 'up.log').read_text()[-3000:]}")
        try:
            return bool(self.info()) and bool(self.client().ready()["ready"])
        except Exception:  # not ready has many faces while it starts
            return False

    def info(self) -> dict[str, Any]:
        """Return what the node says of itself, or nothing while it starts."""
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            found: dict[str, Any] = json.loads((self.home / "run" / "node.json").read_text())
            return found
        return {}

    def client(self) -> "Api":
        """Return a bare HTTPS client, independent of Crank's own."""
        info = self.info()
        if self._api is None or self._api.address != info["api"]:
            self.hang_up()
            self._api = Api(info)
        return self._api

    def hang_up(self) -> None:
        """Close the client's connections."""
        if self._api is not None:
            self._api.http.close()
            self._api = None

    def begin(self, argv: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Start a line that goes on in this home, as somebody pastes it; `said` returns what it says."""
        self.home.parent.mkdir(parents=True, exist_ok=True)
        with (self.home.parent / "begun.log").open("ab") as log:
            return subprocess.Popen(
                argv, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def said(self) -> str:
        """Return what such lines have said until now."""
        return (self.home.parent / "begun.log").read_text()

    def end(self, program: "subprocess.Popen[bytes]") -> None:
        """Stop such a line with all that it started, as Ctrl-C does, and insist that it ends."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGINT)
        program.wait(timeout=60)

    def stop(self) -> None:
        """End the node as an operator does, and insist that it ends."""
        self.hang_up()
        if self.keeper is None or self.keeper.poll() is not None:
            return
        self.keeper.send_signal(signal.SIGTERM)
        try:
            self.keeper.wait(timeout=40)
        except subprocess.TimeoutExpired:
            os.killpg(self.keeper.pid, signal.SIGKILL)
            raise


class Api:
    """The HTTPS API over httpx2 alone, so that Crank's client is not both judge and party."""

    def __init__(self, info: dict[str, Any]) -> None:
        import ssl

        import httpx2

        verified = ssl.create_default_context(cafile=info["ca_file"])
        self.address: str = info["api"]
        secret = Path(info["token_file"]).read_text().strip()
        self.http = httpx2.Client(
            base_url=info["api"], verify=verified, headers={"Authorization": f"Bearer {secret}"}, timeout=60
        )

    def ready(self) -> dict[str, Any]:
        """Return /readyz."""
        found: dict[str, Any] = self.http.get("/readyz").json()
        return found

    def submit(self, body: dict[str, Any], **headers: str) -> Any:
        """Post a job and return the response."""
        return self.http.post("/v1/jobs", json=body, headers=headers)

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job's document."""
        found: dict[str, Any] = self.http.get(f"/v1/jobs/{job_id}").json()
        return found

    def ended(self, job_id: str, deadline_sec: float = 60) -> dict[str, Any]:
        """Return the job once it has ended."""
        document: dict[str, Any] = until(
            lambda: (found := self.job(job_id)).get("end") and found, what=f"job {job_id} to end", deadline_sec=deadline_sec
        )
        return document


@contextlib.contextmanager
def running_node(home: Path, environment: dict[str, str] | None = None) -> Iterator[Node]:
    """Give a started node and stop it afterwards."""
    node = Node(home, environment)
    node.start()
    try:
        yield node
    finally:
        node.stop()

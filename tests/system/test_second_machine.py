"""A second machine joins with the pasted command and works: jobs, blobs, a restart, and the end of it."""

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.support.networks import HERE, two_machines
from tests.support.node import BUILDS, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("second-machine"), pytest.mark.F2]

# Both machines run one job at a time, so that two at once must go to two.
TOGETHER = "import time\ntime.sleep(8)\n"
CARRY = """
from pathlib import Path
octets = Path('big.bin').read_bytes()
Path('/out/back.bin').write_bytes(octets[::-1])
print(len(octets))
"""
READ = "from pathlib import Path\nprint(Path('/in/docs/a.txt').read_text())\n"


# Brings what comes on a socket of the file system to an address that only its own network reaches.
RELAY = """
import asyncio, sys
async def both(reader, writer):
    there = await asyncio.open_connection(sys.argv[2], int(sys.argv[3]))
    async def copy(source, target):
        while octets := await source.read(65536):
            target.write(octets)
            await target.drain()
        target.close()
    await asyncio.gather(copy(reader, there[1]), copy(there[0], writer), return_exceptions=True)
async def main():
    server = await asyncio.start_unix_server(both, sys.argv[1])
    print("here", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


class Machine:
    """One of the two: a home, an environment and a place in the network."""

    def __init__(self, way: tuple[str, ...], home: Path, **settings: str) -> None:
        self._way = way
        self.home = home
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CRANK_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
        fixed = {"CRANK_HOME": str(home), "CRANK_PROFILES_BUILDS": str(BUILDS), "CRANK_WORKER_SLOTS": "1", "PATH": path}
        self._environment = {**kept, **fixed, **settings}
        home.parent.mkdir(parents=True, exist_ok=True)

    def crank(self, *argv: str, well: bool = True) -> str:
        """Run a command to its end and return what it printed."""
        done = subprocess.run(
            [*self._way, sys.executable, "-m", "crank", *argv], env=self._environment, cwd=self.home.parent,
            capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert (done.returncode == 0) is well, f"{argv}: {done.returncode} {done.stdout}{done.stderr}"
        return done.stdout if well else done.stderr

    def ask(self, *argv: str) -> Any:
        """Run a command and return the JSON that it printed."""
        return json.loads(self.crank(*argv, "--json"))

    def begin(self, line: str, log: str) -> subprocess.Popen[bytes]:
        """Start a line of shell that goes on, as somebody pastes it."""
        with (self.home.parent / log).open("wb") as target:
            return subprocess.Popen(
                [*self._way, "sh", "-c", f"exec {line}" if "|" not in line else line], env=self._environment,
                cwd=self.home.parent, stdout=target, stderr=target, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    @contextlib.contextmanager
    def relay(self, socket: str, host: str, port: str) -> Iterator[None]:
        """Bring what comes on a socket of the file system to an address of this machine's network."""
        program = subprocess.Popen(
            [*self._way, sys.executable, "-c", RELAY, socket, host, port], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert program.stdout is not None
        with program.stdout:
            try:
                assert program.stdout.readline() == b"here\n"
                yield
            finally:
                program.kill()
                program.wait()

    def said(self, log: str) -> str:
        """Return what such a line has said until now."""
        return (self.home.parent / log).read_text()


def end(program: subprocess.Popen[bytes]) -> None:
    """Stop what was pasted, as Ctrl-C does, and insist that it ends."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGINT)
    program.wait(timeout=60)


class Both:
    """The controller's machine and the other one."""

    def __init__(self, here: Machine, there: Machine) -> None:
        self.here, self.there = here, there
        self.member: subprocess.Popen[bytes] | None = None
        self.invite: dict[str, Any] = {}
        self._api: httpx2.Client | None = None

    @contextlib.contextmanager
    def reachable(self) -> Iterator[None]:
        """Let `get` reach the controller's API, which lies in another network than this test."""
        info = self.info()
        address = urlsplit(info["api"])
        socket = str(self.here.home.parent / "api.sock")
        with self.here.relay(socket, str(address.hostname), str(address.port)):
            try:
                yield
            finally:
                self.hang_up()

    def hang_up(self) -> None:
        """Let the next `get` connect anew, by the roots that hold then."""
        if self._api is not None:
            self._api.close()
            self._api = None

    def _connect(self) -> httpx2.Client:
        info, socket = self.info(), str(self.here.home.parent / "api.sock")
        transport = httpx2.HTTPTransport(uds=socket, verify=ssl.create_default_context(cafile=info["ca_file"]))
        secret = Path(info["token_file"]).read_text().strip()
        headers = {"Authorization": f"Bearer {secret}"}
        return httpx2.Client(transport=transport, base_url=info["api"], headers=headers, timeout=60)

    def get(self, path: str) -> Any:
        """Read something of the controller's API."""
        if self._api is None:
            self._api = self._connect()
        return self._api.get(path).json()

    def jobs(self) -> list[dict[str, Any]]:
        """Return the newest jobs."""
        found: list[dict[str, Any]] = self.get("/v1/jobs")["jobs"]
        return found

    def join(self, line: str, log: str) -> None:
        """Paste a line on the other machine and wait until its worker is here."""
        self.member = self.there.begin(line, log)
        member = self.member

        def serves() -> bool:
            assert member.poll() is None, self.there.said(log)
            return "serves" in self.there.said(log) and self.box()["connected"]

        until(serves, what="the second machine to serve", deadline_sec=90)

    def leave(self) -> None:
        """End the program on the other machine."""
        if self.member is not None:
            end(self.member)
            self.member = None

    def box(self) -> dict[str, Any]:
        """Return the other machine as the controller sees it."""
        (found,) = (node for node in self.get("/v1/nodes")["nodes"] if node["name"] == "box")
        document: dict[str, Any] = found
        return document

    def info(self) -> dict[str, Any]:
        """Return what the controller's node says of itself."""
        document: dict[str, Any] = json.loads((self.here.home / "run" / "node.json").read_text())
        return document

    @contextlib.contextmanager
    def first_worker_dead(self) -> Iterator[None]:
        """Kill the first worker, and keep its keeper from starting another while the block runs."""
        info = self.info()
        os.kill(info["pid"], signal.SIGSTOP)
        try:
            os.kill(info["worker_pids"][0], signal.SIGKILL)
            yield
        finally:
            os.kill(info["pid"], signal.SIGCONT)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Start a node here, and join the machine there with the command that the node printed."""
    folder = tmp_path_factory.mktemp("machines")
    with two_machines() as cable:
        here = Machine(cable.here, folder / "here" / "home", CRANK_BIND=HERE, CRANK_API_PORT="0", CRANK_WORKERS_PORT="0")
        machines = Both(here, Machine(cable.there, folder / "there" / "home"))
        node = here.begin(f"{sys.executable} -m crank up", "up.log")
        try:
            until(lambda: "node ready" in here.said("up.log"), what="the node to be ready", deadline_sec=120)
            machines.invite = here.ask("node", "invite", "--name", "box", "--capability", "python.run.*")
            with machines.reachable():
                machines.join(machines.invite["command"], "join.log")
                yield machines
        finally:
            machines.leave()
            end(node)


def test_it_joined_with_what_was_pasted(both: Both) -> None:
    """Its node and worker have the level join, offer what the invite allows, and the manifest can be read."""
    node = both.box()
    assert (node["attestation"], node["worker_id"]) == ("join", f"main-{node['node_id']}")
    assert node["machine"]["cpus"] >= 1
    workers = {worker["worker_id"]: worker for worker in both.get("/v1/workers")["workers"]}
    joined = workers[node["worker_id"]]
    assert (joined["node_id"], joined["attestation"], joined["connected"]) == (node["node_id"], "join", True)
    assert joined["capabilities"]
    assert all(name.startswith("python.run.") for name in joined["capabilities"])
    assert len(workers) == 2
    secrets = list(both.there.home.rglob("key.pem"))
    assert {path.stat().st_mode & 0o077 for path in secrets} == {0}
    assert both.invite["token"] not in both.there.said("join.log")


def test_jobs_go_to_both(both: Both) -> None:
    """Two jobs at once, one on each machine."""
    (both.here.home.parent / "together.py").write_text(TOGETHER)
    runs = [both.here.begin(f"{sys.executable} -m crank run together.py --json", f"run{n}.json") for n in range(2)]
    assert [run.wait(timeout=90) for run in runs] == [0, 0]
    ids = {json.loads(both.here.said(f"run{n}.json"))["job_id"] for n in range(2)}
    jobs = [job for job in both.jobs() if job["job_id"] in ids]
    assert len({job["worker_id"] for job in jobs}) == 2


def test_a_blob_travels_when_the_first_worker_is_dead(both: Both) -> None:
    """The second machine takes the job, gets its file, and what it leaves comes back."""
    folder = both.here.home.parent
    octets = os.urandom(300_000)
    (folder / "big.bin").write_bytes(octets)
    (folder / "carry.py").write_text(CARRY)
    with both.first_worker_dead():
        ran = both.here.ask("run", "carry.py", "--file", "big.bin", "--out", "back")
    assert (ran["status"], ran["stdout"]) == ("succeeded", "300000\n")
    assert (folder / "back" / "back.bin").read_bytes() == octets[::-1]
    assert both.get(f"/v1/jobs/{ran['job_id']}")["worker_id"] == both.box()["worker_id"]


def test_a_folder_of_the_first_machine_is_never_looked_for_on_the_second(both: Both, tmp_path: Path) -> None:
    """A job with a mount waits for the machine that has it, while the other one is free and would take it."""
    folder = both.here.home.parent
    docs = folder / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("from here")
    both.here.crank("mount", "add", "docs", str(docs))
    (folder / "read.py").write_text(READ)
    (folder / "plain.py").write_text("print(1)\n")
    until(lambda: len([w for w in both.get("/v1/workers")["workers"] if w["connected"]]) == 2, what="both")
    with both.first_worker_dead():
        waiting = both.here.begin(f"{sys.executable} -m crank run read.py --mount docs --json", "read.json")
        until(lambda: any(job["status"] == "queued" for job in both.jobs()), what="the job")
        assert both.here.ask("run", "plain.py")["stdout"] == "1\n"
        (queued,) = (job for job in both.jobs() if job["status"] == "queued")
        assert queued["worker_id"] is None
    assert waiting.wait(timeout=90) == 0
    ran = json.loads(both.here.said("read.json"))
    assert ran["stdout"] == "from here\n"
    assert both.get(f"/v1/jobs/{ran['job_id']}")["worker_id"] != both.box()["worker_id"]


def test_the_token_is_good_for_nothing_more(both: Both, tmp_path: Path) -> None:
    """On another home the pasted command is refused, without a word about why."""
    thief = Machine(both.there._way, tmp_path / "thief" / "home")
    program = thief.begin(both.invite["command"], "thief.log")
    assert program.wait(timeout=60) != 0
    assert "[join_refused]" in thief.said("thief.log")


def test_a_new_root_reaches_what_it_keeps(both: Both) -> None:
    """Its program fetches the roots that its worker rings for, before the new one signs: with those it comes back and renews."""
    both.here.crank("identity", "rotate", "prepare")
    files = [both.there.home / "member" / "ca.pem", both.there.home / "worker" / "joined" / "identity" / "ca.pem"]
    until(lambda: all(path.read_text().count("BEGIN CERTIFICATE") == 2 for path in files), what="both roots to be kept")

    def activated() -> bool:
        with contextlib.suppress(AssertionError):
            both.here.crank("identity", "rotate", "activate")
            return True
        return False

    until(activated, what="every worker and the machine itself to have acknowledged the new root")
    both.hang_up()


def test_it_comes_back_without_the_token(both: Both) -> None:
    """Ended and started again, with nothing but its home, it serves as before."""
    both.leave()
    until(lambda: not both.box()["connected"], what="the second machine to be away")
    both.join(f"{sys.executable} -m crank node join", "again.log")
    assert "joined crank.internal already" in both.there.said("again.log")


def test_a_forgotten_machine_is_cut_off(both: Both) -> None:
    """Its worker's link ends at once, its identities are revoked, and it does not come back."""
    gone = both.here.ask("node", "forget", "box")
    until(lambda: not both.box()["connected"], what="the link to end", deadline_sec=5)
    bans = {ban["spiffe_id"] for ban in both.get("/v1/identities")["revoked"]}
    domain = "spiffe://crank.internal"
    assert bans == {f"{domain}/worker/{gone['worker_id']}", f"{domain}/node/{gone['node_id']}"}
    log = both.there.home / "logs" / "member.log"
    until(lambda: "identity_revoked" in log.read_text(), what="its next try to be refused")
    assert not both.box()["connected"]

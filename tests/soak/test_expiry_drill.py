"""The expiry drill: identities that live 30 seconds, and every kind of work across many renewals, with no fault.

CRANK_SOAK_DRILL_SEC says how long it lasts. The same with clocks in hand is in tests/unit/controller/test_expiry_drill.py.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import ssl
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from grpclib.client import Channel

from crank.client.proof import ProofKey
from tests.support.node import Api, Node, until
from tests.support.spiffe_socket import Client, next_of
from tests.support.tokens import form
from tests.unit.api.test_spiffe_workload_api import certificates_in

SECONDS = float(os.environ.get("CRANK_SOAK_DRILL_SEC", "180"))
LEAF_SEC = 30
# A token lives ten minutes at most; so long one is used.
TOKEN_SEC = 300
# One kind of work, step by step; closed when the drill is over.
Steps = Generator[None, None, None]
pytestmark = [pytest.mark.system, pytest.mark.soak, pytest.mark.timeout(int(SECONDS) + 240)]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Give a node whose identities live as short as they may."""
    node = Node(tmp_path / "home", {"CRANK_LEAF_TTL_SEC": str(LEAF_SEC)})
    node.start()
    yield node
    node.stop()


class Drill:
    """Workers of several kinds, each on one kept connection that pinned `ca.pem` before the first renewal."""

    def __init__(self, node: Node, ends_sec: float) -> None:
        self._info = node.info()
        self._ends_sec = ends_sec
        self.done: Counter[str] = Counter()
        self.faults: list[str] = []
        self._threads: list[threading.Thread] = []

    def go(self, name: str, work: Callable[[httpx2.Client], Steps]) -> None:
        """Do one kind of work over and over, on a connection of its own, until the drill is over."""

        def run() -> None:
            http = Api(self._info).http
            steps = work(http)
            try:
                while time.monotonic() < self._ends_sec:
                    next(steps)
                    self.done[name] += 1
                steps.close()
            except Exception as fault:
                self.faults.append(f"{name} after {self.done[name]}: {fault!r}"[:1000])
            finally:
                http.close()

        self._threads.append(threading.Thread(target=run, name=name))
        self._threads[-1].start()

    def wait(self) -> None:
        """Wait for all of them."""
        for thread in self._threads:
            thread.join(SECONDS + 120)
            assert not thread.is_alive(), thread.name


def run(http: httpx2.Client, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    """Run a job to its end and insist that it went well."""
    wanted = {"env_profile": "python-core", **body}
    answered = http.post("/v1/jobs", json=wanted, headers={"Prefer": "wait=30", **headers})
    assert answered.status_code == 200, (answered.status_code, answered.text[:500])
    job: dict[str, Any] = answered.json()
    assert (job["status"], job["attempts"]) == ("succeeded", 1), job["end"]
    return job


def plain(http: httpx2.Client) -> Steps:
    """Send job after job without a pause."""
    number = 0
    while True:
        number += 1
        assert run(http, {"code": "args['n'] * 2", "args": {"n": number}})["result"] == number * 2
        yield


def rested(http: httpx2.Client) -> Steps:
    """Use a kept connection only now and then, so that it stands across a renewal of the controller's own."""
    while True:
        assert http.get("/v1/workers").json()["workers"][0]["connected"]
        yield
        threading.Event().wait(7)


def session(http: httpx2.Client) -> Steps:
    """Count in one session that stays for the whole drill."""
    opened = http.post("/v1/sessions", json={"env_profile": "python-core", "lifetime_sec": SECONDS + 300})
    assert opened.status_code == 201, opened.text
    name, number = opened.json()["session_id"], 0
    run(http, {"code": "count = 0", "session": name})
    while True:
        number += 1
        assert run(http, {"code": "count += 1\ncount", "session": name})["result"] == number
        yield


def files(http: httpx2.Client) -> Steps:
    """Bring a file of some megabytes, and take another one home."""
    number = 0
    while True:
        number += 1
        content = os.urandom(64) * 40_000
        digest = hashlib.sha256(content).hexdigest()
        assert http.put(f"/v1/blobs/{digest}", content=content).status_code == 201
        code = "open('/out/back', 'wb').write(open('file', 'rb').read()[::-1])"
        job = run(http, {"code": code, "files": [{"path": "file", "sha256": digest}]})
        back = http.get(f"/v1/jobs/{job['job_id']}/artifacts/back")
        assert back.content == content[::-1]
        yield


def long(http: httpx2.Client) -> Steps:
    """Speak with one job that lives across many renewals; what it hears and says has no gap."""
    code = "import sys\nfor line in sys.stdin:\n    print('heard', line.strip(), flush=True)\n"
    body = {"env_profile": "python-core", "code": code, "stdin": True, "constraints": {"timeout_sec": SECONDS + 120}}
    accepted = http.post("/v1/jobs", json=body)
    assert accepted.status_code == 202, accepted.text
    job_id = accepted.json()["job_id"]
    until(lambda: http.get(f"/v1/jobs/{job_id}").json()["status"] == "running", what="the long job to run")
    sent = b""
    try:
        while True:
            line = f"{len(sent)}\n".encode()
            chunk = {"base64": base64.b64encode(line).decode(), "offset_bytes": len(sent)}
            answered = http.post(f"/v1/jobs/{job_id}/stdin", json=chunk)
            assert answered.status_code == 200, answered.text
            sent += line
            yield
            threading.Event().wait(0.5)
    finally:
        http.post(f"/v1/jobs/{job_id}/stdin", json={"base64": "", "offset_bytes": len(sent), "end": True})
        ended = until(lambda: (found := http.get(f"/v1/jobs/{job_id}").json())["end"] and found, what="the long job to end")
        heard = "".join(f"heard {line}\n" for line in sent.decode().splitlines())
        assert (ended["status"], ended["attempts"], ended["stdout"]) == ("succeeded", 1, heard)


def token_of(http: httpx2.Client, secret: str, **headers: str) -> str:
    """Return a token that is bound to the key that this request proves."""
    answered = http.post("/v1/token", data=form(secret), headers=headers)
    assert (answered.status_code, answered.json().get("token_type")) == (200, "DPoP"), answered.text
    return str(answered.json()["access_token"])


def proven(node: Node) -> Callable[[httpx2.Client], Steps]:
    """Return work by a token that is bound to a key of the caller's own, with a fresh proof each time (DPoP)."""
    key, api = ProofKey(), node.info()["api"]
    secret = Path(node.info()["token_file"]).read_text().strip()

    def work(http: httpx2.Client) -> Steps:
        while True:
            token, until_sec = token_of(http, secret, DPoP=key.prove("POST", f"{api}/v1/token")), time.monotonic() + TOKEN_SEC
            while time.monotonic() < until_sec:
                proof = key.prove("POST", f"{api}/v1/jobs", token)
                assert run(http, {"code": "2 + 2"}, Authorization=f"DPoP {token}", DPoP=proof)["result"] == 4
                yield
                threading.Event().wait(1)

    return work


@dataclass
class Workload:
    """A program of this machine: what the node's socket gave it last, and with which certificates it used each token."""

    node: Node
    folder: Path
    given: x509.Certificate | None = None
    there: threading.Event = field(default_factory=threading.Event)
    used: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def fed(self, _http: httpx2.Client) -> Steps:
        """Watch the Workload API: another certificate for the same key comes while the one before is good."""
        keys: set[bytes] = set()
        with asyncio.Runner() as runner:
            stack = contextlib.AsyncExitStack()
            try:
                stream = runner.run(self._open(stack))
                while True:
                    # Silence for a whole life is a fault, too.
                    (svid,) = runner.run(asyncio.wait_for(next_of(stream), LEAF_SEC)).svids
                    before, leaf = self.given, certificates_in(svid.x509_svid)[0]
                    keys.add(hashlib.sha256(svid.x509_svid_key).digest())
                    assert len(keys) == 1, "another key was given"
                    assert before is None or before.serial_number != leaf.serial_number, "the same certificate came again"
                    assert before is None or before.not_valid_after_utc.timestamp() > time.time(), "it came too late"
                    self._take(svid, leaf)
                    yield
            finally:
                runner.run(stack.aclose())

    async def _open(self, stack: contextlib.AsyncExitStack) -> Any:
        channel = Channel(path=self.node.info()["spiffe_socket"].removeprefix("unix://"))
        stack.callback(channel.close)
        return await stack.enter_async_context(Client(channel).watch_x509())

    def _take(self, svid: Any, leaf: x509.Certificate) -> None:
        key = load_der_private_key(svid.x509_svid_key, None)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = b"".join(one.public_bytes(Encoding.PEM) for one in certificates_in(svid.x509_svid))
        (self.folder / f"{leaf.serial_number}.pem").write_bytes(pem + chain)
        self.given = leaf
        self.there.set()

    def bound(self, _http: httpx2.Client) -> Steps:
        """Work by a token that is bound to the key of these certificates, always over TLS with the newest of them."""
        assert self.there.wait(60), "no identity came"
        secret = Path(self.node.info()["token_file"]).read_text().strip()
        token, until_sec = "", 0.0
        while True:
            assert self.given is not None
            serial = self.given.serial_number
            with self._shown(serial) as http:
                while self.given.serial_number == serial:
                    if time.monotonic() > until_sec:
                        token, until_sec = token_of(http, secret), time.monotonic() + TOKEN_SEC
                    assert run(http, {"code": "3 + 3"}, Authorization=f"Bearer {token}")["result"] == 6
                    self.used[token].add(serial)
                    yield
                    threading.Event().wait(1)

    def _shown(self, serial: int) -> httpx2.Client:
        context = ssl.create_default_context(cafile=self.node.info()["ca_file"])
        context.load_cert_chain(self.folder / f"{serial}.pem")
        return httpx2.Client(base_url=self.node.info()["api"], verify=context, timeout=60)


def test_a_joined_machine_outlives_a_change_of_the_root(node: Node, tmp_path: Path) -> None:
    """Its worker and its files renew below the new root; when the old one is gone it works on, and after a restart, too."""
    there = Node(tmp_path / "there")
    invite = json.loads(node.crank("node", "invite", "--name", "box", "--json").stdout)
    program = there.begin(["sh", "-c", invite["command"].replace("crank node", f"{sys.executable} -m crank node")])

    def box() -> bool:
        assert program.poll() is None, there.said()
        # What it pinned may be gone.
        node.hang_up()
        found = [one for one in node.client().http.get("/v1/nodes").json()["nodes"] if one["name"] == "box"]
        return bool(found and found[0]["connected"])

    def step(name: str) -> bool:
        return node.crank("identity", "rotate", name).returncode == 0

    try:
        until(box, what="the machine to join")
        assert step("prepare")
        until(lambda: step("activate"), what="every worker to know the new root")
        until(lambda: step("retire"), what="the last certificate of the old root to expire", deadline_sec=4 * LEAF_SEC)
        until(box, what="the machine to be connected below the new root")
        threading.Event().wait(2 * LEAF_SEC)
        assert box()
        assert "identity_not_renewed" not in there.said()
    finally:
        there.end(program)
    program = there.begin([sys.executable, "-m", "crank", "node", "join"])
    try:
        until(box, what="the machine to come back with nothing but its home")
    finally:
        there.end(program)


def test_no_request_fails_while_identities_expire(node: Node, tmp_path: Path) -> None:
    """Many lives of a certificate long, every request is answered as if identities lived for ever.

    So are those by tokens that are bound to a key: one of the caller's own, and that of certificates which the node's
    socket hands out and replaces meanwhile.
    """
    assert node.crank("workload", "add", "agent/drill", "--selector", f"unix:uid:{os.geteuid()}").returncode == 0
    workload = Workload(node, tmp_path)
    drill = Drill(node, time.monotonic() + SECONDS)
    mix: dict[str, Callable[[httpx2.Client], Steps]] = {
        "plain": plain, "rested": rested, "session": session, "files": files, "long": long,
        "proven": proven(node), "fed": workload.fed, "bound": workload.bound,
    }  # fmt: skip
    for name, work in mix.items():
        drill.go(name, work)
    drill.wait()
    assert not drill.faults, "\n".join(drill.faults)
    assert all(drill.done[name] > SECONDS / 30 for name in mix), drill.done
    # What a token is bound to outlived many certificates.
    assert max(map(len, workload.used.values())) > SECONDS / LEAF_SEC, workload.used
    text = node.client().http.get("/metrics").text
    renewed = next(float(line.split()[1]) for line in text.splitlines() if line.startswith("crank_links_renewed_total"))
    assert renewed >= SECONDS / LEAF_SEC
    log = (node.home / "logs" / "worker.log").read_text()
    assert "link.lost" not in log
    assert "identity_not_renewed" not in log

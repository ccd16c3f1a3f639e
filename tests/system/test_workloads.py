"""The socket of workloads on a real node: who reaches it and who does not, and what a restart and a start cost."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.support.node import Node, running_node, until

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("workloads")]

OWN_UID = f"unix:uid:{os.geteuid()}"
# What a job could try: the path itself, the ways around it, and any Unix socket at all.
ATTEMPTS = """
import os, socket
path = args["path"]
def attempt(work):
    try:
        return f"done: {work()!r}"
    except BaseException as fault:
        return f"refused: {type(fault).__name__}"
def reach(where):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(where)
        return one.getpeername()
def beside():
    one, _ = socket.socketpair()
    return one.connect(path)
result = {
    "seen": [name for name in (path, os.path.dirname(path)) if os.path.lexists(name)],
    "tries": {
        "by its path": attempt(lambda: reach(path)),
        "through /proc": attempt(lambda: reach(f"/proc/1/root{path}")),
        "without a name": attempt(lambda: reach("\\0spiffe")),
        "by a pair": attempt(beside),
        "any of its kind": attempt(lambda: socket.socket(socket.AF_UNIX)),
    },
}
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give a node at which whatever runs as this account is a workload."""
    with running_node(tmp_path_factory.mktemp("workloads") / "home") as started:
        body = {"path": "agent/here", "selectors": [OWN_UID]}
        assert started.client().http.post("/v1/workloads", json=body).status_code == 201
        yield started


def path_of(node: Node) -> Path:
    """Return the socket."""
    address = node.info()["spiffe_socket"]
    assert address.startswith("unix:///")
    return Path(address.removeprefix("unix://"))


def test_a_node_says_where_it_is_and_lets_its_owner_alone_in(node: Node) -> None:
    """`crank node info` names the socket; its mode, and its folder's, keep other accounts out."""
    path = path_of(node)
    shown = json.loads(node.crank("node", "info", "--json").stdout)
    assert shown["spiffe_socket"] == f"unix://{path}"
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0
    assert path.stat().st_uid == os.geteuid()


def test_a_job_does_not_reach_it(node: Node) -> None:
    """From inside a sandbox the socket is not there, and no Unix socket can be made, though its account is a workload's."""
    path = path_of(node)
    with socket.socket(socket.AF_UNIX) as outside:
        # It is there to be reached.
        outside.connect(str(path))
    body = {"code": ATTEMPTS, "args": {"path": str(path)}}
    answer = node.client().submit(body, Prefer="wait=30").json()
    assert answer["status"] == "succeeded", answer
    found = answer["result"]
    assert found["seen"] == []
    assert [text for text in found["tries"].values() if not text.startswith("refused")] == [], found


def test_neither_do_the_worker_and_what_it_starts(node: Node) -> None:
    """No process of the worker's side has a connection to it, and what confines the worker refuses every Unix socket."""
    info = node.info()
    for pid in info["worker_pids"]:
        status = Path(f"/proc/{pid}/status").read_text()
        # Its filter stands (tests/security/test_worker_confinement.py tries Unix sockets under it).
        assert "Seccomp:\t2" in status
    assert {"syscalls"} & {layer["layer"] for layer in info["worker_confinement"] if layer["holds"]}, info


def test_an_identity_is_kept_through_a_controllers_end(node: Node, tmp_path: Path) -> None:
    """A program that watches gets on when the controller is killed and another one takes its place."""
    command = [sys.executable, "-m", "crank", "identity", "fetch", "--dir", str(tmp_path / "id"), "--watch", "--json"]
    with subprocess.Popen(command, env=node.environment, stdout=subprocess.PIPE, text=True) as watching, ended(watching):
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        assert first["spiffe_id"].endswith("/agent/here")
        key = (tmp_path / "id" / "key.pem").read_bytes()
        before = node.info()["controller_pid"]
        os.kill(before, signal.SIGKILL)
        second = json.loads(watching.stdout.readline())
        assert second == first
        assert (tmp_path / "id" / "key.pem").read_bytes() != key
        until(lambda: node.info().get("controller_pid") not in (None, before), what="the next controller to be told of")


def test_a_revocation_reaches_who_watches(node: Node, tmp_path: Path) -> None:
    """'crank identity revoke' is pushed to a program that watches: its next word comes with a list that names the certificate."""
    body = {"path": "agent/lost", "selectors": [OWN_UID], "hint": "lost"}
    assert node.client().http.post("/v1/workloads", json=body).status_code == 201
    lost = node.crank("identity", "fetch", "--dir", str(tmp_path / "lost"), "--hint", "lost", "--json")
    spiffe_id = json.loads(lost.stdout)["spiffe_id"]
    serial = x509.load_pem_x509_certificate((tmp_path / "lost" / "cert.pem").read_bytes()).serial_number
    command = [sys.executable, "-m", "crank", "identity", "fetch", "--dir", str(tmp_path / "id"), "--watch", "--json"]
    with subprocess.Popen(command, env=node.environment, stdout=subprocess.PIPE, text=True) as watching, ended(watching):
        assert watching.stdout is not None
        watching.stdout.readline()
        revoked = node.crank("identity", "revoke", f"{serial:x}", "--json")
        assert revoked.returncode == 0, revoked.stderr
        told = json.loads(watching.stdout.readline())
    assert told["spiffe_id"] != spiffe_id
    assert str(tmp_path / "id" / "crl.pem") in told["files"]
    assert x509.load_pem_x509_crl((tmp_path / "id" / "crl.pem").read_bytes()).get_revoked_certificate_by_serial_number(serial)
    # As nginx and PostgreSQL check: a list for each issuer of the chain.
    checked = [
        subprocess.run(
            ["openssl", "verify", "-CAfile", "id/bundle.pem", "-CRLfile", "id/crl.pem", "-crl_check_all",
             "-untrusted", f"{one}/cert.pem", f"{one}/cert.pem"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )
        for one in ("lost", "id")
    ]  # fmt: skip
    assert "certificate revoked" in checked[0].stderr
    assert checked[1].returncode == 0, checked[1].stderr


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """End a process whatever becomes of the test, and of a test that waits for it in vain."""
    killing = threading.Timer(45, process.kill)
    killing.start()
    try:
        yield
    finally:
        killing.cancel()
        process.kill()


def test_what_speaks_grpc_is_not_loaded_before_the_node_is_ready() -> None:
    """The controller's modules load without gRPC and protobuf, which come beside the loop afterwards."""
    program = (
        "import sys, crank.bootstrap.controller, crank.bootstrap.keeper, crank.cli.main\n"
        "print([name for name in ('grpclib', 'h2', 'google.protobuf', 'joserfc') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]", done.stdout

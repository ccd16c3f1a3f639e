"""A real node's worker, looked at from outside: what it is, what it sees, and that it comes back whole."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.node import Node, running_node, until
from tests.support.tree import alive

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("node"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root sees into another process, and gives it an account"),
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give one running node to all tests of this file."""
    with running_node(tmp_path_factory.mktemp("node") / "home") as node:
        yield node


def _worker(node: Node) -> int:
    pid: int = node.info()["worker_pids"][0]
    return pid


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _children(pid: int) -> dict[str, int]:
    """Return the children of a process: the launcher by its title, and the dialer, which looks like its parent."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and os.path.exists(entry / "status"):
            try:
                if _status(int(entry.name))["PPid"] == str(pid):
                    title = (entry / "cmdline").read_bytes().strip(b"\0")
                    found["launcher" if title == b"crank-launcher" else "dialer"] = int(entry.name)
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def _runs(node: Node) -> bool:
    return node.crank("run", "-", stdin="print(1)").stdout == "1\n"


def test_the_worker_is_nobody(node: Node) -> None:
    """Started by root, the worker has an account of its own, no group, no capability, and a filter; so has its dialer."""
    worker = _worker(node)
    for pid in (worker, _children(worker)["dialer"]):
        status = _status(pid)
        (account,) = set(status["Uid"].split())
        assert int(account) not in (0, *range(200_000, 201_000))
        assert set(status["Gid"].split()) == {account}
        assert status["Groups"] == ""
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for pid in (node.info()["controller_pid"], node.info()["pid"]):
        assert _status(pid)["Uid"].split()[0] == "0"


def test_the_worker_sees_its_own_files_alone(node: Node) -> None:
    """Of the node's home it has its identity and its spool, of the machine the interpreter and libraries, no network."""
    root = Path(f"/proc/{_worker(node)}/root")
    home = root / node.home.relative_to("/")
    assert sorted(path.name for path in home.iterdir()) == ["worker"]
    assert sorted(path.name for path in (home / "worker" / "main").iterdir()) == ["identity", "spool"]
    assert not (root / "etc" / "shadow").exists()
    assert not (root / "sys").exists()
    lines = Path(f"/proc/{_worker(node)}/net/dev").read_text().splitlines()[2:]
    assert [(line.split()[0], line.split()[1]) for line in lines] == [("lo:", "0")]


def test_what_holds_is_published(node: Node) -> None:
    """node info names each layer, for people and for programs."""
    layers = json.loads(node.crank("node", "info", "--json").stdout)["worker_confinement"]
    assert {"view", "network", "account", "capabilities", "landlock_files", "syscalls"} <= {
        each["layer"] for each in layers if each["holds"]
    }
    assert "view, network, account" in node.crank("node", "info").stdout
    assert "worker confinement" in node.crank("doctor").stdout


def test_the_key_is_the_accounts_and_renewal_reaches_it(node: Node) -> None:
    """Nobody but the account may read the key; a certificate that the controller puts in place is there inside at once."""
    identity = node.home / "worker" / "main" / "identity"
    account = int(_status(_worker(node))["Uid"].split()[0])
    key = (identity / "key.pem").stat()
    assert (key.st_uid, key.st_mode & 0o777) == (account, 0o600)
    assert (identity.stat().st_uid, identity.stat().st_mode & 0o777) == (0, 0o750)
    renewed = identity / ".cert.pem.new"
    renewed.write_bytes((identity / "cert.pem").read_bytes())
    renewed.chmod(0o644)
    renewed.replace(identity / "cert.pem")
    inside = Path(f"/proc/{_worker(node)}/root") / (identity / "cert.pem").relative_to("/")
    assert inside.stat().st_ino == (identity / "cert.pem").stat().st_ino


def test_a_mount_that_is_not_registered_is_not_shown(node: Node, tmp_path: Path) -> None:
    """The launcher believes the controller's register and not the lease: a folder that is not in it stays closed."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("seen")
    assert node.crank("mount", "add", "docs", str(folder)).returncode == 0
    command = ("run", "-", "--json", "--mount", "docs")
    code = "print(open('/in/docs/a.txt').read())"
    assert json.loads(node.crank(*command, stdin=code).stdout)["stdout"] == "seen\n"
    register = node.home / "controller" / "mounts.json"
    assert str(folder) in json.loads(register.read_text())
    register.write_text("[]")
    ended = json.loads(node.crank(*command, stdin=code).stdout)
    assert (ended["end"]["reason"], ended["end"]["code"]) == ("sandbox_failed", "folder_not_allowed")


@pytest.mark.parametrize("lost", ["launcher", "dialer"])
def test_what_stands_outside_is_replaced(node: Node, lost: str) -> None:
    """A worker cannot start another launcher or dialer from inside, so it leaves, and a whole one takes its place."""
    worker = _worker(node)
    os.kill(_children(worker)[lost], signal.SIGKILL)
    until(lambda: node.info() and _worker(node) != worker, what="a new worker")
    until(lambda: node.client().ready().get("ready"), what="the new worker to enroll")
    assert _runs(node)


def test_a_second_start_finds_everything(tmp_path: Path) -> None:
    """What one worker wrote under its account the next one reads: stop, start, run, as often as one likes."""
    for _ in range(2):
        with running_node(tmp_path / "home") as node:
            assert _runs(node)
            assert node.info()["worker_confinement"]


def test_nothing_outlives_the_worker(tmp_path: Path) -> None:
    """When the worker is killed, its launcher and its dialer end with it."""
    with running_node(tmp_path / "home") as node:
        worker = _worker(node)
        beside = _children(worker)
        os.kill(worker, signal.SIGKILL)
        until(lambda: not any(map(alive, beside.values())), what="both to end", deadline_sec=30)

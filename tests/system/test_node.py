"""A real node, used as a person uses it: by the command line alone."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.node import Node, running_node, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("node")]

SLOW = "import time\nfor i in range(600):\n    print(i, flush=True)\n    time.sleep(0.1)\n"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give one running node to all tests of this file."""
    with running_node(tmp_path_factory.mktemp("node") / "home") as node:
        yield node


def test_a_script_runs(node: Node) -> None:
    """The job's stdout is our stdout, its stderr is in our stderr, and success is exit code 0."""
    done = node.crank("run", "-", stdin="import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7\n")
    assert (done.returncode, done.stdout) == (0, "out\n"), done.stderr
    assert "err\n" in done.stderr
    assert "result: 42" in done.stderr


def test_json_is_one_object(node: Node) -> None:
    """--json prints exactly one object with the promised keys."""
    done = node.crank("run", "-", "--json", stdin="print(1)\nargs['n'] * 2", timeout_sec=60)
    found = json.loads(done.stdout)
    assert done.returncode == 1  # no args were given
    assert found["end"]["reason"] == "raised"
    assert {"job_id", "status", "end", "stdout", "stderr", "result", "metrics", "artifacts", "tier"} <= set(found)
    done = node.crank(
        "run", "-", "--json", "--arg", "n=21", "--arg", "who=me", stdin="print(args['who'])\nargs['n'] * 2"
    )
    found = json.loads(done.stdout)
    assert (found["status"], found["result"], found["stdout"], found["tier"]) == ("succeeded", 42, "me\n", "namespaces")


def test_files_go_in_and_come_out(node: Node, tmp_path: Path) -> None:
    """A mounted folder and a file are readable in the job, and what it leaves in /out lands in --out."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("mounted")
    (tmp_path / "f.txt").write_text("given" * 50_000)
    script = tmp_path / "script.py"
    script.write_text(
        "import os\nos.makedirs('/out/deep')\n"
        "text = open('/in/docs/a.txt').read() + str(len(open('/scratch/in.txt').read()))\n"
        "open('/out/deep/r.txt', 'w').write(text)\n"
    )
    out = tmp_path / "out"
    done = node.crank(
        "run", str(script), "--mount", f"docs={docs}", "--file", f"{tmp_path / 'f.txt'}=in.txt", "--out", str(out)
    )
    assert done.returncode == 0, done.stderr
    assert (out / "deep" / "r.txt").read_text() == "mounted250000"


def test_a_named_mount_is_used_by_its_name(node: Node, tmp_path: Path) -> None:
    """mount add gives a folder a name, jobs use it by that name, mount remove takes it away."""
    (tmp_path / "a.txt").write_text("named")
    assert node.crank("mount", "add", "papers", str(tmp_path)).returncode == 0
    assert "papers" in node.crank("mount", "list").stdout
    code = "print(open('/in/papers/a.txt').read())"
    assert node.crank("run", "-", "--mount", "papers", stdin=code).stdout == "named\n"
    assert node.crank("mount", "remove", "papers").returncode == 0
    assert node.crank("run", "-", "--mount", "papers", stdin=code).returncode == 4


def test_a_deadline_ends_a_job(node: Node) -> None:
    """--timeout gives exit code 7, and what was printed until then is kept."""
    done = node.crank("run", "-", "--timeout", "4", "--json", stdin=SLOW)
    found = json.loads(done.stdout)
    assert (done.returncode, found["status"], found["end"]["clock"]) == (7, "timed_out", "wall")
    assert found["stdout"].startswith("0\n")


def test_progress_is_plain_lines_in_a_pipe(node: Node) -> None:
    """What a job tells of its progress is talk: one line each on stderr when nobody watches a terminal."""
    done = node.crank("run", "-", stdin="progress(0.5, 'half way')\nprint('data')\n")
    assert done.stdout == "data\n"
    assert "progress:  50% half way\n" in done.stderr


def test_a_refusal_has_the_same_shape(node: Node) -> None:
    """What no worker can run is refused with the failed constraint, in the same object, with exit code 6."""
    done = node.crank("run", "-", "--accelerator", "gpu", "--json", stdin="1")
    found = json.loads(done.stdout)
    assert (done.returncode, found["status"], found["end"]["code"]) == (6, "refused", "unsatisfied-capability")
    assert found["artifacts"] == []


def test_a_detached_job_is_followed_and_cancelled(node: Node) -> None:
    """--detach prints the id alone; logs -f follows it live; cancel ends it; wait tells how."""
    job_id = node.crank("run", "-", "--detach", stdin=SLOW).stdout.strip()
    following = subprocess.Popen(
        [sys.executable, "-m", "crank", "job", "logs", "-f", job_id],
        env=node.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert following.stdout is not None
        assert [following.stdout.readline() for _ in range(3)] == ["0\n", "1\n", "2\n"]
        assert job_id in node.crank("job", "list").stdout
        assert node.crank("job", "cancel", job_id).returncode == 0
        assert following.wait(timeout=30) == 130
    finally:
        following.kill()
        following.communicate()
    assert node.crank("job", "wait", job_id).returncode == 130
    assert json.loads(node.crank("job", "show", job_id, "--json").stdout)["status"] == "cancelled"


def test_an_interrupt_cancels_the_job(node: Node) -> None:
    """Ctrl-C ends the job on the node too, and the command shows its end."""
    running = subprocess.Popen(
        [sys.executable, "-m", "crank", "run", "-", "--job-id", "interrupted-1"],
        env=node.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stdin is not None
    assert running.stdout is not None
    running.stdin.write(SLOW)
    running.stdin.close()
    assert running.stdout.readline() == "0\n"
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=30) == 130
    assert running.stderr is not None
    assert "cancelled" in running.stderr.read()
    running.stdout.close()
    running.stderr.close()
    assert json.loads(node.crank("job", "show", "interrupted-1", "--json").stdout)["status"] == "cancelled"


def test_a_key_runs_a_job_once(node: Node) -> None:
    """The same idempotency key gives the same job again."""
    runs = [
        json.loads(node.crank("run", "-", "--json", "--idempotency-key", "once", stdin="print(1)").stdout)
        for _ in range(2)
    ]
    assert runs[0]["job_id"] == runs[1]["job_id"]


def test_a_second_node_is_refused(node: Node) -> None:
    """Two nodes cannot share a home: the second says so and exits 8."""
    done = node.crank("up", "--json")
    assert done.returncode == 8
    assert json.loads(done.stdout)["error"]["code"] == "node_running"


def test_the_doctor_sees_the_node(node: Node) -> None:
    """The doctor finds the running node and its worker, and nothing that fails."""
    done = node.crank("doctor", "--json")
    found = {each["name"]: each for each in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0, done.stdout
    assert "1 worker(s) connected" in found["node"]["cause"]


def test_secrets_are_private(node: Node) -> None:
    """The token and the node's own document are readable by their owner alone."""
    info = json.loads(node.crank("node", "info", "--json").stdout)
    for path in (info["token_file"], str(node.home / "run" / "node.json"), str(node.home / "controller" / "crank.db")):
        assert os.stat(path).st_mode & 0o077 == 0, path


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    """A port that another program holds gives one clear error and exit code 3, and leaves nothing running."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        node = Node(tmp_path / "home", {"CRANK_API_PORT": str(port)})
        done = node.crank("up", "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (3, "port_taken")
    assert str(port) in error["message"]
    assert "Traceback" not in done.stderr


def test_a_damaged_database_is_told(tmp_path: Path) -> None:
    """A database that is none stops the start with exit code 3 and what to do; it is not touched."""
    node = Node(tmp_path / "home")
    (tmp_path / "home" / "controller").mkdir(parents=True)
    database = tmp_path / "home" / "controller" / "crank.db"
    database.write_bytes(b"this is no database" * 400)
    done = node.crank("up", "--json")
    assert done.returncode == 3, done.stdout
    assert json.loads(done.stdout)["error"]["fix"]
    assert "Traceback" not in done.stderr
    assert database.read_bytes() == b"this is no database" * 400


def test_a_node_in_the_background(tmp_path: Path) -> None:
    """up --detach returns when the node is ready; it outlives the command; down ends every process of it."""
    node = Node(tmp_path / "home")
    done = node.crank("up", "--detach", "--json")
    assert done.returncode == 0, done.stderr
    try:
        info = json.loads(done.stdout)
        assert node.crank("run", "-", stdin="print(1)").stdout == "1\n"
    finally:
        assert node.crank("down").returncode == 0
    for pid in (info["pid"], info["controller_pid"], *info["worker_pids"]):
        until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), what=f"process {pid} to be gone")  # type: ignore[misc]
    assert not (tmp_path / "home" / "run" / "node.json").exists()


def test_a_node_for_one_command(tmp_path: Path) -> None:
    """Without a node, run starts one, uses it, and leaves none behind."""
    node = Node(tmp_path / "home")
    done = node.crank("run", "-", stdin="print('alone')")
    assert (done.returncode, done.stdout) == (0, "alone\n"), done.stderr
    assert node.crank("node", "info").returncode == 5


def test_children_die_with_the_keeper(tmp_path: Path) -> None:
    """When the keeper is killed, controller and worker stop by themselves, and the home is free again."""
    node = Node(tmp_path / "home")
    info = json.loads(node.crank("up", "--detach", "--json").stdout)
    os.kill(info["pid"], signal.SIGKILL)
    for pid in (info["controller_pid"], *info["worker_pids"]):
        until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), what=f"process {pid} to be gone")  # type: ignore[misc]
    assert node.crank("node", "info").returncode == 5

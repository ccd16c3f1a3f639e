"""A worker author's own function, offered to a real node and called like everything else."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import crank
from tests.support.node import running_node, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("node")]

MODULE = '''
from crank import Worker

app = Worker("text-tools")


@app.capability("text.count", version="1.0.0", effects="pure")
def count(text: str, minimum: int = 1) -> dict[str, int]:
    """Count words."""
    words = [word for word in text.split() if len(word) >= minimum]
    return {word: words.count(word) for word in words}


@app.capability("text.look", version="1.0.0")
def look(path: str) -> str:
    """Look for what is not an author's business."""
    import pathlib, socket
    found = "something" if (pathlib.Path(__file__).parent / path).exists() else "nothing"
    try:
        socket.create_connection(("127.0.0.1", 1))
    except OSError:
        return found + ", and no network"
    return found
'''

THREADS = '''
import threading, time
from crank import Worker

app = Worker("threads")
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()


@app.capability("threads.idle", version="1.0.0")
def idle() -> int:
    """Do nothing."""
    return 0
'''


def test_an_authors_function_is_a_capability(tmp_path: Path) -> None:
    """Ten lines become a capability: found, called, checked on the way in, and gone when its worker leaves."""
    (tmp_path / "tools.py").write_text(MODULE)
    with running_node(tmp_path / "home") as node:
        command = [sys.executable, "-m", "crank", "worker", "serve", "tools:app"]
        serving = subprocess.Popen(command, env=node.environment, cwd=tmp_path, stderr=subprocess.PIPE)
        try:
            until(
                lambda: "text.count" in node.crank("worker", "list").stdout,
                what="the worker to enroll",
                deadline_sec=120,
            )
            call = ("run", "--json", "--capability", "text.count", "--args")
            done = node.crank(*call, '{"text": "a b a"}')
            told = json.loads(done.stdout)
            assert (told["result"], told["tier"]) == ({"a": 2, "b": 1}, "namespaces")
            assert {"network", "mounts", "seccomp"} <= set(told["layers"])
            wanted = ("run", "--json", "--capability", "text.look", "--args", '{"path": "home/controller"}')
            assert json.loads(node.crank(*wanted).stdout)["result"] == "nothing, and no network"
            refused = node.crank(*call, '{"text": 3}')
            assert refused.returncode == 2
            assert json.loads(refused.stdout)["error"]["field"] == "args.text"
        finally:
            serving.send_signal(signal.SIGINT)
            _, talk = serving.communicate(timeout=30)
        assert serving.returncode == 0, talk.decode()


def test_a_module_that_cannot_be_forked_is_refused(tmp_path: Path) -> None:
    """A worker whose module starts threads never offers anything, and says why."""
    (tmp_path / "threads.py").write_text(THREADS)
    with running_node(tmp_path / "home") as node:
        command = [sys.executable, "-m", "crank", "worker", "serve", "threads:app"]
        done = subprocess.run(
            command, env=node.environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode != 0
        assert "import threads started 1 thread(s)" in done.stderr
        assert "threads.idle" not in node.crank("worker", "list").stdout


def test_the_python_client_finds_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Client()` needs no arguments on the node's machine: it runs, streams, follows and downloads."""
    with running_node(tmp_path / "home") as node:
        monkeypatch.setenv("CRANK_HOME", str(node.home))
        printed: list[tuple[str, str]] = []
        with crank.Client() as client:
            job = client.run("print(1 + 1)")
            assert (job.ok, job.stdout) == (True, "2\n")
            code = "print('a')\nopen('/out/x', 'w').write('left')\nargs['n'] * 2"
            job = client.run(code, args={"n": 4}, on_output=lambda stream, text: printed.append((stream, text)))
            assert (job.result, printed) == (8, [("stdout", "a\n")])
            with (tmp_path / "x").open("wb") as target:
                client.download(job.job_id, client.artifacts(job.job_id)[0], target)
            assert (tmp_path / "x").read_text() == "left"
            assert [event.kind for event in client.events(job.job_id)][-1] == "end"
            assert {each.job_id for each in client.list().jobs} >= {job.job_id}
            with pytest.raises(crank.errors.NotFound):
                client.get("no-such-job")


def test_the_worker_starts_anew_for_a_new_profile(tmp_path: Path) -> None:
    """After a build the keeper is told, and puts a fresh worker in the old one's place; what runs goes on to its end."""
    with running_node(tmp_path / "home") as node:
        before = node.info()
        assert node.keeper is not None
        code = "import time\nprint('begun', flush=True)\ntime.sleep(3)\nprint('done')"
        job_id = node.crank("run", "-", "--detach", stdin=code).stdout.strip()
        until(lambda: node.client().job(job_id)["status"] == "running", what="the job to run")
        node.keeper.send_signal(signal.SIGHUP)
        until(
            lambda: node.info().get("worker_pids", before["worker_pids"]) != before["worker_pids"], what="a new worker"
        )
        assert node.client().ended(job_id)["stdout"] == "begun\ndone\n"
        assert node.info()["controller_pid"] == before["controller_pid"]
        assert node.crank("run", "-", stdin="print(1)").stdout == "1\n"

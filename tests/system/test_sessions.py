"""Sessions on a real node: state that lives in a real sandbox, and every way in which it ends."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import Node, running_node, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("sessions")]

FOREVER = "print('begun', flush=True)\nimport time\nwhile True:\n    time.sleep(60)\n"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give one running node to all tests of this file."""
    with running_node(tmp_path_factory.mktemp("sessions") / "home", {"CRANK_WORKER_SLOTS": "2"}) as node:
        yield node


def opened(node: Node, **fields: Any) -> str:
    """Open a session and return its id."""
    answered = node.client().http.post("/v1/sessions", json=fields)
    assert answered.status_code == 201, answered.text
    return str(answered.json()["session_id"])


def run(node: Node, session_id: str | None, code: str | None, **fields: Any) -> dict[str, Any]:
    """Run a job of a session to its end."""
    answered = node.client().submit({"code": code, "session": session_id, **fields}, Prefer="wait=40")
    assert answered.status_code == 200, answered.text
    return dict(answered.json())


def begun(node: Node, session_id: str | None, code: str = FOREVER, **fields: Any) -> str:
    """Start a job and return its id once it runs."""
    job_id = str(node.client().submit({"code": code, "session": session_id, **fields}).json()["job_id"])
    until(lambda: node.client().job(job_id)["status"] == "running", what="the job to run")
    return job_id


def over(node: Node, session_id: str) -> dict[str, Any]:
    """Return how a session ended, waiting for it."""

    def end() -> Any:
        return node.client().http.get(f"/v1/sessions/{session_id}").json()["end"]

    return dict(until(end, what="the session to end"))


def test_state_lives_between_jobs(node: Node) -> None:
    """Variables, imports, the working folder and files of one job are there for the next; contexts keep apart."""
    session_id = opened(node)
    run(node, session_id, "import os, json\nx = 40\nos.makedirs('w')\nos.chdir('w')\nopen('a.txt', 'w').write('hi')")
    found = run(node, session_id, "[x + 2, os.getcwd(), open('a.txt').read(), json.dumps(args)]", args={"n": 1})
    assert found["result"] == [42, "/scratch/w", "hi", '{"n": 1}']
    assert (found["tier"], found["session_id"]) == ("namespaces", session_id)
    assert run(node, session_id, "'x' in globals()", context="other")["result"] is False
    failed = run(node, session_id, "x = 1 / 0")
    assert (failed["status"], run(node, session_id, "x")["result"]) == ("failed", 40)
    assert run(node, None, "'x' in globals()")["result"] is False


def test_an_interrupt_keeps_the_state(node: Node) -> None:
    """A running job is interrupted over HTTP; what came before it in the session is still there."""
    session_id = opened(node)
    run(node, session_id, "x = 'kept'")
    job_id = begun(node, session_id)
    assert node.client().http.post(f"/v1/jobs/{job_id}/interrupt").status_code == 200
    job = node.client().ended(job_id)
    assert job["end"]["message"].startswith("KeyboardInterrupt")
    assert run(node, session_id, "x")["result"] == "kept"


def test_a_job_without_a_session_is_interrupted_too(node: Node) -> None:
    """An ordinary job takes the same call, and may clean up before it ends."""
    code = (
        "import time\ntry:\n    print('begun', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    result = 'cleaned up'\n"
    )
    job_id = begun(node, None, code)
    assert node.client().http.post(f"/v1/jobs/{job_id}/interrupt").status_code == 200
    job = node.client().ended(job_id)
    assert (job["status"], job["result"]) == ("succeeded", "cleaned up")
    assert node.client().http.post(f"/v1/jobs/{job_id}/interrupt").status_code == 409


def test_cancelling_a_job_keeps_the_state(node: Node) -> None:
    """A cancelled job that yields ends as cancelled; one that does not takes its session with it."""
    session_id = opened(node)
    run(node, session_id, "x = 'kept'")
    job_id = begun(node, session_id)
    node.client().http.post(f"/v1/jobs/{job_id}/cancel")
    assert node.client().ended(job_id)["status"] == "cancelled"
    assert run(node, session_id, "x")["result"] == "kept"
    deaf = "import time\nwhile True:\n    try:\n        print('begun', flush=True)\n        time.sleep(60)\n"
    job_id = begun(node, session_id, deaf + "    except KeyboardInterrupt:\n        pass\n")
    node.client().http.post(f"/v1/jobs/{job_id}/cancel")
    assert node.client().ended(job_id)["status"] == "cancelled"
    end = over(node, session_id)
    assert (end["reason"], end["job_id"]) == ("crashed", job_id)


@pytest.mark.parametrize("in_session", [True, False])
def test_stdin_of_a_running_job(node: Node, in_session: bool) -> None:
    """Lines arrive while the job runs; without stdin: true reading fails at once."""
    session_id = opened(node) if in_session else None
    code = "line = input()\nprint('got', line, flush=True)\nimport sys\nsys.stdin.read()"
    job_id = begun(node, session_id, code, stdin=True)
    path = f"/v1/jobs/{job_id}/stdin"
    assert node.client().http.post(path, json={"text": "hello\n", "offset_bytes": 0}).json()["taken_bytes"] == 6
    until(lambda: "got hello" in node.crank("job", "logs", job_id).stdout, what="the line to arrive")
    node.client().http.post(path, json={"text": "rest", "end": True})
    assert node.client().ended(job_id)["result"] == "rest"
    assert run(node, session_id, "input()")["end"]["message"].startswith("EOFError")


def test_files_of_a_session(node: Node) -> None:
    """Bytes travel both ways beside the messages, and what code wrote can be listed and read."""
    session_id = opened(node)
    files = f"/v1/sessions/{session_id}/files"
    content = os.urandom(3 << 20)
    assert node.client().http.put(f"{files}/in/blob.bin", content=content).status_code == 200
    code = (
        "data = open('/scratch/in/blob.bin', 'rb').read()\nopen('/scratch/out.bin', 'wb').write(data[::-1])\nlen(data)"
    )
    assert run(node, session_id, code)["result"] == len(content)
    listed = node.client().http.get(files).json()["files"]
    assert {one["path"]: one["kind"] for one in listed} == {"in": "folder", "out.bin": "file"}
    assert node.client().http.get(f"{files}/out.bin").content == content[::-1]
    assert node.client().http.delete(f"{files}/in").status_code == 204
    assert node.client().http.get(f"{files}/in/blob.bin").status_code == 404
    run(node, session_id, "import os\nos.symlink('/etc/passwd', '/scratch/link')")
    assert node.client().http.get(f"{files}/link").status_code == 404


def test_a_program_shares_the_files(node: Node) -> None:
    """pandoc runs as a job of the session, on a file that code left there; what is not listed is refused."""
    session_id = opened(node, env_profile="python-docs")
    run(node, session_id, "open('/scratch/a.md', 'w').write('# Title')")
    done = run(node, session_id, None, program=["pandoc", "-t", "plain", "/scratch/a.md"])
    assert (done["status"], done["stdout"].strip()) == ("succeeded", "Title"), done["stderr"]
    refused = run(node, session_id, None, program=["sh", "-c", "id"])
    assert refused["end"]["code"] == "program_not_listed"
    assert run(node, session_id, "open('/scratch/a.md').read()")["result"] == "# Title"
    assert run(node, None, None, program=["pandoc", "--version"], env_profile="python-docs")["status"] == "succeeded"


def test_limits_of_a_job_end_its_session_and_say_so(node: Node) -> None:
    """A job that passes its deadline or its memory ends the session, which names the job and the cause."""
    for code, constraints, reason in (
        ("while True:\n    pass", {"timeout_sec": 0.5}, "timeout"),
        ("x = bytearray(1 << 32)\nx[::4096] = b'1' * len(x[::4096])", {}, "memory"),
    ):
        session_id = opened(node)
        job = run(node, session_id, code, constraints=constraints)
        if "MemoryError" in job["end"]["message"]:
            # Python itself saw that the memory is not there: the session lives, as after any exception.
            assert job["end"]["reason"] == reason
            assert run(node, session_id, "1")["result"] == 1
            continue
        end = over(node, session_id)
        assert (job["end"]["reason"], end["reason"], end["job_id"]) == (reason, "crashed", job["job_id"])
        assert end["job_end"]["reason"] == reason


def test_the_idle_clock(node: Node) -> None:
    """A session that rests for its idle time ends by itself."""
    session_id = opened(node, idle_sec=1)
    assert over(node, session_id)["reason"] == "idle"


def test_the_lifetime_ends_a_running_job(node: Node) -> None:
    """At the end of the lifetime a running job ends, and says why."""
    session_id = opened(node, lifetime_sec=8)
    job_id = begun(node, session_id)
    assert over(node, session_id)["reason"] == "lifetime"
    job = node.client().ended(job_id)
    assert (job["status"], job["end"]["clock"], job["stdout"]) == ("timed_out", "lifetime", "begun\n")


def test_a_session_outlives_its_controller(node: Node) -> None:
    """A controller that is killed and started again finds the session as it was, with its running job."""
    session_id = opened(node)
    run(node, session_id, "x = 'kept'")
    job_id = begun(node, session_id)
    controller = int(node.info()["controller_pid"])
    os.kill(controller, signal.SIGKILL)

    def back() -> bool:
        info = node.info()
        return int(info.get("controller_pid") or controller) != controller and node._ready()

    until(back, what="the controller to come back")
    until(
        lambda: node.client().http.post(f"/v1/jobs/{job_id}/interrupt").status_code == 200,
        what="the worker to be back with its job",
    )
    assert node.client().ended(job_id)["end"]["message"].startswith("KeyboardInterrupt")
    assert run(node, session_id, "x")["result"] == "kept"


def test_a_session_dies_with_its_worker(node: Node, tmp_path: Path) -> None:
    """A killed worker loses its sessions; that is told, and jobs that wait for one end with it."""
    session_id = opened(node)
    running = begun(node, session_id)
    waiting = node.client().submit({"code": "1", "session": session_id}).json()["job_id"]
    worker = int(node.info()["worker_pids"][0])
    os.kill(worker, signal.SIGKILL)
    end = over(node, session_id)
    assert end["reason"] == "worker_lost"
    assert node.client().ended(running)["status"] == "lost"
    refused = node.client().ended(waiting)
    assert (refused["status"], refused["end"]["code"]) == ("refused", "session_ended")
    until(node._ready, what="a new worker")
    assert run(node, opened(node), "1 + 1")["result"] == 2

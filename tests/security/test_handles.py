"""Handles on a real node of one slot: what a job may call for, what it may not, and what becomes of calls when something dies."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import Node, running_node, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("handles")]

RUN = {"name": "run", "kind": "call", "capability": "python.run.core"}
DOUBLE = "result = args['n'] * 2"
SLEEPS = "import time\ntime.sleep(60)"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give a node with one slot: whatever waits for a call must lend it."""
    with running_node(tmp_path_factory.mktemp("handles") / "home", {"CRANK_WORKER_SLOTS": "1"}) as started:
        yield started


def start(node: Node, code: str, handles: list[dict[str, Any]] | None = None, **fields: Any) -> str:
    """Submit a job and return its id."""
    body = {"code": code, "env_profile": "python-core", **({"handles": handles} if handles else {}), **fields}
    answer = node.client().submit(body)
    assert answer.status_code in (200, 202), answer.text
    return str(answer.json()["job_id"])


def run(node: Node, code: str, handles: list[dict[str, Any]] | None = None, **fields: Any) -> dict[str, Any]:
    """Submit a job and return it when it has ended."""
    return node.client().ended(start(node, code, handles, **fields))


def called(node: Node, job_id: str) -> list[dict[str, Any]]:
    """Return the jobs that this one called for, oldest first."""
    jobs = node.client().http.get("/v1/jobs", params={"limit": 200}).json()["jobs"]
    return [job for job in reversed(jobs) if job["called_by"] and job["called_by"]["job_id"] == job_id]


def refused(document: dict[str, Any]) -> list[str]:
    """Return what the outcome keeps as evidence of refused calls."""
    return [denial["action"] for denial in document["denials"] if denial["layer"] == "handle"]


def calling(expression: str) -> str:
    """Return code that makes a call and results in what it brought, or in the code of the fault."""
    return f"import crank\ntry:\n    result = {expression}\nexcept crank.CallError as fault:\n    result = [type(fault).__name__, fault.code]"


def test_a_job_calls_for_another_on_a_node_of_one_slot(node: Node) -> None:
    """The waiting job lends its slot; both are ordinary jobs, and the called one says who called."""
    code = calling(f"crank.call('python.run.core', {{'n': 21}}, code={DOUBLE!r})")
    job = run(node, code, [RUN])
    assert (job["status"], job["result"]) == ("succeeded", 42), job
    (child,) = called(node, job["job_id"])
    assert child["called_by"] == {"job_id": job["job_id"], "epoch": 1, "number": 1, "handle": "run"}
    assert child["status"] == "succeeded"


def test_without_a_handle_nothing_is_called_for(node: Node) -> None:
    """A job without handles can import the module and call for nothing; the attempt is kept as evidence."""
    job = run(node, calling("crank.call('python.run.core', code='1')"))
    assert (job["status"], job["result"]) == ("succeeded", ["CallRefused", "no_handle"]), job
    assert refused(job) == ["call python.run.core"]
    assert not called(node, job["job_id"])


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ("'python.run.core', code='1', handle='other'", "no_handle"),
        ("'python.run.core', code='1', handle='docs'", "no_handle"),
        ("'python.run.docs', code='1', handle='run'", "handle_capability"),
        ("'python.run.core', code='1', version='9.9.9', handle='run'", "handle_version"),
        ("'python.run.core', code='1', mounts=['secrets']", "handle_mount"),
        ("'python.run.core', code='1', handles=['other']", "no_handle"),
        ("'document.convert', {'to': 'pdf'}", "handle_constraints"),
        ("'document.convert', [1]", "handle_constraints"),
        ("'document.convert', {'to': 'markdown'}, code='1'", "handle_constraints"),
        ("'python.run.core', code='1', timeout_sec=1e8", "limit_out_of_range"),
        ("'python.run.core'", "missing_field"),
        ("'python.run.core', code='1', files={'../x': b'1'}", "invalid_path"),
        ("'python.run.core', code='1', files={'x': '/scratch/none'}", "file_not_found"),
    ],
)  # fmt: skip
def test_a_call_outside_of_its_handle_is_refused(node: Node, asked: str, code: str) -> None:
    """Another name, capability, version, mount, or args that break the schema: refused, and kept as evidence."""
    schema = {"type": "object", "properties": {"to": {"const": "markdown"}}}
    handles: list[dict[str, Any]] = [
        {**RUN, "version": "1.0.0"},
        {"name": "convert", "kind": "call", "capability": "document.*", "constraints": schema},
    ]
    job = run(node, calling(f"crank.call({asked})"), handles)
    assert (job["status"], job["result"]) == ("succeeded", ["CallRefused", code]), job
    assert len(refused(job)) == 1
    assert not called(node, job["job_id"])


def test_another_jobs_handle_is_worth_nothing(node: Node) -> None:
    """What one job may call for is of no use to a neighbour that knows all its names."""
    with_handle = run(node, calling("crank.call('python.run.core', code='1 + 1')"), [RUN])
    assert with_handle["result"] == 2
    other = {"name": "convert", "kind": "call", "capability": "document.convert"}
    neighbour = run(node, calling("crank.call('python.run.core', code='1 + 1', handle='run')"), [other])
    assert neighbour["result"] == ["CallRefused", "no_handle"]


def test_thirty_threads_do_not_make_one_call_too_many(node: Node) -> None:
    """`calls_max` holds when calls race: exactly so many are accepted, the others are refused by their code."""
    code = (
        "import crank, concurrent.futures\n"
        "def one(n):\n"
        "    try:\n        return crank.call('python.run.core', {'n': n}, code=\"args['n']\")\n"
        "    except crank.CallRefused as fault:\n        return fault.code\n"
        "with concurrent.futures.ThreadPoolExecutor(30) as pool:\n    result = list(pool.map(one, range(30)))\n"
    )
    job = run(node, code, [{**RUN, "calls_max": 4}])
    assert job["status"] == "succeeded", job
    assert sorted(map(str, job["result"])).count("calls_spent") == 26, job["result"]
    assert len(called(node, job["job_id"])) == 4


def nested(depth: int) -> str:
    """Return code that calls for itself so many levels deep, and says where it stopped."""
    if not depth:
        return "result = ['bottom']"
    passed = "handles=['run']" if depth > 1 else ""
    return calling(f"['called', *crank.call('python.run.core', code={nested(depth - 1)!r}, {passed})]")


def test_calls_go_three_deep_and_no_deeper(node: Node) -> None:
    """A chain of three runs on one slot; the fourth is refused, whoever passed the handle on."""
    assert run(node, nested(3), [RUN])["result"] == ["called", "called", "called", "bottom"]
    job = run(node, nested(4), [RUN])
    assert job["result"] == ["called", "called", "called", "CallRefused", "call_too_deep"], job


def test_calls_of_what_was_passed_on_are_counted_above(node: Node) -> None:
    """A handle for two calls that is passed on is used up by the child: one call here, one there, and no third."""
    below = calling("crank.call('python.run.core', code='1')") + "\nfirst = result\n" + calling(
        "[first, crank.call('python.run.core', code='2')]"
    )
    job = run(node, calling(f"crank.call('python.run.core', code={below!r}, handles=['run'])"), [{**RUN, "calls_max": 2}])
    assert job["result"] == ["CallRefused", "calls_spent"], job


def test_files_go_along_and_come_back(node: Node) -> None:
    """Files by path and as bytes are in the called job's /scratch; what it leaves in /out lies below /scratch/calls."""
    child = "open('/out/sum.txt', 'w').write(open('a.txt').read() + open('deep/b.txt').read())"
    code = (
        "import crank\nopen('a.txt', 'w').write('one ')\n"
        f"answer = crank.ask('python.run.core', code={child!r}, files={{'a.txt': 'a.txt', 'deep/b.txt': b'two'}})\n"
        "result = [open(answer.files['sum.txt']).read(), answer.files, answer.left_out]"
    )
    job = run(node, code, [RUN])
    assert job["result"] == ["one two", {"sum.txt": "/scratch/calls/1/sum.txt"}, 0], job


def test_a_folder_is_passed_on_by_handle_and_not_read_here(node: Node, tmp_path: Path) -> None:
    """A mount in the hand can be lent to a call; the caller itself finds nothing of it."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("inside")
    assert node.crank("mount", "add", "papers", str(tmp_path / "docs")).returncode == 0
    mount = {"name": "docs", "kind": "mount", "mount": "papers"}
    child = "open('/in/docs/a.txt').read()"
    code = "import os\nseen = os.listdir('/in')\n" + calling(
        f"[seen, crank.call('python.run.core', code={child!r}, mounts=['docs'])]"
    )
    assert run(node, code, [RUN, mount])["result"] == [[], "inside"]
    denied = run(node, code, [{**RUN, "mounts": []}, mount])
    assert denied["result"] == ["CallRefused", "handle_mount"]


def test_a_job_of_a_session_has_a_hand_of_its_own(node: Node) -> None:
    """A cell calls on the slot that it lends, its files do not mix with the next cell's, and a cell without handles has none."""
    opened = node.client().http.post("/v1/sessions", json={"env_profile": "python-core"})
    assert opened.status_code in (200, 201), opened.text
    session = opened.json()["session_id"]

    def cell(code: str, *handles: dict[str, Any]) -> Any:
        body = {"code": code, "session": session, "handles": list(handles)}
        job = node.client().ended(node.client().submit(body).json()["job_id"])
        assert job["status"] == "succeeded", job
        return job["result"]

    child = "open('/out/a.txt', 'w').write(args)"
    ask = "import crank\nanswer = crank.ask('python.run.core', {what!r}, code={child!r})\nopen(answer.files['a.txt']).read()"
    assert cell(ask.format(what="one", child=child), RUN) == "one"
    assert cell("kept = answer\n" + ask.format(what="two", child=child), RUN) == "two"
    assert cell("open(kept.files['a.txt']).read()") == "one"
    assert cell(calling("crank.call('python.run.core', code='1')")) == ["CallRefused", "no_handle"]
    refused_whole = node.client().http.post("/v1/sessions", json={"env_profile": "python-core", "handles": [RUN]})
    assert refused_whole.status_code == 422
    node.client().http.delete(f"/v1/sessions/{session}")


def test_a_result_that_is_too_large_is_said_so(node: Node) -> None:
    """A child whose result was too large to be kept is a failed call with a code, not one with nothing; the caller lives on."""
    job = run(node, calling("crank.call('python.run.core', code=\"'x' * 9_000_000\")"), [RUN])
    assert job["result"] == ["CallFailed", "result_not_kept"], job


def test_a_child_that_fails_says_how(node: Node) -> None:
    """An exception in the called job is a CallFailed with its reason, and its files are there all the same."""
    child = "open('/out/kept.txt', 'w').write('kept')\n1 / 0"
    code = (
        "import crank\ntry:\n"
        f"    crank.call('python.run.core', code={child!r})\n"
        "except crank.CallFailed as fault:\n    result = [fault.code, fault.cause, list(fault.answer.files)]"
    )
    job = run(node, code, [RUN])
    assert job["result"] == ["raised", "ZeroDivisionError: division by zero", ["kept.txt"]], job


SCAN = r"""
import os, re
import crank
crank.call("python.run.core", code="1")
# Not as they are searched for: this text lies in the same memory.
patterns = [re.compile(bytes.fromhex(each)) for each in args["patterns"]]
planted = bytes.fromhex("706c616e7465642d68657265")
control = re.compile(planted[:3] + b"[n]" + planted[4:])
found, sees = [], False
with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb") as memory:
    for line in maps:
        span, rights = line.split()[:2]
        start, end = (int(part, 16) for part in span.split("-"))
        if rights.startswith("rw") and end - start < 1 << 28:
            try:
                memory.seek(start)
                seen = memory.read(end - start)
            except (OSError, ValueError):
                continue
            sees = sees or bool(control.search(seen))
            found += [[line.strip(), each.pattern.hex()] for each in patterns if each.search(seen)]
for name in ("environ", "cmdline", "mountinfo"):
    try:
        seen = open(f"/proc/self/{name}", "rb").read()
    except OSError:
        continue
    found += [[name, each.pattern.hex()] for each in patterns if each.search(seen)]
result = [found, sees, sorted(int(name) for name in os.listdir("/proc/self/fd"))[:5], sorted(os.environ)]
"""


def test_a_job_that_reads_all_of_itself_finds_no_secret(node: Node) -> None:
    """Memory, tables and descriptors of a job with handles hold no key, no address and no identity of the node."""
    info = node.info()
    secret = Path(info["token_file"]).read_text().strip()
    port = info["api"].rsplit(":", 1)[1]
    # Each matches what it is meant for, and not itself.
    patterns = [
        f"{secret[:8]}[{secret[8]}]{secret[9:]}", r"crank_[A-Za-z0-9_-]{30,}", "BEGIN [A-Z ]*PRIVATE KE[Y]-",
        "spiffe:[/]/[a-z]", "127[.]0[.]0[.]1:" + port, str(node.home).replace("/", "[/]"),
    ]  # fmt: skip
    job = run(node, SCAN, [RUN], args={"patterns": [each.encode().hex() for each in patterns]})
    assert job["status"] == "succeeded", job
    assert job["result"][:3] == [[], True, [0, 1, 2, 3, 4]], job["result"]
    assert not [name for name in job["result"][3] if "TOKEN" in name or "SECRET" in name]


# --- what dies in the middle -------------------------------------------------------------------


def waits_for_child(node: Node, **fields: Any) -> tuple[str, str]:
    """Start a job whose call runs for a minute; return its id and that of the called job, both running."""
    job_id = start(node, calling(f"crank.call('python.run.core', code={SLEEPS!r})"), [RUN], **fields)
    child = until(lambda: [job for job in called(node, job_id) if job["status"] == "running"], what="the child to run")[0]
    return job_id, child["job_id"]


def test_cancelling_the_caller_cancels_what_it_called_for(node: Node) -> None:
    """Cancelled from outside, the caller takes the called job along."""
    job_id, child = waits_for_child(node)
    node.client().http.post(f"/v1/jobs/{job_id}/cancel")
    assert node.client().ended(job_id)["status"] == "cancelled"
    assert node.client().ended(child)["status"] == "cancelled"


def test_a_caller_that_times_out_or_is_killed_takes_its_calls_along(node: Node) -> None:
    """Any end will do: the wall clock goes on while it waits, and SIGKILL of its own hand ends it at once."""
    job_id, child = waits_for_child(node, constraints={"timeout_sec": 6})
    assert node.client().ended(job_id)["end"]["clock"] == "wall"
    assert node.client().ended(child)["status"] == "cancelled"
    code = (
        "import crank, os, signal, threading, time\n"
        f"threading.Thread(target=crank.call, args=('python.run.core',), kwargs={{'code': {SLEEPS!r}}}, daemon=True).start()\n"
        "time.sleep(1)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    job = run(node, code, [RUN])
    assert job["end"]["reason"] == "signalled", job["end"]
    for each in called(node, job["job_id"]):
        assert node.client().ended(each["job_id"])["status"] == "cancelled"


def test_waiting_for_a_call_is_not_idling(node: Node) -> None:
    """The idle clock of three seconds does not end a job whose call takes five."""
    code = calling("crank.call('python.run.core', code='import time\\ntime.sleep(5)\\n7')")
    assert run(node, code, [RUN], constraints={"idle_sec": 3})["result"] == 7


def test_a_controller_that_is_killed_in_the_middle_runs_nothing_twice(node: Node) -> None:
    """The call is said again to the next controller, finds the job that was made for it, and brings its result."""
    child = "import time\ntime.sleep(4)\n'once'"
    job_id = start(node, calling(f"crank.call('python.run.core', code={child!r})"), [RUN])
    until(lambda: [job for job in called(node, job_id) if job["status"] == "running"], what="the child to run")
    os.kill(node.info()["controller_pid"], signal.SIGKILL)
    job = _ended_after_restart(node, job_id)
    assert (job["status"], job["result"]) == ("succeeded", "once"), job
    assert len(called(node, job_id)) == 1


def test_a_worker_that_is_killed_in_the_middle_leaves_no_call_behind(node: Node) -> None:
    """The caller is lost, and says so; what it called for ends too, and nothing of it is run again."""
    job_id, child = waits_for_child(node)
    for pid in node.info()["worker_pids"]:
        os.kill(pid, signal.SIGKILL)
    assert _ended_after_restart(node, job_id)["status"] == "lost"
    assert _ended_after_restart(node, child)["status"] in ("lost", "cancelled")
    assert len(called(node, job_id)) == 1


def test_a_pure_caller_that_is_tried_again_calls_anew_under_its_new_lease(node: Node) -> None:
    """The second attempt is another epoch: the first one's call is cancelled, its own is a job of its own."""
    code = calling("crank.call('python.run.core', code='import time\\ntime.sleep(3)\\n5')")
    job_id = start(node, code, [RUN], effects="pure")
    until(lambda: [job for job in called(node, job_id) if job["status"] == "running"], what="the child to run")
    for pid in node.info()["worker_pids"]:
        os.kill(pid, signal.SIGKILL)
    job = _ended_after_restart(node, job_id)
    assert (job["status"], job["result"], job["epoch"]) == ("succeeded", 5, 2), job
    assert [each["called_by"]["epoch"] for each in called(node, job_id)] == [1, 2]


def _ended_after_restart(node: Node, job_id: str) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        try:
            found = node.client().job(job_id)
        except Exception:  # the node may be coming back
            return None
        return found if found.get("end") else None

    document: dict[str, Any] = until(ended, what=f"{job_id} to end", deadline_sec=120)
    return document

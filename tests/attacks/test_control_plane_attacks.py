"""Attacks on what stands before the sandbox: fields, names, ids, logs, queues and the moments of cancelling."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.traces import descendants
from tests.support.node import Api, Node, running_node, until

pytestmark = [pytest.mark.attacks, pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("attacks-control")]

_SHELL = "$(touch {0}); `touch {0}`; '; touch {0} #\"; touch {0}\n| touch {0}"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give one node to all tests of this file."""
    with running_node(tmp_path_factory.mktemp("control") / "home") as node:
        yield node


@pytest.fixture
def api(node: Node) -> Api:
    """Give a bare client."""
    return node.client()


def refused(answer: Any, *statuses: int) -> None:
    """Insist on a refusal in the agreed form, with a cause and a fix, and without a trace of our insides."""
    assert answer.status_code in (statuses or (400, 413, 422)), (answer.status_code, answer.text[:300])
    problem = answer.json()
    assert problem["code"]
    assert problem["fix"]
    assert not {"Traceback", "site-packages", "sqlite"} & set(answer.text.split())


@pytest.mark.parametrize("name", ["timeout_sec", "memory_bytes", "max_output_bytes"])
@pytest.mark.parametrize(
    "value", ["-1", "0", "-0.0", "1e999", "NaN", "Infinity", "-Infinity", '"60"', "[]", "{}", "true", "1e-300", "9" * 400]
)
def test_a_limit_is_a_number_in_its_range(api: Api, name: str, value: str) -> None:
    """N01: no limit is negative, nothing, not a number, endless or a text; none of them means unlimited."""
    body = f'{{"code": "1", "constraints": {{"{name}": {value}}}}}'
    refused(api.http.post("/v1/jobs", content=body, headers={"content-type": "application/json"}))


@pytest.mark.parametrize(
    "body",
    [
        {"code": "1", "constraints": {"timeout": 5}},
        {"code": "1", "limits": {"wall_sec": 5}},
        {"code": "1", "constraints": []},
        {"code": None},
        {"code": 7},
        {"code": "1", "env_profile": "../../etc"},
        {"code": "1", "env_profile": "python-core\x00"},
        {"code": "1", "capability": "python.run.core; reboot"},
        {"code": "1", "privileged": True},
        {"code": "1", "devices": ["/dev/mem"]},
        {"code": "1", "mounts": ["/etc"]},
        {"code": "1", "mounts": [{"name": "../x", "mount": "/"}]},
        {"code": "1", "job_id": "../../x"},
        {"code": "1", "job_id": "x" * 5000},
    ],
    ids=lambda body: json.dumps(body)[:60],
)
def test_an_unknown_or_strange_field_is_refused(api: Api, body: dict[str, Any]) -> None:
    """N01: what no step honours is refused, not ignored."""
    refused(api.submit(body), 400, 404, 413, 422)


@pytest.mark.parametrize("field", ["env", "environment", "variables"])
@pytest.mark.parametrize(
    "name",
    ["LD_PRELOAD", "LD_AUDIT", "GLIBC_TUNABLES", "PYTHONSTARTUP", "PYTHONPATH", "PYTHONHOME", "BASH_ENV", "PATH", "A\nB"],
)
def test_a_caller_sets_no_environment(api: Api, field: str, name: str) -> None:
    """J06 J07: variables that change how programs start cannot be sent at all, whatever their value."""
    for value in ("/tmp/x.so", "a\nLD_PRELOAD=b", "a\x00b", "$(id)", "x" * 1_000_000):
        refused(api.submit({"code": "1", field: {name: value}}))


@pytest.mark.parametrize(
    "path",
    [
        *("../x", "/x", "a/../../b", "a\\..\\b", "a\x00b", "x.", "x ", ".", "..", "", "a//b", "./a", "a/.", "a/..", "~/x\u0000"),
        *("a\u2215b\u202e", "a\u200bb", "a\nb", "\x1b[2J", "x" * 256, "/".join("a" * 300), "e\u0301", "C:\\x", "\ud800"),
    ],
)
def test_the_name_of_a_file_stays_inside(api: Api, path: str) -> None:
    """G01: a file's name is relative, plain and says what it shows, or the job is refused."""
    body = json.dumps({"code": "1", "files": [{"path": path, "text": "x"}]})
    refused(api.http.post("/v1/jobs", content=body, headers={"content-type": "application/json"}))


def test_a_name_that_only_looks_dangerous_is_a_name(api: Api) -> None:
    """G01: an encoded slash, a full-width dot or a shell word is a plain name, found inside as it was sent."""
    names = ["%2e%2e%2fx", "\uff0e\uff0e", "$(reboot)", "-rf", "a;b", "CON", "\u2215etc"]
    code = "import os\nsorted(os.listdir('/scratch'))"
    answer = api.submit({"code": code, "files": [{"path": name, "text": "x"} for name in names]}, Prefer="wait=20")
    assert answer.json()["result"] == sorted(names)


def test_two_names_that_are_one_are_refused(api: Api) -> None:
    """G01: names that differ in case alone, or are a file and a folder at once, are not accepted together."""
    for pair in (("a", "A"), ("a", "a/b"), ("x/y", "X/Y")):
        refused(api.submit({"code": "1", "files": [{"path": path, "text": "x"} for path in pair]}))


def test_ids_of_others_answer_like_ids_of_nobody(api: Api) -> None:
    """H15 H16: whatever is asked of a job that is not the caller's, the answer has one shape and one status."""
    real = api.submit({"code": "1"}, Prefer="wait=20").json()["job_id"]
    guesses = [real[:-1] + ("0" if real[-1] != "0" else "1"), "01a20878-9b7f-7794-953f-5c1dad370000", "nobody"]
    for way in ("", "/artifacts", "/artifacts/x", "/events"):
        shapes = set()
        for guess in guesses:
            answer = api.http.get(f"/v1/jobs/{guess}{way}")
            assert guess in answer.text or answer.json()["code"]
            problem = {name: str(value).replace(guess, "ID") for name, value in answer.json().items()}
            shapes.add((answer.status_code, json.dumps(problem, sort_keys=True)))
        assert len(shapes) == 1, shapes
        assert {status for status, _ in shapes} == {404}


def test_without_a_credential_nothing_is_told(node: Node, api: Api) -> None:
    """H15: no credential, a wrong one and a half one answer alike, for jobs that exist and that do not."""
    real = api.submit({"code": "1"}, Prefer="wait=20").json()["job_id"]
    answers = set()
    for header in ("Bearer x", "Bearer", "", "Basic eDp4", "Bearer " + "x" * 5000, f"Bearer {real}"):
        for job in (real, "nobody"):
            answer = api.http.get(f"/v1/jobs/{job}", headers={"Authorization": header})
            answers.add((answer.status_code, answer.text))
    assert len(answers) == 1
    assert {status for status, _ in answers} == {401}


@pytest.mark.parametrize(
    ("code", "statuses"),
    [
        ("\ufeffprint('bom')", (200,)),
        ("x = 1\x00", (422,)),
        ("x = '" + "y" * (15 << 20) + "'", (413,)),
        ("x" * 10_000_000, (200, 413)),
        ("\ud800", (200, 400, 422)),
        ("\u202eprint(1)", (200,)),
        ("\r\r\rprint(1)\r", (200,)),
        ("(" * 5_000, (200,)),
        ("\f\v\x1c", (200,)),
        ("", (200, 422)),
    ],
    ids=["mark", "nul", "15 MiB", "10 MB line", "half", "right to left", "returns", "brackets", "spaces", "empty"],
)
def test_source_of_any_shape_gets_an_answer(api: Api, code: str, statuses: tuple[int, ...]) -> None:
    """O06: strange source is run, raises, or is refused with a code; never a defect of ours."""
    body = json.dumps({"code": code})
    headers = {"content-type": "application/json", "prefer": "wait=30"}
    answer = api.http.post("/v1/jobs", content=body, headers=headers)
    assert answer.status_code in statuses, answer.text[:300]
    if answer.status_code == 200:
        assert answer.json()["end"]["reason"] in ("exited", "raised"), answer.json()["end"]
    else:
        refused(answer, *statuses)


def test_no_field_reaches_a_shell(api: Api, tmp_path: Path) -> None:
    """N06: shell words in code, names, ids, args and keys create nothing on the host."""
    target = tmp_path / "touched"
    word = _SHELL.format(target)
    bodies: list[dict[str, Any]] = [
        {"code": f"print({word!r})", "args": {word: word}},
        {"code": "1", "env_profile": word},
        {"code": "1", "capability": word},
        {"code": "1", "job_id": word},
        {"code": "1", "files": [{"path": word, "text": word}]},
        {"code": "1", "mounts": [word]},
        {"code": "1", "version": word},
        {"code": word},
    ]
    for body in bodies:
        answer = api.submit(body, Prefer="wait=20")
        assert answer.status_code < 500, answer.text
    assert not target.exists()


def test_logs_stay_one_event_a_line(node: Node, api: Api) -> None:
    """F13: line ends, escapes and lines without end in what a job says forge no line of our logs."""
    fake = '{"event": "forged.event", "level": "critical"}'
    noise = f"\\n{fake}\\n\\r{fake}\\x1b[2J\\x1b]52;c;x\\x07"
    code = (
        f"import sys\nprint('{noise}')\nsys.stderr.write('{noise}' + 'x' * 300_000)\nopen('/out/a' + chr(10) + 'b', 'w')\n"
        f"raise RuntimeError('{noise}')"
    )
    ended = api.submit({"code": code}, Prefer="wait=30").json()
    assert ended["end"]["reason"] == "raised"
    api.submit({"code": "1", "env_profile": f"x\n{fake}"})
    for log in (node.home / "logs").rglob("*.log*"):
        for line in log.read_text("utf-8").splitlines():
            if line.startswith("{"):
                assert json.loads(line)["event"] != "forged.event", line


def test_what_a_job_prints_acts_on_no_terminal(node: Node) -> None:
    """F10: escapes, bidirectional marks and NUL come back as they were in JSON, escaped, and none in our own talk."""
    code = "import sys\nprint('\\x1b]52;c;eA==\\x07\\u202e\\x00', end='')\nprint('\\x1b[2J', file=sys.stderr)\nraise ValueError('\\x1b[31m')"
    done = node.crank("run", "-", "--json", stdin=code)
    assert "\x1b" not in done.stdout + done.stderr
    assert json.loads(done.stdout)["stdout"] == "\x1b]52;c;eA==\x07\u202e\x00"
    code = "open('/out/\\x1b[2Jx', 'w').write('x')"
    ended = node.client().submit({"code": code}, Prefer="wait=20").json()
    shown = node.crank("job", "show", ended["job_id"])
    assert "\x1b" not in shown.stdout + shown.stderr


def test_a_download_cannot_act(api: Api) -> None:
    """G10: a page that calls itself a picture is a download that no browser runs, whatever its name."""
    code = (
        "for name in ('x.png', 'x.html', 'x.svg', 'x.js', 'a\"b.txt', 'x;y.txt', '\\u202egpj.exe'):\n"
        "    open('/out/' + name, 'w').write('<script>alert(1)</script>')\n"
    )
    ended = api.submit({"code": code}, Prefer="wait=20").json()
    paths = [artifact["path"] for artifact in ended["artifacts"]]
    assert len(paths) >= 6
    for path in paths:
        answer = api.http.get(f"/v1/jobs/{ended['job_id']}/artifacts/{path}")
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert "text/html" not in answer.headers["content-type"] or path.endswith(".html")


def test_a_hundred_jobs_at_once_are_a_hundred_jobs(api: Api) -> None:
    """D18: many jobs submitted at once wait their turn; none is lost, none runs twice, each has its own answer."""
    count = 100
    accepted = [api.submit({"code": f"result = {number}"}) for number in range(count)]
    assert {answer.status_code for answer in accepted} <= {200, 202}
    ids = [answer.json()["job_id"] for answer in accepted]
    assert len(set(ids)) == count
    ended = [api.ended(job_id) for job_id in ids]
    assert [job["result"] for job in ended] == list(range(count))
    assert {job["attempts"] for job in ended} == {1}


@pytest.mark.parametrize("moment", ["queued", "setup", "running", "ending", "ended"])
def test_cancelling_at_any_moment_gives_one_end(api: Api, moment: str) -> None:
    """E13: whenever the cancel comes, the job has one end, which stays, and the record tells of one."""
    blockers = [api.submit({"code": "import time; time.sleep(5)"}).json()["job_id"] for _ in range(2 * (moment == "queued"))]
    code = {"ended": "1", "ending": "import atexit, time\natexit.register(time.sleep, 30)"}.get(moment, "while True: pass")
    job = api.submit({"code": code}).json()["job_id"]
    if moment in ("running", "ending"):
        until(lambda: api.job(job)["started_at"], what="the job to start")
    elif moment == "ended":
        api.ended(job)
    for _ in range(3):
        assert api.http.post(f"/v1/jobs/{job}/cancel").status_code == 200
    first = api.ended(job)
    assert first["end"]["reason"] == ("exited" if moment == "ended" else "cancelled"), first["end"]
    assert api.http.post(f"/v1/jobs/{job}/cancel").json()["end"] == first["end"]
    records = api.http.get("/v1/records", params={"job_id": job, "limit": 500}).json()["records"]
    assert [record["kind"] for record in records].count("job.ended") == 1
    for blocker in blockers:
        api.http.post(f"/v1/jobs/{blocker}/cancel")
        api.ended(blocker)


def test_a_caller_that_hangs_up_leaves_no_job_behind(node: Node, api: Api) -> None:
    """E12: a job outlives the connection that waited for it, and ends as if nobody had gone."""
    gone = Api(node.info())
    waiting = threading.Thread(target=_wait_in_vain, args=(gone,))
    waiting.start()
    until(lambda: gone.job("hung-up").get("started_at"), what="the job to start")
    gone.http.close()
    waiting.join()
    assert api.ended("hung-up")["result"] == "ended all the same"


def _wait_in_vain(gone: Api) -> None:
    code = "import time\ntime.sleep(1)\nresult = 'ended all the same'"
    try:
        gone.submit({"code": code, "job_id": "hung-up"}, Prefer="wait=30")
    except Exception:  # hanging up has many faces
        return


def test_a_killed_worker_takes_its_jobs_with_it(tmp_path: Path) -> None:
    """E12: when the worker is killed, no process of a running job survives, and the job's end says so."""
    with running_node(tmp_path / "home") as node:
        api = node.client()
        job = api.submit({"code": "print('on', flush=True)\nwhile True: pass", "effects": "external"}).json()["job_id"]
        until(lambda: api.job(job)["started_at"], what="the job to start")
        (worker,) = node.info()["worker_pids"]
        family = descendants(worker)
        assert len(family) >= 3
        os.kill(worker, signal.SIGKILL)
        until(lambda: not any(_is_alive(pid) for pid in family), what="its processes to be gone", deadline_sec=20)
        assert api.ended(job)["end"]["reason"] in ("worker_lost", "outcome_unknown")
        after = api.submit({"code": "6 * 7"}, Prefer="wait=30")
        assert after.json()["result"] == 42


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    return state not in "ZX"


def test_answers_to_unknown_ids_take_no_longer_when_there_is_work(api: Api) -> None:
    """H16: how long the node takes to say that a job is not there tells nothing of the jobs that are."""

    def asked(job_id: str) -> float:
        began = time.monotonic()
        api.http.get(f"/v1/jobs/{job_id}")
        return time.monotonic() - began

    quiet = sorted(asked(f"nobody-{number}") for number in range(40))[20]
    running = [api.submit({"code": "import time; time.sleep(1)"}).json()["job_id"] for _ in range(2)]
    busy = sorted(asked(f"nobody-{number}") for number in range(40))[20]
    for job in running:
        api.ended(job)
    assert busy < quiet + 0.05

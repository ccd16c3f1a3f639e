"""kill -9, at random moments and at every named one: no accepted job is lost, none is settled twice,
and each ends with the truth."""

import os
import random
import signal
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import Node, running_node, until

KILLS = int(os.environ.get("CRANK_SOAK_KILLS", "10"))
ENDS = {"succeeded", "failed", "timed_out", "cancelled", "lost"}
SEED = 20261123

pytestmark = [pytest.mark.system, pytest.mark.timeout(900), pytest.mark.xdist_group("crashes")]


def submit(node: Node, number: int, effects: str) -> str | None:
    """Submit a job under a key of its own until the node answers; return its id."""
    body = {"code": f"print({number}); result = {number}", "effects": effects, "job_id": f"crash-{number}"}

    def attempt() -> str | None:
        try:
            answer = node.client().submit(body, **{"Idempotency-Key": f"crash-{number}"})
        except Exception:  # the node may be dead at this moment; that is the test
            return None
        return str(answer.json()["job_id"]) if answer.status_code in (200, 202) else None

    return str(until(attempt, what=f"job {number} to be accepted", deadline_sec=120))


def pids_of(node: Node, role: str) -> list[int]:
    """Return the process ids of a role, as the node publishes them."""
    info = node.info()
    return [info["controller_pid"]] if role == "controller" else list(info["worker_pids"])


def are_done(asked: list[tuple[tuple[int, str], "Future[str | None]"]], done_min: int) -> bool:
    """Tell whether so many requests were answered."""
    return sum(future.done() for _, future in asked) >= done_min


def is_replaced(node: Node, role: str, pid: int) -> bool:
    """Tell whether the node runs another process in this role."""
    return bool(node.info()) and pid not in pids_of(node, role)


def check(node: Node, jobs: dict[str, tuple[int, str]]) -> None:
    """Every accepted job ends once, with the truth: repeatable ones succeed, others may be lost but never both."""
    for job_id, (number, effects) in jobs.items():

        def over(wanted: str = job_id) -> dict[str, Any] | None:
            try:
                found = node.client().job(wanted)
            except Exception:  # the node may be coming back
                return None
            return found if found.get("status") in ENDS else None

        job = until(over, what=f"{job_id} to end", deadline_sec=180)
        allowed = {"succeeded"} if effects == "pure" else {"succeeded", "lost"}
        # A repeatable job is given up after three attempts; kills in a row may reach that.
        if effects == "pure" and job["status"] == "lost":
            assert job["attempts"] >= 3, job
            continue
        assert job["status"] in allowed, job
        if job["status"] == "succeeded":
            assert (job["result"], job["stdout"]) == (number, f"{number}\n")
        else:
            assert job["end"]["reason"] in {"worker_lost", "outcome_unknown"}, job
        records = node.client().http.get("/v1/records", params={"job_id": job_id, "limit": 500}).json()["records"]
        kinds = [record["kind"] for record in records]
        assert (1, 1) == (kinds.count("job.submitted"), kinds.count("job.ended")), kinds
        if effects == "external" and job["attempts"] > 1:
            assert "job.requeued" in kinds, kinds


@pytest.mark.endures
@pytest.mark.timeout(900 + 20 * KILLS)
def test_random_kills_lose_nothing(tmp_path: Path) -> None:
    """Jobs go on being accepted while controller and worker are killed again and again; all end once."""
    chance = random.Random(SEED)
    with running_node(tmp_path / "home") as node, ThreadPoolExecutor(4) as pool:
        jobs: dict[str, tuple[int, str]] = {}
        number = 0
        for _ in range(KILLS):
            wanted = [(number + offset, chance.choice(["pure", "external"])) for offset in range(4)]
            number += len(wanted)
            asked = [(entry, pool.submit(submit, node, *entry)) for entry in wanted]
            role = chance.choice(["controller", "worker"])
            for pid in pids_of(node, role):
                # A random share of the work is under way when the signal comes.
                done_min = chance.randint(0, 4)
                until(partial(are_done, asked, done_min), what="some answers", deadline_sec=30)
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                until(partial(is_replaced, node, role, pid), what="a restart")
            for entry, future in asked:
                jobs[str(future.result(timeout=180))] = entry
        assert number == len(jobs)
        check(node, jobs)


def test_a_hundred_duplicates_run_once_across_a_restart(tmp_path: Path) -> None:
    """One request sent a hundred times at once is one job; after a restart it is still that job."""
    with running_node(tmp_path / "home") as node:
        body = {"code": "print('once')"}

        def send() -> Any:
            api = node.client()
            return until(
                lambda: (answer := api.submit(body, **{"Idempotency-Key": "same"})).status_code != 409 and answer,
                what="an answer",
            )

        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: send(), range(100)))
        assert {200, 202} >= {answer.status_code for answer in answers}
        (job_id,) = {answer.json()["job_id"] for answer in answers}
        node.client().ended(job_id)
        node.stop()
        node.start()
        again = node.client().submit(body, **{"Idempotency-Key": "same"})
        assert (200, job_id) == (again.status_code, again.json()["job_id"])
        other = node.client().submit({"code": "print('other')"}, **{"Idempotency-Key": "same"})
        assert (422, "idempotency_mismatch") == (other.status_code, other.json()["code"])
        records = node.client().http.get("/v1/records", params={"job_id": job_id}).json()["records"]
        assert 1 == [record["kind"] for record in records].count("job.leased")


# Each moment is reached in the plain life of a job, by the controller or by the worker.
MOMENTS = [
    "submit.before_commit",
    "submit.committed",
    "dispatch.committed",
    "dispatch.sent",
    "report.started",
    "complete.before_commit",
    "complete.committed",
    "worker.begun",
    "worker.ran",
    "worker.kept",
    "worker.uploaded",
    "worker.finished_sent",
]


# Each moment once here; the other half of the pairs belongs to the soak.
PAIRS = [
    pytest.param(moment, effects, marks=[] if (number + turn) % 2 else [pytest.mark.soak])
    for number, moment in enumerate(MOMENTS)
    for turn, effects in enumerate(("pure", "external"))
]


@pytest.mark.parametrize(("moment", "effects"), PAIRS)
def test_a_kill_at_each_named_moment(tmp_path: Path, moment: str, effects: str) -> None:
    """The process that stands at the moment is killed there; the job still ends once, with the truth."""
    with running_node(tmp_path / "home", {"CRANK_FAILPOINTS": f"{moment}:kill"}) as node:
        before = (pids_of(node, "controller"), pids_of(node, "worker"))
        job_id = submit(node, 1, effects)
        assert job_id is not None
        check(node, {job_id: (1, effects)})
        # The failpoint was really reached: one of the processes is another one now.
        until(
            lambda: (pids_of(node, "controller"), pids_of(node, "worker")) != before,
            what=f"a process to die at {moment}",
        )

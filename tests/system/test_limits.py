"""Limits, ends and evidence through a real node: what an operator set is what a caller and a scraper see."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.node import Node, running_node, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("node")]

MEMORY_BYTES = 128 << 20
CEILINGS = {"CRANK_LIMIT_IDLE_SEC": "3", "CRANK_LIMIT_MEMORY_BYTES": str(MEMORY_BYTES), "CRANK_LIMIT_OPEN_FILES": "99"}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give a node whose operator allows little."""
    with running_node(tmp_path_factory.mktemp("limits") / "home", environment=CEILINGS) as node:
        yield node


def ended(node: Node, code: str, **constraints: Any) -> dict[str, Any]:
    """Run a script to its end and return the job."""
    response = node.client().submit({"code": code, "constraints": constraints or None}, Prefer="wait=30")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def samples(node: Node) -> dict[str, float]:
    """Return what /metrics says now."""
    lines = node.client().http.get("/metrics").text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_a_ceiling_ends_a_job_that_asked_for_nothing(node: Node) -> None:
    """The operator's idle clock holds without a word in the request, and is told as the clock that it is."""
    job = ended(node, "import time\nprint('begun', flush=True)\ntime.sleep(60)\n")
    assert (job["status"], job["end"]["clock"], job["stdout"]) == ("timed_out", "idle", "begun\n")
    assert "3 s" in job["end"]["message"]


def test_more_than_the_ceiling_is_refused_and_less_is_given(node: Node) -> None:
    """A request above the ceiling is refused with what there is; one below it is held to its own number."""
    refused = node.client().submit({"code": "1", "constraints": {"memory_bytes": MEMORY_BYTES + 1}})
    assert (refused.status_code, refused.json()["code"]) == (422, "unsatisfied-capability")
    # Held for a moment: where no control group counts, a burst between two looks is possible.
    job = ended(node, "x = bytearray(100 << 20)\nimport time\ntime.sleep(2)\n", memory_bytes=64 << 20)
    assert job["end"]["reason"] == "memory"
    assert "64 MiB" in job["end"]["message"]
    job = ended(node, "held = [open('/dev/null') for _ in range(200)]\n")
    assert job["end"]["reason"] == "open_files"
    assert "99" in job["end"]["message"]


def test_what_holds_is_told_before_anybody_asks(node: Node) -> None:
    """Capabilities, the list of profiles and the node itself show the lowered limits and the tier."""
    offered = node.client().http.get("/v1/capabilities").json()["capabilities"]
    core = next(each for each in offered if each["name"] == "python.run.core")
    assert (core["limits"]["memory_bytes"], core["limits"]["idle_sec"]) == (MEMORY_BYTES, 3)
    assert core["tier"] == "namespaces"
    assert "python-core: open_files is 99 here" in node.crank("profile", "list").stderr
    info = node.info()
    assert info["ceilings"] == {"idle_sec": 3.0, "memory_bytes": MEMORY_BYTES, "open_files": 99}
    assert info["lowest_tier"] == "namespaces"


def test_a_refused_host_is_evidence_everywhere(node: Node) -> None:
    """The host that a job wanted is in its answer, in the audit trail, in the log and in the counters."""
    name = 'crank_denials_total{layer="network",told_by="job"}'
    before = samples(node).get(name, 0)
    job = ended(node, "import socket\nsocket.create_connection(('example.com', 443))\n")
    assert job["end"]["reason"] == "raised"
    assert [each["layer"] for each in job["denials"]] == ["network"]
    assert {"seccomp", "landlock", "network"} <= set(job["layers"])
    records = node.client().http.get("/v1/records", params={"job_id": job["job_id"]}).json()["records"]
    (record,) = [each for each in records if each["kind"] == "job.ended"]
    assert record["facts"]["refused_hosts"] == ["example.com:443"]
    log = (node.home / "logs" / "controller.log").read_text()
    assert any("job_network_refused" in line and job["job_id"] in line for line in log.splitlines())
    assert samples(node)[name] == before + 1


def test_ends_and_pools_are_counted(node: Node) -> None:
    """Each end adds one to its reason and tier; a sandbox that stood ready is a hit; parked ones are shown."""
    ended(node, "1")
    before = samples(node)
    job = ended(node, "print(1)")
    after = samples(node)
    counter = 'crank_jobs_ended_total{reason="exited",tier="namespaces"}'
    assert after[counter] == before[counter] + 1
    taken = [f'crank_pool_total{{result="{result}"}}' for result in ("hit", "miss")]
    assert sum(after[name] - before[name] for name in taken) == 1
    assert after[taken[0]] - before[taken[0]] == job["metrics"]["pool_hit"]
    parked = "crank_sandboxes_parked{"
    until(lambda: sum(value for name, value in samples(node).items() if name.startswith(parked)), what="a parked one")


def test_people_see_the_limit_and_the_walls(node: Node) -> None:
    """The command line says which clock ended a job, and with --verbose what held it."""
    done = node.crank("run", "-", "--no-output-sec", "0.5", "--verbose", stdin="while True:\n    pass\n")
    assert done.returncode == 7
    assert "timeout (clock no_output). The job printed nothing for 0.5 s." in done.stderr
    assert "sandbox    namespaces: " in done.stderr

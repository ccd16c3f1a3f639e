"""/metrics: text that Prometheus can read, with what happened in it and nothing that a worker can forge."""

import re

from crank.domain.outcome import Denial, End, Outcome, Reason, Usage
from crank.wire import Pool, Pools

LINE = re.compile(r'([a-z_]+)(\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\n"])*",?)*)\})? (-?[0-9.e+-]+)')
OUTCOME = Outcome(
    End(Reason.MEMORY),
    usage=Usage(1.0, 0.5, 100 << 20, 0.001, pool_hit=True),
    tier="namespaces",
    denials=(Denial("network", "connect to example.com:443", 2, "job"),),
)


def samples(text: str) -> dict[str, float]:
    """Read the text as strictly as a scraper does: every line is a comment or a sample, each sample once."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("# "):
            continue
        match = LINE.fullmatch(line)
        assert match, line
        name = match[1] + (match[2] or "")
        assert name not in found, line
        found[name] = float(match[4])
    return found


async def test_metrics_count_jobs_and_workers(api, worker):
    """There is a sample for each status and for the connected workers, before anything has happened."""
    found = samples((await api.get("/metrics")).text)
    assert found['crank_jobs{status="queued"}'] == 0
    assert found["crank_workers_connected"] == 1
    assert found['crank_pool_total{result="hit"}'] == 0


async def test_a_settled_job_is_counted_once(api, worker):
    """Its end, tier, denials, memory and setup appear; a repeated message adds nothing."""
    await api.post("/v1/jobs", json={"code": "1"})
    lease = await worker.lease()
    await worker.finish(lease, OUTCOME)
    await worker.finish(lease, OUTCOME)
    found = samples((await api.get("/metrics")).text)
    assert found['crank_jobs_ended_total{reason="memory",tier="namespaces"}'] == 1
    assert found['crank_denials_total{layer="network",told_by="job"}'] == 2
    assert found['crank_pool_total{result="hit"}'] == 1
    assert found['crank_job_memory_peak_bytes_bucket{le="6.71089e+07"}'] == 0
    assert found['crank_job_memory_peak_bytes_bucket{le="1.34218e+08"}'] == 1
    assert found["crank_job_memory_peak_bytes_sum"] == 100 << 20
    assert found['crank_sandbox_setup_seconds_bucket{pool="hit",le="+Inf"}'] == 1
    assert found['crank_sandbox_setup_seconds_sum{pool="hit"}'] == 0.001


async def test_a_job_without_an_outcome_is_counted_too(api, worker):
    """A job that was cancelled in the queue has a reason and no tier."""
    worker.live.draining = True
    job = (await api.post("/v1/jobs", json={"code": "1"})).json()
    await api.post(f"/v1/jobs/{job['job_id']}/cancel")
    found = samples((await api.get("/metrics")).text)
    assert found['crank_jobs_ended_total{reason="cancelled",tier="none"}'] == 1


async def test_parked_sandboxes_are_shown_by_worker_and_profile(api, worker):
    """What a worker tells of its pools is in the metrics and beside the worker, escaped."""
    await worker.say(Pools([Pool("python-core", 3, 1), Pool('a"} 1\nx', 0, 0)]))
    found = samples((await api.get("/metrics")).text)
    assert found['crank_sandboxes_parked{worker="w1",profile="python-core"}'] == 3
    assert found['crank_sandboxes_burnt_total{worker="w1",profile="python-core"}'] == 1
    assert found['crank_sandboxes_parked{worker="w1",profile="a\\"} 1\\nx"}'] == 0
    (shown,) = (await api.get("/v1/workers")).json()["workers"]
    assert shown["pools"][0] == {"profile": "python-core", "parked": 3, "burnt": 1}
    assert shown["tier"] is None

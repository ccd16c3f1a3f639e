"""The shapes that the OpenAPI document promises are those that the node answers: no field more, none less."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from crank.api.models import CapabilityDocument, JobDocument, WorkerDocument
from crank.domain.outcome import Clock, Denial, End, Outcome, Reason, Skipped, Stream, Usage
from crank.wire import Pool, Pools

FULL = Outcome(
    End(Reason.TIMEOUT, clock=Clock.NO_OUTPUT, message="It printed nothing."),
    stdout=Stream("hi\n", 3, 3),
    skipped=(Skipped("link", "a link"),),
    usage=Usage(1.0, 0.5, 1 << 20, 0.001, pool_hit=True, tasks_peak=4),
    tier="namespaces",
    denials=(Denial("network", "look up example.com:443", 2, "job"),),
    layers=("seccomp", "landlock"),
    notes=("one process was still running",),
)


def fields(model: type[BaseModel]) -> set[str]:
    """Return the names under which a model's fields are sent."""
    return {field.alias or name for name, field in model.model_fields.items()}


def check(model: type[BaseModel], document: dict[str, Any]) -> None:
    """Assert that a document has exactly the promised fields, each of its promised type."""
    assert set(document) == fields(model)
    model.model_validate(document)


@pytest.mark.parametrize("outcome", [FULL, replace(FULL, end=End(Reason.INODES)), Outcome(End(Reason.CANCELLED))])
async def test_an_ended_job_has_the_promised_shape(api, worker, outcome):
    """Whatever an outcome holds, the answer is the model's."""
    job = (await api.post("/v1/jobs", json={"code": "1"})).json()
    check(JobDocument, job)
    await worker.finish(await worker.lease(), outcome)
    found = (await api.get(f"/v1/jobs/{job['job_id']}")).json()
    check(JobDocument, found)
    assert found["tier"] == outcome.tier


async def test_evidence_is_answered_as_it_was_told(api, worker):
    """Denials, layers, notes, pool hit and peaks reach the caller unchanged."""
    job = (await api.post("/v1/jobs", json={"code": "1"})).json()
    await worker.finish(await worker.lease(), FULL)
    found = (await api.get(f"/v1/jobs/{job['job_id']}")).json()
    assert found["denials"] == [{"layer": "network", "action": "look up example.com:443", "count": 2, "told_by": "job"}]
    assert (found["layers"], found["notes"]) == (["seccomp", "landlock"], ["one process was still running"])
    assert (found["metrics"]["pool_hit"], found["metrics"]["tasks_peak"]) == (True, 4)
    assert (found["end"]["reason"], found["end"]["clock"]) == ("timeout", "no_output")


async def test_workers_and_capabilities_have_the_promised_shape(api, worker):
    """What the node says of its workers is the model's too."""
    await worker.say(Pools([Pool("python-core", 2, 0)]))
    for document in (await api.get("/v1/workers")).json()["workers"]:
        check(WorkerDocument, document)
    for document in (await api.get("/v1/capabilities")).json()["capabilities"]:
        check(CapabilityDocument, document)

"""Small builders for rule tests: a valid value, with what the test is about changed."""

from dataclasses import replace
from typing import Any

from crank.domain.capability import Accelerator, Capability, Effects
from crank.domain.ids import LOCAL_TENANT, Digest, InstanceId, JobId, WorkerId
from crank.domain.job import Job, JobRequest, Status

CORE = Capability(
    name="python.run.core",
    version="1.2.0",
    summary="Runs scripts.",
    effects=Effects.EXTERNAL,
    accelerator=Accelerator.CPU,
    gpu_model=None,
    env_profile="python-core",
    profile_digest="0" * 64,
    input_schema={},
    output_schema={},
    error_codes=(),
    required_capabilities=(),
    timeout_sec=60.0,
)
REQUEST = JobRequest(
    capability="python.run.core",
    version=None,
    env_profile="python-core",
    accelerator=None,
    gpu_model=None,
    timeout_sec=None,
    max_output_bytes=None,
    memory_bytes=None,
    code="print(1)",
    args=None,
    files=(),
    mounts=(),
    effects=Effects.EXTERNAL,
    route="local",
    traceparent=None,
)


def request(**changes: Any) -> JobRequest:
    """Return a request with some fields changed."""
    return replace(REQUEST, **changes)


def capability(**changes: Any) -> Capability:
    """Return a capability with some fields changed."""
    return replace(CORE, **changes)


def job(status: Status = Status.QUEUED, effects: Effects = Effects.EXTERNAL, **changes: Any) -> Job:
    """Return a job in a status, held by worker `w` under epoch 1 when the status asks for it."""
    held = status in {Status.LEASED, Status.RUNNING}
    base = Job(
        job_id=JobId("j"),
        tenant=LOCAL_TENANT,
        request=request(effects=effects),
        request_digest=Digest("a" * 64),
        status=status,
        epoch=1 if held else 0,
        attempts=1 if held else 0,
        submitted_us=0,
        worker_id=WorkerId("w") if held else None,
        instance_id=InstanceId("i") if held else None,
    )
    return replace(base, **changes)

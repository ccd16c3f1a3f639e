"""Steps of features/routing.feature: the real controller behind its real API, workers that say what they are told.

Machines of CI have no GPU, so the workers here are scripted; what a worker does with devices is tested
where the worker is, and the probe where the probe is.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pytest_bdd import given, parsers, scenarios, then, when

from crank.controller.desk import Desk
from crank.domain.capability import Accelerator
from crank.wire import Lease
from tests.support.desk import ScriptedWorker, open_api, open_desk
from tests.unit.domain.rules.builders import capability

scenarios("routing.feature")

GPU_MODEL = "NVIDIA H100 80GB HBM3"


@dataclass
class Mesh:
    """A controller, its API, and two workers, on one event loop that steps take turns on."""

    loop: asyncio.AbstractEventLoop
    desk: Desk
    api: httpx2.AsyncClient
    cpu: ScriptedWorker
    gpu: ScriptedWorker

    def wait_for(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run one step's work to its end."""
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))


async def _open(
    stack: contextlib.AsyncExitStack, folder: Path
) -> tuple[Desk, httpx2.AsyncClient, list[ScriptedWorker]]:
    desk = await stack.enter_async_context(open_desk(folder))
    api = await stack.enter_async_context(open_api(desk))
    on_cpu = capability(name="python.run.ml", env_profile="python-ml")
    on_gpu = capability(name="python.run.ml", env_profile="python-ml", accelerator=Accelerator.GPU, gpu_model=GPU_MODEL)
    workers = [ScriptedWorker(desk, "cpu", [on_cpu]), ScriptedWorker(desk, "gpu", [on_gpu])]
    for worker in workers:
        await worker.connect()
    return desk, api, workers


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Give an event loop that outlives one step."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def mesh(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> Iterator[Mesh]:
    """Give a controller with both workers connected."""
    stack = contextlib.AsyncExitStack()
    desk, api, (cpu, gpu) = loop.run_until_complete(_open(stack, tmp_path))
    yield Mesh(loop, desk, api, cpu, gpu)
    loop.run_until_complete(stack.aclose())


@given("a controller with a CPU worker and a GPU worker")
def _(mesh: Mesh) -> None:
    listed = mesh.wait_for(mesh.api.get("/v1/capabilities")).json()["capabilities"]
    assert sorted((entry["accelerator"], entry["gpu_model"]) for entry in listed) == [("cpu", None), ("gpu", GPU_MODEL)]


def _submit(mesh: Mesh, **body: Any) -> httpx2.Response:
    answer: httpx2.Response = mesh.wait_for(mesh.api.post("/v1/jobs", json={"code": "1", **body}))
    return answer


@when("a job asks for a GPU", target_fixture="answer")
def _(mesh: Mesh) -> httpx2.Response:
    return _submit(mesh, env_profile="python-ml", constraints={"accelerator": "gpu"})


@when("a job asks for no accelerator", target_fixture="answer")
def _(mesh: Mesh) -> httpx2.Response:
    return _submit(mesh, env_profile="python-ml")


@when("a job asks for a GPU of a model that nobody has", target_fixture="answer")
def _(mesh: Mesh) -> httpx2.Response:
    return _submit(mesh, env_profile="python-ml", constraints={"accelerator": "gpu", "gpu_model": "NVIDIA T4"})


@when("a job asks for a capability that nobody advertises", target_fixture="answer")
def _(mesh: Mesh) -> httpx2.Response:
    return _submit(mesh, capability="weather.forecast")


@then("the GPU worker gets the job and is told to use its GPU")
def _(mesh: Mesh, answer: httpx2.Response) -> None:
    lease: Lease = mesh.wait_for(mesh.gpu.lease())
    assert (lease.job_id, lease.accelerator) == (answer.json()["job_id"], "gpu")


@then("the CPU worker gets nothing")
def _(mesh: Mesh) -> None:
    assert mesh.cpu.link.sent.empty()


@then("the CPU worker gets the job")
def _(mesh: Mesh, answer: httpx2.Response) -> None:
    lease: Lease = mesh.wait_for(mesh.cpu.lease())
    assert (lease.job_id, lease.accelerator) == (answer.json()["job_id"], "cpu")
    assert mesh.gpu.link.sent.empty()


@then(parsers.parse('it is refused as "{code}" for "{field}"'))
def _(answer: httpx2.Response, code: str, field: str) -> None:
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["field"]) == (422, code, field)
    assert problem["fix"]


@then("nobody gets a job, and none is stored")
def _(mesh: Mesh) -> None:
    assert mesh.cpu.link.sent.empty()
    assert mesh.gpu.link.sent.empty()
    assert mesh.wait_for(mesh.api.get("/v1/jobs")).json()["jobs"] == []
    kinds = [record["kind"] for record in mesh.wait_for(mesh.api.get("/v1/records")).json()["records"]]
    assert kinds.count("job.refused") == 1

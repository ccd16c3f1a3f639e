"""A desk on real adapters, the API before it, and a worker that does what a test says."""

import httpx2
import pytest

from crank.controller.desk import Desk
from crank.domain.capability import Accelerator, Capability, Effects
from tests.support.desk import ScriptedWorker, open_api, open_desk

CORE = Capability(
    "python.run.core", "1.0.0", "Runs Python.", Effects.EXTERNAL, Accelerator.CPU, None, "python-core", "0" * 64,
    {}, {}, (), (), 60.0,
)  # fmt: skip


@pytest.fixture
async def desk(tmp_path):
    """Give a desk whose services run."""
    async with open_desk(tmp_path) as opened:
        yield opened


@pytest.fixture
async def api(desk: Desk):
    """Give a client with a good credential."""
    async with open_api(desk) as client:
        yield client


@pytest.fixture
async def worker(desk: Desk):
    """Give a connected worker that offers python.run.core."""
    scripted = ScriptedWorker(desk, "w1", [CORE])
    await scripted.connect()
    return scripted


def check_problem(response: httpx2.Response, status: int, code: str) -> dict:
    """Assert the one shape of refusal and return the body."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    body = response.json()
    assert set(body) == {"type", "title", "status", "detail", "code", "field", "fix", "problems", "job_id"}
    assert (body["status"], body["code"]) == (status, code)
    assert body["fix"]
    assert body["detail"]
    return body

"""Workloads over HTTP: the owner registers, lists and removes them, and nobody else."""

import contextlib
from typing import Any

import httpx2
import pytest

from crank.api.app import build_api
from tests.unit.api.conftest import check_problem

FULL = {
    "path": "agent/ci",
    "selectors": ["unix:uid:1000", "unix:path:/usr/bin/ci", "unix:uid:1000"],
    "ttl_sec": 60,
    "hint": "main",
    "dns_names": ["ci.internal"],
    "federates_with": ["other.example"],
}


async def test_registered_listed_and_removed(api: Any) -> None:
    """What is registered is answered and listed in full, and gone once removed; a second removal finds nothing."""
    answer = await api.post("/v1/workloads", json=FULL)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert {**made, "workload_id": "", "created_at": ""} == {
        "workload_id": "",
        "spiffe_id": "spiffe://test.internal/agent/ci",
        "selectors": ["unix:uid:1000", "unix:path:/usr/bin/ci"],
        "ttl_sec": 60,
        "hint": "main",
        "dns_names": ["ci.internal"],
        "federates_with": ["other.example"],
        "created_at": "",
    }
    assert (await api.get("/v1/workloads")).json() == {"workloads": [made]}
    path = f"/v1/workloads/{made['workload_id']}"
    assert (await api.delete(path)).json() == made
    check_problem(await api.delete(path), 404, "workload_not_found")
    assert (await api.get("/v1/workloads")).json() == {"workloads": []}


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"path": "worker/main"}, 422, "path_reserved"),
        ({"path": "spiffe://other.example/agent/a"}, 422, "invalid_spiffe_id"),
        ({"selectors": []}, 422, "selectors_too_wide"),
        ({"selectors": ["unix:path:/usr/bin/ci"]}, 422, "selectors_too_wide"),
        ({"selectors": ["unix:uid:root"]}, 422, "invalid_selector"),
        ({"selectors": [f"unix:uid:{n}" for n in range(17)]}, 413, "too_large"),
        ({"ttl_sec": 1}, 422, "ttl_out_of_range"),
        ({"hint": "x" * 129}, 422, "invalid_hint"),
        ({"dns_names": ["*"]}, 422, "invalid_dns_name"),
        ({"federates_with": ["test.internal"]}, 422, "federates_with_itself"),
        ({"unknown": 1}, 422, None),
    ],
)
async def test_mistakes_are_told_and_leave_nothing(api: Any, change: dict[str, Any], status: int, code: str | None) -> None:
    """Every mistake has a code and a status, and registers nothing."""
    answer = await api.post("/v1/workloads", json={**FULL, **change})
    assert answer.status_code == status, answer.text
    if code is not None:
        check_problem(answer, status, code)
    assert (await api.get("/v1/workloads")).json() == {"workloads": []}


async def test_once_each(api: Any) -> None:
    """The same marks for the same identity, and a hint, are taken once."""
    assert (await api.post("/v1/workloads", json=FULL)).status_code == 201
    check_problem(await api.post("/v1/workloads", json={**FULL, "hint": None}), 409, "entry_taken")
    check_problem(await api.post("/v1/workloads", json={**FULL, "path": "agent/b"}), 409, "hint_taken")
    assert (await api.post("/v1/workloads", json={**FULL, "path": "agent/b", "hint": None})).status_code == 201


async def test_for_the_owner_alone(api: Any, desk: Any) -> None:
    """A key neither sees nor changes who gets which identity, and the try is recorded."""
    made = (await api.post("/v1/workloads", json=FULL)).json()
    secret = (await api.post("/v1/keys", json={"name": "agent"})).json()["secret"]
    transport = httpx2.ASGITransport(app=build_api(desk, version="0"), raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {secret}"}
    async with contextlib.AsyncExitStack() as stack:
        key = await stack.enter_async_context(
            httpx2.AsyncClient(transport=transport, base_url="https://node.test", headers=headers)
        )
        check_problem(await key.get("/v1/workloads"), 403, "owner_only")
        check_problem(await key.post("/v1/workloads", json=FULL), 403, "owner_only")
        check_problem(await key.delete(f"/v1/workloads/{made['workload_id']}"), 403, "owner_only")
    kinds = [record["kind"] for record in (await api.get("/v1/records")).json()["records"]]
    assert "access.refused" in kinds
    assert "workload.registered" in kinds

"""What the node says of itself."""

from tests.unit.api.conftest import check_problem


async def test_health_needs_no_credential_and_readiness_a_worker(api, desk, worker):
    """/healthz always answers; /readyz only says yes while a worker is connected."""
    del api.headers["authorization"]
    assert (await api.get("/healthz")).json() == {"status": "ok", "version": "0"}
    assert (await api.get("/readyz")).json()["ready"] is True
    await worker.disconnect()
    refused = await api.get("/readyz")
    check_problem(refused, 503, "not_ready")
    assert refused.headers["retry-after"]


async def test_workers_capabilities_and_bids_are_listed(api, worker):
    """The twins of what workers say are there, and bids are truthfully none."""
    assert (await api.get("/v1/workers")).json()["workers"][0]["worker_id"] == "w1"
    assert (await api.get("/v1/capabilities")).json()["capabilities"][0]["name"] == "python.run.core"
    assert (await api.get("/v1/bids")).json() == {"bids": []}


async def test_mounts_come_and_go_without_their_paths(api, tmp_path_factory):
    """A mount is added twice with one effect, shown without its path, and removed."""
    folder = tmp_path_factory.mktemp("documents")
    wanted = {"path": str(folder), "name": "docs"}
    first = await api.post("/v1/mounts", json=wanted)
    assert first.status_code == 201
    assert (await api.post("/v1/mounts", json=wanted)).json() == first.json()
    listed = await api.get("/v1/mounts")
    assert listed.json() == {"mounts": [first.json()]}
    assert str(folder) not in listed.text
    url = f"/v1/mounts/{first.json()['mount_id']}"
    assert (await api.delete(url)).status_code == 204
    check_problem(await api.delete(url), 404, "mount_not_found")


async def test_a_mount_of_the_nodes_own_state_is_refused(api, tmp_path):
    """Keys and database are no folder for jobs; a folder that is not there is refused by name."""
    check_problem(await api.post("/v1/mounts", json={"path": str(tmp_path)}), 403, "mount_private")
    check_problem(await api.post("/v1/mounts", json={"path": "/nowhere/at/all"}), 422, "mount_unreadable")


async def test_records_follow_each_other(api, worker):
    """The audit trail is read page by page, in order."""
    await api.post("/v1/jobs", json={"code": "1"})
    first = (await api.get("/v1/records", params={"limit": 1})).json()
    rest = (await api.get("/v1/records", params={"after": first["next"]})).json()
    assert first["records"][0]["kind"] == "worker.enrolled"
    assert rest["records"][0]["kind"] == "job.submitted"



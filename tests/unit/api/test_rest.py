"""Jobs over HTTP: submitted once, waited for, cancelled, and refused in one shape."""

import asyncio

from crank.domain.quantity import BODY_BYTES_MAX
from tests.unit.api.conftest import check_problem

JOB = {"code": "print('hi')"}


async def test_a_job_is_accepted_and_found_again(api, worker):
    """Submitting answers 202 with a Location that leads to the job."""
    accepted = await api.post("/v1/jobs", json=JOB)
    assert accepted.status_code == 202
    found = await api.get(accepted.headers["location"])
    assert found.json()["job_id"] == accepted.json()["job_id"]
    assert found.json()["end"] is None


async def test_waiting_answers_with_the_end(api, worker):
    """Prefer: wait holds the answer until the end and says what was honoured."""

    async def work():
        await worker.finish(await worker.lease())

    working = asyncio.create_task(work())
    answered = await api.post("/v1/jobs", json=JOB, headers={"Prefer": "wait=99"})
    await working
    assert answered.status_code == 200
    assert answered.headers["preference-applied"] == "wait=40"
    assert answered.json()["stdout"] == "hi\n"
    assert answered.json()["end"]["reason"] == "exited"


async def test_the_same_key_replays_and_another_body_is_refused(api, worker):
    """An idempotency key gives the first job again; with another body it is a mismatch."""
    key = {"Idempotency-Key": "k1"}
    first = await api.post("/v1/jobs", json=JOB, headers=key)
    again = await api.post("/v1/jobs", json=JOB, headers=key)
    assert again.json()["job_id"] == first.json()["job_id"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    other = await api.post("/v1/jobs", json={"code": "1"}, headers=key)
    check_problem(other, 422, "idempotency_mismatch")


async def test_a_duplicate_in_flight_is_told_so(api, worker):
    """While the first answer is awaited, its duplicate gets 409 with Retry-After."""
    headers = {"Idempotency-Key": "k1", "Prefer": "wait=30"}
    first = asyncio.create_task(api.post("/v1/jobs", json=JOB, headers=headers))
    lease = await worker.lease()
    duplicate = await api.post("/v1/jobs", json=JOB, headers=headers)
    check_problem(duplicate, 409, "idempotency_in_flight")
    assert duplicate.headers["retry-after"] == "1"
    await worker.finish(lease)
    assert (await first).status_code == 200


async def test_cancelling_a_queued_job_ends_it(api, desk, worker):
    """A cancelled job that never ran ends as cancelled; cancelling again changes nothing."""
    worker.live.draining = True
    job_id = (await api.post("/v1/jobs", json=JOB)).json()["job_id"]
    for _ in range(2):
        cancelled = await api.post(f"/v1/jobs/{job_id}/cancel")
        assert cancelled.json()["status"] == "cancelled"


async def test_pages_of_jobs_lead_to_each_other(api, worker):
    """Jobs come newest first, and `next` continues where a page ended."""
    worker.live.draining = True
    made = [(await api.post("/v1/jobs", json=JOB)).json()["job_id"] for _ in range(3)]
    first = (await api.get("/v1/jobs", params={"limit": 2})).json()
    second = (await api.get("/v1/jobs", params={"limit": 2, "before": first["next"]})).json()
    assert [job["job_id"] for job in first["jobs"] + second["jobs"]] == made[::-1]
    assert second["next"] is None


async def test_nobody_knows_a_job_that_is_not_theirs(api):
    """An unknown job gives 404, everywhere the same."""
    for method, path in (("GET", ""), ("GET", "/events"), ("GET", "/artifacts"), ("POST", "/cancel")):
        check_problem(await api.request(method, f"/v1/jobs/nope{path}"), 404, "job_not_found")


async def test_unknown_fields_are_named_with_what_was_meant(api):
    """A misspelt field is refused with its path and the nearest known name."""
    body = check_problem(await api.post("/v1/jobs", json={"cod": "1"}), 422, "unknown_field")
    assert (body["field"], body["fix"]) == ("cod", "Did you mean 'code'?")
    nested = {"code": "1", "constraints": {"timeout": 3}}
    body = check_problem(await api.post("/v1/jobs", json=nested), 422, "unknown_field")
    assert (body["field"], body["fix"]) == ("constraints.timeout", "Did you mean 'timeout_sec'?")
    listed = {"code": "1", "files": [{"path": "a", "txt": ""}]}
    body = check_problem(await api.post("/v1/jobs", json=listed), 422, "unknown_field")
    assert (body["field"], body["fix"]) == ("files.0.txt", "Did you mean 'text'?")


async def test_every_mistake_is_listed(api):
    """Several wrong fields are all told at once."""
    body = check_problem(await api.post("/v1/jobs", json={"code": 1, "detach": "x", "nope": 1}), 422, "invalid_field")
    assert {problem["field"] for problem in body["problems"]} == {"code", "detach", "nope"}


async def test_a_body_must_be_strict_json(api):
    """Broken JSON, duplicate keys, deep nesting and wrong media types are told apart."""
    kind = {"Content-Type": "application/json"}
    cases = [
        (b"{", 400, "malformed_json"),
        (b"", 400, "malformed_json"),
        (b'{"code":"1","code":"2"}', 400, "duplicate_key"),
        (b'{"args":' + b"[" * 100 + b"]" * 100 + b"}", 400, "too_deep"),
        (b'{"args":NaN}', 400, "malformed_json"),
        (b"[]", 422, "invalid_field"),
        (b'"x"', 422, "invalid_field"),
        (b"null", 422, "invalid_field"),
    ]
    for content, status, code in cases:
        check_problem(await api.post("/v1/jobs", content=content, headers=kind), status, code)
    plain = await api.post("/v1/jobs", content=b"{}", headers={"Content-Type": "text/plain"})
    check_problem(plain, 415, "unsupported_media_type")
    check_problem(await api.get("/v1/jobs", headers={"Accept": "text/html"}), 406, "not_acceptable")


async def test_huge_bodies_are_refused_by_their_length(api):
    """A body over the limit is refused whether it says its length or not."""
    kind = {"Content-Type": "application/json"}
    told = await api.post("/v1/jobs", content=b" " * (BODY_BYTES_MAX + 1), headers=kind)
    check_problem(told, 413, "body_too_large")

    async def endless():
        while True:
            yield b" " * 65536

    check_problem(await api.post("/v1/jobs", content=endless(), headers=kind), 413, "body_too_large")


async def test_who_is_not_known_gets_one_answer(api):
    """Every wrong credential gets the same 401, before the body is even looked at."""
    bodies = set()
    for value in (None, "Bearer", "Bearer wrong", "Basic dTpw", "Bearer " + "x" * 9999, "bearer  "):
        headers = {} if value is None else {"Authorization": value}
        request = api.build_request("POST", "/v1/jobs", content=b"{", headers=headers)
        if value is None:
            del request.headers["authorization"]
        refused = await api.send(request)
        check_problem(refused, 401, "not_authenticated")
        assert refused.headers["www-authenticate"] == 'Bearer realm="crank"'
        bodies.add(refused.content)
    assert len(bodies) == 1


async def test_routing_faults_have_the_same_shape(api):
    """404 and 405 of the framework look like every other refusal."""
    check_problem(await api.get("/v2/jobs"), 404, "not_found")
    refused = await api.delete("/v1/jobs")
    check_problem(refused, 405, "method_not_allowed")
    assert refused.headers["allow"]


async def test_a_defect_tells_nothing(api, desk, monkeypatch):
    """What breaks inside is a 500 without a word about it."""

    async def broken(*_args, **_kwargs):
        raise ZeroDivisionError("the secret is 42")

    monkeypatch.setattr("crank.controller.views.workers_document", broken)
    refused = await api.get("/v1/workers")
    check_problem(refused, 500, "internal_error")
    assert "42" not in refused.text


async def test_nobody_can_run_it(api, worker):
    """A capability that nobody offers is refused at once, names the constraint and stores no job."""
    refused = await api.post("/v1/jobs", json={"code": "1", "capability": "python.run.nope"})
    check_problem(refused, 422, "unsatisfied-capability")
    assert (await api.get("/v1/jobs")).json()["jobs"] == []


async def test_what_comes_later_is_refused_not_ignored(api, worker):
    """budget and route=any are not honoured yet and say so."""
    for field, value in (("budget", {}), ("route", "any")):
        body = check_problem(await api.post("/v1/jobs", json={**JOB, field: value}), 422, "not_supported")
        assert body["field"] == field

"""Nodes over HTTP: invited and registered by the owner, joined by who holds what was given, forgotten."""

import asyncio
import base64
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509

from crank.adapters.signed import spki
from crank.controller.arrivals import TRIES_PER_SOURCE
from crank.controller.desk import Desk
from crank.domain.trust import Attestation
from crank.security import peer_identity, read_workload
from tests.support.attester import Attester
from tests.support.desk import open_api, open_desk

JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def desk(tmp_path: Path):
    """Give a desk that issues."""
    async with open_desk(tmp_path) as opened:
        yield opened


@pytest.fixture
async def api(desk: Desk):
    """Give its API, as the owner sees it."""
    async with open_api(desk) as client:
        yield client


async def invite(api: httpx2.AsyncClient, **wanted: Any) -> dict[str, Any]:
    """Invite a node."""
    answer = await api.post("/v1/nodes/invites", json=wanted)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def join(api: httpx2.AsyncClient, token: str | None, evidence: str) -> httpx2.Response:
    """Try to join, as a machine that has no credential."""
    body = {"evidence": evidence, **({} if token is None else {"token": token})}
    return await api.post("/v1/nodes/join", json=body, headers={"Authorization": ""})


def leaf(chain: list[str]) -> bytes:
    """Return the first certificate of a chain."""
    return base64.b64decode(chain[0])


async def test_an_invited_machine_gets_its_identities(desk: Desk, api: httpx2.AsyncClient) -> None:
    """One for the node, one for its worker, each for the key that was shown, with the level join; the record names both."""
    invited = await invite(api, name="box", capabilities=["python.run.*"])
    assert invited["token"].startswith("crank_join_")
    machine = Attester()
    answer = await join(api, invited["token"], machine.evidence(desk))
    assert answer.status_code == 200, answer.text
    joined = answer.json()
    assert (joined["node_id"], joined["worker_id"]) == (invited["node_id"], f"main-{invited['node_id']}")
    assert (joined["attestation"], joined["capabilities"], joined["returns"]) == ("join", ["python.run.*"], False)
    for kind, key in (("node", machine.node_key), ("worker", machine.worker_key)):
        certificate = leaf(joined[f"{kind}_svid"])
        assert peer_identity(certificate).path == (kind, joined[f"{kind}_id"])
        public = x509.load_der_x509_certificate(certificate).public_key()
        assert spki(public) == spki(key.public_key())  # type: ignore[arg-type]
        workload = read_workload(certificate)
        assert workload is not None
        assert (workload.kind, workload.attestation) == (kind, Attestation.JOIN)
    (node,) = (await api.get("/v1/nodes")).json()["nodes"]
    assert (node["attestation"], node["machine"], "token" in node) == ("join", {"host": "box", "cpus": 2}, False)
    records = (await api.get("/v1/records")).json()["records"]
    kinds = [record["kind"] for record in records]
    assert [kind for kind in kinds if kind.startswith("node.")] == ["node.invited", "node.joined"]
    assert invited["token"] not in str(records)


async def test_a_lost_answer_is_fetched_again_by_the_same_keys_alone(desk: Desk, api: httpx2.AsyncClient) -> None:
    """The same keys may ask again while the token lives; other keys are refused as an unknown token is."""
    token = (await invite(api))["token"]
    machine, thief = Attester(), Attester()
    for _ in range(2):
        assert (await join(api, token, machine.evidence(desk))).status_code == 200
    refused = await join(api, token, thief.evidence(desk))
    unknown = await join(api, "crank_join_x", thief.evidence(desk))
    assert refused.status_code == unknown.status_code == 403
    assert refused.content == unknown.content
    thief.node_key, thief.certificate = machine.node_key, machine.certificate
    assert (await join(api, token, thief.evidence(desk))).status_code == 403


async def test_of_two_at_once_one_gets_in(desk: Desk, api: httpx2.AsyncClient) -> None:
    """Whoever comes first in the store has used the token up."""
    token = (await invite(api))["token"]
    answers = await asyncio.gather(*(join(api, token, Attester().evidence(desk)) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200, *[403] * 7]


async def test_what_may_not_join_is_refused_in_the_same_words(desk: Desk, api: httpx2.AsyncClient) -> None:
    """Unknown, forgotten, of another controller, without a token, by an unknown certificate: one answer for all."""
    forgotten = await invite(api, name="gone")
    assert (await api.delete("/v1/nodes/gone")).status_code == 200
    living = await invite(api, name="box")
    machine = Attester()
    tries = [
        ("crank_join_x", machine.evidence(desk)),
        ("", machine.evidence(desk)),
        (forgotten["token"], machine.evidence(desk)),
        (living["token"], machine.evidence(None)),
        (None, machine.evidence(desk)),
    ]
    answers = [await join(api, token, evidence) for token, evidence in tries]
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].json()["code"] == "join_refused"
    assert (await join(api, living["token"], machine.evidence(desk))).status_code == 200


async def test_a_token_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time it is refused, and its name is free for another invite."""
    async with open_desk(tmp_path) as desk, open_api(desk) as api:
        token = (await invite(api, name="box", expires_sec=60))["token"]
        assert (await api.post("/v1/nodes/invites", json={"name": "box"})).json()["code"] == "node_name_taken"
        now_us = desk.clock.now_us
        monkeypatch.setattr(desk.clock, "now_us", lambda: now_us() + 60_000_000)
        assert (await join(api, token, Attester().evidence(desk))).json()["code"] == "join_refused"
        again = await invite(api, name="box")
        assert again["node_id"].startswith("box-")


async def test_a_registered_machine_joins_and_returns_by_its_certificate(desk: Desk, api: httpx2.AsyncClient) -> None:
    """No token; the level is thumbprint; a second time with another worker's key works, and nobody else gets in."""
    machine = Attester()
    wanted = {"name": "box", "thumbprint": f"sha256:{machine.thumbprint}"}
    registered = (await api.post("/v1/nodes", json=wanted)).json()
    assert (registered["token"], registered["thumbprint"]) == (None, wanted["thumbprint"])
    for _ in range(2):
        answer = await join(api, None, machine.evidence(desk))
        assert answer.status_code == 200, answer.text
        assert (answer.json()["attestation"], answer.json()["returns"]) == ("thumbprint", True)
        assert answer.json()["node_id"] == registered["node_id"]
        machine.worker_key = Attester().worker_key
    copied = Attester()
    copied.certificate = machine.certificate
    assert (await join(api, None, copied.evidence(desk))).status_code == 422
    again = await api.post("/v1/nodes", json={"thumbprint": machine.thumbprint})
    assert again.json()["code"] == "thumbprint_taken"
    await api.delete("/v1/nodes/box")
    assert (await join(api, None, machine.evidence(desk))).status_code == 403


async def test_a_certificate_is_pinned_only_when_the_owner_says_so(desk: Desk, api: httpx2.AsyncClient) -> None:
    """With pins the machine that joined may come back without a token; without, it may not."""
    for pins, status in ((True, 200), (False, 403)):
        machine = Attester()
        token = (await invite(api, pins=pins))["token"]
        joined = await join(api, token, machine.evidence(desk))
        assert joined.json()["returns"] is pins
        assert (await join(api, None, machine.evidence(desk))).status_code == status


async def test_a_source_has_few_tries(desk: Desk, api: httpx2.AsyncClient) -> None:
    """Then it waits, whatever it sends; what was refused is recorded, in aggregate."""
    for _ in range(TRIES_PER_SOURCE):
        assert (await join(api, "crank_join_x", Attester().evidence(desk))).status_code == 403
    token = (await invite(api))["token"]
    late = await join(api, token, Attester().evidence(desk))
    assert (late.status_code, late.json()["code"], late.headers["retry-after"]) == (429, "join_too_often", "60")
    records = (await api.get("/v1/records")).json()["records"]
    refused = [record["facts"] for record in records if record["kind"] == "node.join_refused"]
    assert [fact["count"] for fact in refused] == [1]


@pytest.mark.parametrize(
    "machine",
    [{"a": {"b": 1}}, {"a": "x" * 300}, {"a": None}, {"a": [1]}, {str(n): "x" * 200 for n in range(30)}],
)
async def test_facts_of_a_machine_are_few_and_flat(desk: Desk, api: httpx2.AsyncClient, machine: dict[str, Any]) -> None:
    """Whatever else is said of it is refused, and the token stays good."""
    token = (await invite(api))["token"]
    attester = Attester()
    answer = await join(api, token, attester.evidence(desk, machine=machine))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_evidence")
    assert (await join(api, token, attester.evidence(desk))).status_code == 200


async def test_oversized_and_malformed_input_is_refused(desk: Desk, api: httpx2.AsyncClient) -> None:
    """By its size or form, before anything is looked up; a wrong member is named."""
    token = (await invite(api))["token"]
    good = Attester().evidence(desk)
    for body, field in (
        ({"token": "x" * 257, "evidence": good}, "token"),
        ({"token": token, "evidence": "a" * 40_000}, "evidence"),
        ({"token": token}, "evidence"),
        ({"token": token, "evidence": good, "more": 1}, "more"),
        ({"token": token, "evidence": good[:-1]}, "evidence"),
    ):
        answer = await api.post("/v1/nodes/join", json=body)
        assert (answer.status_code, answer.json()["field"]) == (422, field)
    large = await api.post("/v1/nodes/join", content=b'{"evidence":"' + b"a" * 70_000 + b'"}', headers=JSON)
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
    assert (await join(api, token, good)).status_code == 200


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"name": "Box"}, "invalid_name"),
        ({"name": "x" * 41}, "too_large"),
        ({"capabilities": ["*.x"]}, "invalid_pattern"),
        ({"capabilities": [f"a.b{n}" for n in range(65)]}, "too_large"),
        ({"expires_sec": 59}, "invite_lifetime_out_of_range"),
        ({"expires_sec": 604_801}, "invite_lifetime_out_of_range"),
    ],
)
async def test_a_wrong_invite_is_refused(api: httpx2.AsyncClient, wanted: dict[str, Any], code: str) -> None:
    """With the code of what is wrong, and no node is left behind."""
    answer = await api.post("/v1/nodes/invites", json=wanted)
    assert answer.json()["code"] == code
    assert (await api.get("/v1/nodes")).json()["nodes"] == []


async def test_nodes_are_the_owners_alone(desk: Desk, api: httpx2.AsyncClient) -> None:
    """A key of an agent may not invite, register, list or forget, and a stranger may not even ask."""
    secret = (await api.post("/v1/keys", json={"name": "agent"})).json()["secret"]
    await invite(api, name="box")
    calls = [
        ("POST", "/v1/nodes/invites", {"name": "evil"}),
        ("POST", "/v1/nodes", {"thumbprint": "a" * 64}),
        ("GET", "/v1/nodes", None),
        ("DELETE", "/v1/nodes/box", None),
    ]
    for method, path, body in calls:
        for credential, status in ((f"Bearer {secret}", 403), ("", 401)):
            answer = await api.request(method, path, json=body, headers={"Authorization": credential})
            assert answer.status_code == status, (method, path)
    (node,) = (await api.get("/v1/nodes")).json()["nodes"]
    assert node["forgotten_at"] is None


async def test_the_roots_are_for_everybody(desk: Desk, api: httpx2.AsyncClient) -> None:
    """A machine that has only their SHA-256 reads them without a credential."""
    answer = await api.get("/v1/nodes/join", headers={"Authorization": ""})
    assert desk.authority is not None
    roots = [base64.b64encode(one).decode() for one in desk.authority.bundle().x509_authorities]
    assert answer.json() == {"trust_domain": "test.internal", "x509_authorities": roots}

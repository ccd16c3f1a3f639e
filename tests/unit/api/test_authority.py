"""The authority over HTTP: the owner looks, changes the root step by step, and may go back."""

import dataclasses

import pytest

from crank.adapters.authority import FileAuthority
from crank.controller import tell_trust
from crank.wire import Trusted
from tests.support.desk import SECRET, TRUST_DOMAIN, ScriptedWorker, open_api
from tests.unit.api.conftest import CORE, check_problem
from tests.unit.api.test_keys import minted, speaking


@pytest.fixture
def trusted_desk(desk, tmp_path):
    """Give the desk an authority."""
    authority = FileAuthority(tmp_path / "authority", trust_domain=TRUST_DOMAIN, clock=desk.clock, ids=desk.ids)
    authority.ensure()
    return dataclasses.replace(desk, authority=authority, roots=authority)


@pytest.fixture
async def owner(trusted_desk):
    """Give the owner's client."""
    async with open_api(trusted_desk) as client:
        yield client


async def turn(owner, step, **more):
    """Take a step that works; return how it stands."""
    response = await owner.post("/v1/authority/rotation", json={"step": step, **more})
    assert response.status_code == 200, response.text
    return response.json()


async def records_of(desk):
    """Return what was recorded of rotations."""
    found = await desk.store.read(lambda tx: tx.records.page(job_id=None, after=0, limit=100))
    return [record.facts for _, record in found if record.kind == "root.rotation"]


async def test_the_owner_sees_the_tiers(owner, trusted_desk):
    """Root and authority with their dates and the places of their keys, the bundle's sequence, and no secret."""
    shown = (await owner.get("/v1/authority")).json()
    assert [each["tier"] for each in shown["certificates"]] == ["root", "authority"]
    assert shown["phase"] == "settled"
    assert shown["sequence"] == trusted_desk.authority.bundle().sequence
    assert len(shown["root_keys"]) == 1
    assert "PRIVATE" not in str(shown)


async def test_the_root_changes_step_by_step(owner, trusted_desk):
    """Prepare, activate, back, and each step is recorded with who took it."""
    before = (await owner.get("/v1/authority")).json()
    prepared = await turn(owner, "prepare")
    assert (prepared["phase"], prepared["signs"]) == ("prepared", before["signs"])
    activated = await turn(owner, "activate")
    assert (activated["phase"], activated["signs"], activated["other"]) == ("activated", prepared["other"], before["signs"])
    check_problem(await owner.post("/v1/authority/rotation", json={"step": "retire"}), 409, "leaves_alive")
    assert (await turn(owner, "retire", force=True))["phase"] == "settled"
    recorded = await records_of(trusted_desk)
    assert [(each["step"], each["force"]) for each in recorded] == [("prepare", False), ("activate", False), ("retire", True)]


async def test_a_worker_that_has_not_heard_keeps_the_new_root_from_signing(owner, trusted_desk):
    """Activation waits for every connected worker; it names those that are missing, and one acknowledgement lets it go."""
    worker = ScriptedWorker(trusted_desk, "w1", [CORE])
    await worker.connect()
    assert worker.live is not None
    prepared = await turn(owner, "prepare")
    assert prepared["unaware"] == ["w1"]
    refused = await owner.post("/v1/authority/rotation", json={"step": "activate"})
    assert "w1" in check_problem(refused, 409, "bundle_not_acknowledged")["detail"]
    tell_trust.on_trusted(trusted_desk, worker.live, Trusted(prepared["sequence"] - 1, 0))
    check_problem(await owner.post("/v1/authority/rotation", json={"step": "activate"}), 409, "bundle_not_acknowledged")
    tell_trust.on_trusted(trusted_desk, worker.live, Trusted(prepared["sequence"], 0))
    assert (await turn(owner, "activate"))["phase"] == "activated"


async def test_the_controllers_own_listeners_come_first(owner, trusted_desk):
    """While they do not believe the new root yet, it does not sign: its first certificate would be refused here."""
    trusted_desk.sight.sequence = (await owner.get("/v1/authority")).json()["sequence"]
    prepared = await turn(owner, "prepare")
    assert prepared["unaware"] == ["c1"]
    check_problem(await owner.post("/v1/authority/rotation", json={"step": "activate"}), 409, "bundle_not_acknowledged")
    trusted_desk.sight.sequence = prepared["sequence"]
    await turn(owner, "activate")


@pytest.mark.parametrize("shown", [{"Authorization": ""}, {}], ids=["nobody", "a key that says nothing"])
async def test_others_who_follow_the_bundle_are_given_time(owner, trusted_desk, monkeypatch, shown):
    """Whoever reads the bundle and does not say what it has is given three refresh hints, or the operator insists."""
    if shown:
        del owner.headers["authorization"]
    assert (await owner.get("/trust-bundle")).status_code == 200
    owner.headers["authorization"] = f"Bearer {SECRET}"
    await turn(owner, "prepare")
    refused = await owner.post("/v1/authority/rotation", json={"step": "activate"})
    assert " s more" in check_problem(refused, 409, "root_too_new")["detail"]
    assert (await turn(owner, "activate", force=True))["phase"] == "activated"
    assert (await records_of(trusted_desk))[-1]["followed"] is True
    # Back, and again, when the new root has been published for long enough.
    await turn(owner, "abort")
    later_us = trusted_desk.clock.now_us() + 3 * 300 * 1_000_000
    monkeypatch.setattr(type(trusted_desk.clock), "now_us", lambda _self: later_us)
    trusted_desk.trust.bundles.asked()
    assert (await turn(owner, "activate"))["phase"] == "activated"


async def test_no_reader_holds_a_change_up_for_ever(owner, trusted_desk, monkeypatch):
    """One that shows an old tag again and again is waited for as long as those whom nobody knows."""
    tag = (await owner.get("/trust-bundle")).headers["etag"]
    await turn(owner, "prepare")
    await owner.get("/trust-bundle", headers={"If-None-Match": tag})
    check_problem(await owner.post("/v1/authority/rotation", json={"step": "activate"}), 409, "bundle_not_acknowledged")
    later_us = trusted_desk.clock.now_us() + 3 * 300 * 1_000_000
    monkeypatch.setattr(type(trusted_desk.clock), "now_us", lambda _self: later_us)
    await owner.get("/trust-bundle", headers={"If-None-Match": tag})
    assert (await turn(owner, "activate"))["phase"] == "activated"


async def test_an_operator_may_insist(owner, trusted_desk):
    """With force a silent worker is left behind, and the record says which."""
    await ScriptedWorker(trusted_desk, "w1", [CORE]).connect()
    await turn(owner, "prepare")
    assert (await turn(owner, "activate", force=True))["phase"] == "activated"
    assert (await records_of(trusted_desk))[-1]["unaware"] == ["w1"]


@pytest.mark.parametrize("step", ["activate", "retire", "abort"])
async def test_a_step_out_of_turn_is_refused(owner, trusted_desk, step):
    """While settled only prepare is possible, with force as well; nothing is recorded of what was refused."""
    for force in (False, True):
        body = {"step": step, "force": force}
        check_problem(await owner.post("/v1/authority/rotation", json=body), 409, "rotation_phase")
    assert await records_of(trusted_desk) == []


async def test_a_step_that_is_none_is_refused(owner):
    """The four words alone."""
    check_problem(await owner.post("/v1/authority/rotation", json={"step": "turn"}), 422, "invalid_field")


async def test_only_the_owner_may_look_and_change(owner, trusted_desk):
    """A key for the API gets 403 on both, and that leaves a record."""
    key = await minted(owner, "agent")
    async with speaking(trusted_desk, key["secret"]) as agent:
        check_problem(await agent.get("/v1/authority"), 403, "owner_only")
        check_problem(await agent.post("/v1/authority/rotation", json={"step": "prepare"}), 403, "owner_only")
    found = await trusted_desk.store.read(lambda tx: tx.records.page(job_id=None, after=0, limit=100))
    assert {record.facts["action"] for _, record in found if record.kind == "access.refused"} == {
        "identities.list",
        "root.rotate",
    }


async def test_a_node_without_an_authority_says_so(api):
    """There is nothing to rotate."""
    check_problem(await api.get("/v1/authority"), 503, "no_authority")

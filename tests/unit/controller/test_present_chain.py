"""Tests of presenting a chain: its hops become grants that are judged, counted and revoked like every other."""

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from crank.adapters.biscuit import BiscuitHolder, BiscuitIssuer
from crank.adapters.json_schema import JsonSchemaChecker
from crank.controller import hop_count
from crank.controller.desk import Desk, Policy
from crank.controller.present_chain import present_chain
from crank.controller.scope import desk_for_grant
from crank.controller.spend import Checked, spend
from crank.controller.token_desk import TokenDesk
from crank.domain.chain import Holder
from crank.domain.credential import Credential, CredentialKind
from crank.domain.grant import Grant, GrantId, Right
from crank.domain.identity import parse_spiffe_id
from crank.domain.ids import LOCAL_TENANT, CredentialId
from crank.domain.issued import Ban
from crank.domain.rules.exchange import holders_space
from crank.domain.rules.grant import Call
from crank.domain.rules.token import THUMBPRINT_URN, claims_of
from crank.errors import NotAllowed, NotAuthenticated, Unavailable
from crank.ports import Transaction
from crank.testing.fakes import FakeClock, FakeFailpoints, FakeIdSource
from crank.testing.memory import MemoryStore
from tests.support.biscuits import Agent, Keys, passed

PLACE = "https://node.test"
ISSUER = BiscuitIssuer(Keys())
HOLDER = BiscuitHolder()
TYPE = "urn:crank:capability"
KEY = Credential(CredentialId("k-1"), LOCAL_TENANT, "claude", CredentialKind.API, "key:claude", 0)


class Rig:
    """A desk on a store in memory, with one key and one grant of it for Ann."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.ids = FakeIdSource()
        self.desk = Desk(
            MemoryStore(), None, None, self.clock, self.ids, JsonSchemaChecker(), FakeFailpoints(),  # type: ignore[arg-type]
            Policy("n1", "c1", "test.internal", (str(Path("/nowhere")),)),
        )  # fmt: skip
        self.tokens = TokenDesk(None, None, None, chains=ISSUER, place=PLACE)  # type: ignore[arg-type]
        self.ann, self.bob, self.cat = Agent(), Agent("spiffe://test.internal/agent/bob"), Agent()
        now_us = self.clock.now_us()
        self.grant = Grant(
            GrantId(self.ids.uuid7()), LOCAL_TENANT, KEY.credential_id, KEY.subject, (Right("document.*", calls_max=10),),
            issued_us=now_us, expires_us=now_us + 600_000_000, holder_jkt=self.ann.jkt, depth_left=2, space=KEY.credential_id,
        )  # fmt: skip

    async def token(self, grant: Grant | None = None) -> str:
        """Keep the key and the grant, and return Ann's token."""
        kept = grant or self.grant

        def keep(tx: Any) -> None:
            if tx.credentials.find(LOCAL_TENANT, KEY.credential_id) is None:
                tx.credentials.insert(KEY, "0" * 64)
            tx.grants.insert(kept)

        await self.desk.store.transact(keep)
        claims = claims_of(kept, issuer=PLACE, audience=PLACE) | {"depth": kept.depth_left}
        return ISSUER.mint(claims, self.ann.holder)

    async def present(self, token: str, agent: Agent, issuer: BiscuitIssuer = ISSUER) -> Grant:
        """Return what an agent may do with a token."""
        _, grant = await present_chain(self.desk, self.tokens, issuer, token, agent.jkt, agent.spiffe_id)
        return grant

    async def refused(self, token: str, agent: Agent) -> str | None:
        """Return the log's word of why an agent may do nothing with a token."""
        with pytest.raises(NotAuthenticated) as caught:
            await self.present(token, agent)
        assert caught.value.error_code == "invalid_token"
        return caught.value.detail

    async def stored(self) -> list[Grant]:
        """Return all grants, newest first."""
        return list(await self.desk.store.read(lambda tx: tx.grants.page(LOCAL_TENANT, limit=100, before=None)))

    async def revoke(self, grant_id: str) -> None:
        """Revoke a grant and all below it."""
        at_us = self.clock.now_us()
        await self.desk.store.transact(lambda tx: tx.grants.revoke(LOCAL_TENANT, GrantId(grant_id), at_us))


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """Give a fresh rig."""
    made = Rig()
    await made.desk.store.start()
    yield made
    await made.desk.store.stop()


async def test_the_first_token_is_its_grant_itself(rig: Rig) -> None:
    """Without a hop there is nothing to keep: the grant is the one that was issued."""
    token = await rig.token()
    assert await rig.present(token, rig.ann) == rig.grant
    assert await rig.stored() == [rig.grant]


async def test_hops_are_kept_once_below_each_other(rig: Rig) -> None:
    """Each hop is stored when it is shown for the first time, with its parent, holder, actors, space and a record."""
    narrow = HOLDER.narrow(
        await rig.token(), {"authorization_details": [{"type": TYPE, "identifier": "document.convert"}]}
    )
    token = passed(narrow, rig.ann, rig.bob, depth=0)
    found = await rig.present(token, rig.bob)
    assert await rig.present(token, rig.bob) == found
    last, middle, root = await rig.stored()
    assert (last, root) == (found, rig.grant)
    assert (middle.parent, last.parent) == (root.grant_id, middle.grant_id)
    assert (middle.space, middle.actors) == (root.space, ())
    assert last.actors == (THUMBPRINT_URN + rig.bob.jkt,)
    assert last.space == holders_space(last) != root.space
    assert (last.holder_jkt, last.depth_left) == (rig.bob.jkt, 0)
    assert [right.capability for right in last.rights] == ["document.convert"]
    records = await rig.desk.store.read(lambda tx: tx.records.page(job_id=None, after=0, limit=10))
    assert [record.kind for _, record in records] == ["token.attenuated"] * 2


async def test_calls_are_counted_for_every_grant_above(rig: Rig) -> None:
    """A hop's own count and that of the first grant are both used up: many hops never allow more than one grant."""
    token = await rig.token()
    details = [{"type": TYPE, "identifier": "document.convert", "calls_max": 6}]
    first, second = (passed(token, rig.ann, agent, authorization_details=details) for agent in (rig.bob, rig.cat))

    def spend_one(desk: Desk, job: str, tx: Transaction) -> None:
        spend(desk, tx, Checked(Call("document.convert"), lambda _schema, _args: True), used_for=job)

    async def calls(shown: str, agent: Agent) -> int:
        desk = desk_for_grant(rig.desk, KEY, await rig.present(shown, agent))
        count = 0
        with pytest.raises(NotAllowed) as caught:
            while True:
                job = f"{agent.jkt}-{count}"
                await desk.store.transact(partial(spend_one, desk, job))
                count += 1
        assert caught.value.error_code == "calls_spent"
        return count

    assert await calls(first, rig.bob) == 6
    assert await calls(second, rig.cat) == 4


async def test_a_revoked_hop_ends_its_subtree_alone(rig: Rig) -> None:
    """By a hop's id all that grew from it ends, shown before or not; what was above and beside it lives."""
    token = await rig.token()
    bob, cat = passed(token, rig.ann, rig.bob), passed(token, rig.ann, rig.cat)
    onward = passed(bob, rig.bob, rig.cat)
    await rig.revoke((await rig.present(bob, rig.bob)).grant_id)
    await rig.refused(bob, rig.bob)
    await rig.refused(onward, rig.cat)
    await rig.refused(HOLDER.narrow(bob, {}), rig.bob)
    assert (await rig.present(token, rig.ann)).parent is None
    assert (await rig.present(cat, rig.cat)).parent == rig.grant.grant_id


async def test_the_end_of_the_first_grant_is_the_end_of_all(rig: Rig) -> None:
    """Revoked, expired, or with its key gone, no token that came of it opens anything."""
    token = await rig.token()
    bob = passed(token, rig.ann, rig.bob)
    await rig.present(bob, rig.bob)
    rig.clock.advance(600)
    await rig.refused(bob, rig.bob)
    rig.clock.jump_wall(-600)
    await rig.present(bob, rig.bob)
    await rig.revoke(rig.grant.grant_id)
    for shown, agent in ((token, rig.ann), (bob, rig.bob), (passed(token, rig.ann, rig.cat), rig.cat)):
        await rig.refused(shown, agent)


async def test_a_dead_key_ends_its_chains(rig: Rig) -> None:
    """A chain ends with the credential that it stems from, like every grant."""
    token = passed(await rig.token(), rig.ann, rig.bob)
    await rig.desk.store.transact(lambda tx: tx.credentials.update(replace(KEY, revoked_us=1)))
    await rig.refused(token, rig.bob)


async def test_a_hop_by_spiffe_id_follows_its_certificate(rig: Rig) -> None:
    """Whoever proves the name presents it, with this year's key or the next one."""
    assert rig.bob.spiffe_id is not None
    token = HOLDER.pass_on(await rig.token(), {}, Holder(rig.bob.spiffe_id), rig.ann.pem)
    assert (await rig.present(token, rig.bob)).holder_jkt == rig.bob.jkt
    renewed = Agent(rig.bob.spiffe_id)
    found = await rig.present(token, renewed)
    assert (found.holder_jkt, found.actors) == (renewed.jkt, (rig.bob.spiffe_id,))
    assert await rig.refused(token, rig.cat) == "token_not_yours"


async def test_each_refusal_keeps_nothing(rig: Rig) -> None:
    """A thief, a hop too many and unreadable rights leave no grant and no record behind."""
    token = await rig.token()
    twice = passed(passed(token, rig.ann, rig.bob), rig.bob, rig.cat)
    assert await rig.refused(passed(token, rig.ann, rig.bob), rig.cat) == "token_not_yours"
    assert await rig.refused(passed(twice, rig.cat, rig.ann), rig.ann) == "delegation_not_allowed"
    assert (
        await rig.refused(HOLDER.narrow(token, {"authorization_details": [{"type": "x"}]}), rig.ann) == "hop_unreadable"
    )
    assert await rig.refused(HOLDER.narrow(token, {"scope": "*"}), rig.ann) == "hop_unreadable"
    assert await rig.stored() == [rig.grant]


async def test_a_token_of_another_node_or_grant_is_refused(rig: Rig) -> None:
    """The issuer's signature alone is not enough: address, holder, end and grant are those of this node's store."""
    await rig.token()
    good = claims_of(rig.grant, issuer=PLACE, audience=PLACE)
    for changed in (
        {"iss": "https://other"}, {"aud": "https://other"}, {"aud": [PLACE]}, {"jti": rig.ids.uuid7()}, {"sub": "eve"},
        {"exp": good["exp"] + 1}, {"cnf": {"jkt": rig.bob.jkt}}, {"nbf": good["nbf"] + 3600},
    ):  # fmt: skip
        await rig.refused(ISSUER.mint({**good, **changed}, rig.ann.holder), rig.ann)


async def test_a_chain_begins_with_whom_its_grant_is_bound_to(rig: Rig) -> None:
    """A first block for another key than the grant's own is refused, whoever signed it."""
    await rig.token()
    claims = claims_of(rig.grant, issuer=PLACE, audience=PLACE)
    await rig.refused(ISSUER.mint(claims, rig.bob.holder), rig.bob)


async def test_a_busy_machine_decides_nothing(rig: Rig) -> None:
    """Where the evaluator's time runs out, the answer is to try again, and nothing is kept."""
    hurried = BiscuitIssuer(Keys(), evaluation_sec=0.0)
    hurried._keys = ISSUER._keys
    token = passed(await rig.token(), rig.ann, rig.bob)
    with pytest.raises(Unavailable):
        await rig.present(token, rig.bob, hurried)
    assert await rig.stored() == [rig.grant]


async def test_a_holder_fills_no_table(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one token so many hops are kept and no more; those that are known go on, and other tokens are not touched."""
    monkeypatch.setattr(hop_count, "HOPS_MAX", 3)
    token = await rig.token()
    shown = [HOLDER.narrow(token, {"exp": rig.grant.expires_us // 1_000_000 - place}) for place in range(1, 5)]
    for one in shown[:3]:
        await rig.present(one, rig.ann)
    with pytest.raises(NotAllowed) as caught:
        await rig.present(shown[3], rig.ann)
    assert caught.value.error_code == "too_many_hops"
    assert (await rig.present(shown[0], rig.ann)).parent == rig.grant.grant_id
    assert len(await rig.stored()) == 4
    other = await rig.token(replace(rig.grant, grant_id=GrantId(rig.ids.uuid7())))
    await rig.present(HOLDER.narrow(other, {}), rig.ann)


async def test_what_was_revoked_is_refused_before_a_signature_is_looked_at(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The grant's own id and that of each hop end a token before anything costly is done for it."""
    token = await rig.token()
    bob, cat = passed(token, rig.ann, rig.bob), passed(token, rig.ann, rig.cat)
    await rig.revoke((await rig.present(bob, rig.bob)).grant_id)
    opened: list[str] = []
    monkeypatch.setattr(ISSUER, "open", opened.append)
    await rig.refused(bob, rig.bob)
    assert opened == []
    await rig.revoke(rig.grant.grant_id)
    for shown, agent in ((token, rig.ann), (cat, rig.cat)):
        await rig.refused(shown, agent)
    assert opened == []


async def test_a_hop_to_who_was_revoked_opens_nothing(rig: Rig) -> None:
    """A token that was passed on away from here names whom the node may have revoked since: it is refused, and kept nowhere."""
    assert rig.bob.spiffe_id is not None
    token = HOLDER.pass_on(await rig.token(), {}, Holder(rig.bob.spiffe_id), rig.ann.pem)
    rig.desk.standing.load([Ban(parse_spiffe_id(rig.bob.spiffe_id), 0, "")], [])
    await rig.refused(token, rig.bob)
    assert await rig.stored() == [rig.grant]
    rig.desk.standing.load([], [])
    assert (await rig.present(token, rig.bob)).actors == (rig.bob.spiffe_id,)

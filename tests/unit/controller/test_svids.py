"""Identities of workloads under clocks that a test holds: shared, renewed for who watches, and for nobody else."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from crank.adapters.fresh_keys import FreshKeys
from crank.adapters.jwt_svid import JoseSvidReader
from crank.controller import identities, workloads
from crank.controller import svids as module
from crank.controller.bundles import Bundles
from crank.controller.desk import Desk
from crank.controller.identities import allow_identity, revoke_identity
from crank.controller.issue import issue
from crank.controller.revocation_list import NEXT_UPDATE_SEC
from crank.controller.svids import HeldSvid, Picture, Svids
from crank.domain.ids import LOCAL_TENANT, is_uuid7
from crank.domain.rules.role import LIFETIME_SEC_MAX
from crank.domain.rules.workload import KEY_SEC_MAX
from crank.domain.trust import Svid
from crank.domain.workload import Selector, WorkloadEntry, parse_selector
from crank.errors import InvalidRequest, NotAllowed, StoreError, Unavailable
from crank.security import read_workload
from crank.testing.fakes import FakeClock
from tests.support.authority import CountedAuthority
from tests.support.desk import TRUST_DOMAIN, open_desk

MARKS = frozenset({parse_selector("unix:uid:7")})
NOW_US = 1_800_000_000_000_000
LIFE_SEC = 600
SOON_SEC = 10


@dataclass
class Bench:
    """Identities on a clock that stands still."""

    desk: Desk
    clock: FakeClock
    authority: CountedAuthority
    svids: Svids

    async def register(self, path: str = "agent/a", *selectors: str, **more: object) -> WorkloadEntry:
        """Register a workload."""
        wanted = workloads.WorkloadWanted(path, selectors or ("unix:uid:7",), **more)  # type: ignore[arg-type]
        return await workloads.add(self.desk, tenant=LOCAL_TENANT, subject="local", wanted=wanted)

    async def held(self) -> HeldSvid:
        """Return the identity of now."""
        (held,) = (await self.svids.picture(await self.svids.earned(MARKS))).svids
        return held

    async def serial(self) -> str:
        """Return the serial of the certificate of now."""
        return (await self.held()).svid.serial

    async def look(self) -> Collection[Selector]:
        """Look at the process, which stays as it is."""
        return MARKS


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Give identities whose services do not run; a test moves the clock and rings."""
    async with open_desk(tmp_path) as opened:
        clock = FakeClock(now_us=NOW_US)
        authority = CountedAuthority(TRUST_DOMAIN, clock, life_sec=LIFE_SEC)
        desk = replace(opened, clock=clock, authority=authority)
        yield Bench(desk, clock, authority, Svids(desk, FreshKeys(), JoseSvidReader()))


async def test_one_certificate_for_all_who_ask_at_once(bench: Bench) -> None:
    """Fifty who ask at the same moment, and others later, get the same; it costs one signature."""
    await bench.register()
    assert len(set(await asyncio.gather(*(bench.serial() for _ in range(50))))) == 1
    bench.clock.advance(LIFE_SEC * 0.3)
    await bench.serial()
    assert bench.authority.issued == 1


async def test_another_one_after_half_of_its_life(bench: Bench) -> None:
    """From half of its life on, less a fifth of that by chance, whoever asks gets another one."""
    await bench.register()
    first = await bench.serial()
    bench.clock.advance(LIFE_SEC / 2 * 0.79)
    assert await bench.serial() == first
    bench.clock.advance(LIFE_SEC / 2 * 0.25)
    assert await bench.serial() != first


async def test_a_key_outlives_its_certificates(bench: Bench) -> None:
    """Each renewal is another certificate for the same key, in use or forgotten meanwhile, below another root, too."""
    await bench.register()
    first = await bench.held()
    serials = {first.svid.serial}
    for pause_sec in (LIFE_SEC / 2, LIFE_SEC / 2, 10 * LIFE_SEC):
        bench.clock.advance(pause_sec)
        now = await bench.held()
        assert now.private_key == first.private_key
        serials.add(now.svid.serial)
    bench.authority.change_root()
    bench.svids._held.clear()
    now = await bench.held()
    assert now.private_key == first.private_key
    assert len(serials | {now.svid.serial}) == 5


@pytest.mark.parametrize("clock", ["both", "wall", "seconds"])
async def test_a_key_lives_a_day(bench: Bench, clock: str) -> None:
    """A key that is old by either clock is followed by another at the next renewal; no token lives nearly as long."""
    assert KEY_SEC_MAX >= 100 * LIFETIME_SEC_MAX
    await bench.register()
    first = await bench.held()

    async def after(seconds: float) -> HeldSvid:
        if clock != "wall":
            bench.clock.advance(seconds)
        if clock != "both":
            bench.clock.jump_wall(seconds if clock == "wall" else -seconds)
        # The issuing key of an authority in memory lives a day, too.
        bench.authority.change_root()
        return await bench.held()

    assert (await after(KEY_SEC_MAX - 1)).private_key == first.private_key
    assert (await after(LIFE_SEC + 1)).private_key != first.private_key


async def test_what_is_revoked_takes_its_key_along(bench: Bench) -> None:
    """Revoked as a whole or by one of its serials, the last one or one before: what comes next has another key."""
    entry = await bench.register()
    first = await bench.held()
    keys = [first.private_key]
    bench.clock.advance(LIFE_SEC / 2)
    assert await bench.serial() != first.svid.serial
    for named in (first.svid.serial, None, str(entry.spiffe_id)):
        await revoke_identity(bench.desk, named or await bench.serial(), reason="", subject="owner")
        if named == str(entry.spiffe_id):
            await allow_identity(bench.desk, named, subject="owner")
        keys.append((await bench.held()).private_key)
    assert len(set(keys)) == len(keys)


async def test_a_revoked_key_is_forgotten_before_its_certificate_is(bench: Bench) -> None:
    """Nobody asks until a revoked certificate has expired and left the lists: its key does not come back."""
    await bench.register()
    first = await bench.held()
    await bench.svids.start()
    await asyncio.sleep(0)
    await revoke_identity(bench.desk, first.svid.serial, reason="", subject="owner")
    async with asyncio.timeout(SOON_SEC):
        while bench.svids._keys._keys:
            await asyncio.sleep(0)
    await bench.svids.stop()
    bench.clock.advance(LIFE_SEC + 1)
    bench.desk.standing.load([], [])
    assert (await bench.held()).private_key != first.private_key


async def test_a_revocation_during_a_renewal_takes_the_key_along(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that was under way for a key when another one of that key was revoked is not handed out again."""
    await bench.register()
    first = await bench.held()
    bench.clock.advance(LIFE_SEC / 2)
    async def late(*given: Any) -> Svid:
        svid = await issue(*given)
        await revoke_identity(bench.desk, first.svid.serial, reason="", subject="owner")
        bench.svids._keys.forget_lost()
        return svid

    monkeypatch.setattr(module, "issue", late)
    under_way = await bench.held()
    assert under_way.private_key == first.private_key
    monkeypatch.undo()
    assert (await bench.held()).private_key != first.private_key


async def test_removing_takes_the_certificates_of_that_entry_alone(bench: Bench) -> None:
    """All that have not expired; those of another entry with the same identity hold, and the identity itself is not banned."""
    entry = await bench.register()
    other = await bench.register("agent/a", "unix:uid:8")

    async def serial(one: WorkloadEntry) -> str:
        return (await bench.svids.picture([one])).svids[0].svid.serial

    expired = await serial(entry)
    bench.clock.advance(LIFE_SEC)
    living = {await serial(entry)}
    kept = await serial(other)
    bench.clock.advance(LIFE_SEC / 2)
    living.add(await serial(entry))
    await workloads.remove(bench.desk, tenant=LOCAL_TENANT, subject="owner", entry_id=entry.entry_id)
    assert {one.serial for one in bench.desk.standing.revoked} == living
    found = await bench.desk.store.read(lambda tx: [tx.identities.find(one) for one in (expired, kept)])
    assert all(one is not None and one.revoked_us is None for one in found)
    assert bench.desk.standing.bans == []
    records = await bench.desk.store.read(lambda tx: tx.records.page(job_id=None, after=0, limit=100))
    told = [record.facts["serial"] for _, record in records if record.kind == "identity.revoked"]
    assert set(told) == living
    await bench.register()
    assert (await bench.held()).entry.spiffe_id == entry.spiffe_id


async def test_a_removal_is_not_outrun_by_a_certificate_under_way(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was being signed when the workload was removed is neither noted nor handed out."""
    entry = await bench.register()
    sign = bench.authority.issue

    def late(*given: Any, **more: Any) -> Svid:
        svid = sign(*given, **more)
        removing.append(asyncio.ensure_future(remove()))
        return svid

    async def remove() -> None:
        await workloads.remove(bench.desk, tenant=LOCAL_TENANT, subject="owner", entry_id=entry.entry_id)

    async def after_the_removal(work: Any) -> Any:
        monkeypatch.undo()
        await removing[0]
        return await bench.desk.store.transact(work)

    removing: list[asyncio.Future[None]] = []
    earned = await bench.svids.earned(MARKS)
    monkeypatch.setattr(bench.authority, "issue", late)
    monkeypatch.setattr(bench.desk.store, "transact", after_the_removal)
    with pytest.raises(NotAllowed) as refused:
        await bench.svids.picture(earned)
    assert refused.value.error_code == "no_identity"
    assert await bench.desk.store.read(lambda tx: tx.identities.page(limit=9, valid_at_us=0)) == []


async def test_a_full_list_of_revocations_keeps_no_workload(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking an identity away is not refused for want of room: its certificates are revoked all the same."""
    entry = await bench.register()
    serial = await bench.serial()
    monkeypatch.setattr(identities, "REVOKED_MAX", 0)
    await workloads.remove(bench.desk, tenant=LOCAL_TENANT, subject="owner", entry_id=entry.entry_id)
    assert bench.desk.standing.is_revoked(serial)
    assert await workloads.list_workloads(bench.desk, tenant=LOCAL_TENANT) == []


async def test_each_entry_is_an_instance_of_its_own(bench: Bench) -> None:
    """Certificates tell one workload from another, stay with a renewal, and change with a key; the list says the same."""
    marks = {name: frozenset({parse_selector(f"unix:uid:{number}")}) for number, name in enumerate("ab", start=7)}
    for number, name in enumerate("ab", start=7):
        await bench.register(f"agent/{name}", f"unix:uid:{number}")

    async def instance(name: str) -> str:
        (held,) = (await bench.svids.picture(await bench.svids.earned(marks[name]))).svids
        found = await bench.desk.store.read(lambda tx: tx.identities.find(held.svid.serial))
        shown = read_workload(held.svid.chain[0])
        assert found is not None
        assert shown is not None
        assert found.instance_id == shown.instance_id
        assert is_uuid7(shown.instance_id)
        return shown.instance_id

    first = {name: await instance(name) for name in "ab"}
    assert first["a"] != first["b"]
    bench.clock.advance(LIFE_SEC / 2)
    assert {name: await instance(name) for name in "ab"} == first
    (held,) = (await bench.svids.picture(await bench.svids.earned(marks["a"]))).svids
    await revoke_identity(bench.desk, held.svid.serial, reason="", subject="owner")
    assert await instance("a") != first["a"]
    assert await instance("b") == first["b"]


async def test_a_workload_that_is_registered_anew_has_another_key(bench: Bench) -> None:
    """The same path for the same marks is another entry; nothing is left of the one before."""
    entry = await bench.register()
    first = await bench.held()
    await workloads.remove(bench.desk, tenant=LOCAL_TENANT, subject="local", entry_id=entry.entry_id)
    await bench.register()
    assert (await bench.held()).private_key != first.private_key
    assert first.private_key not in {key.private for key in bench.svids._keys._keys.values()}


async def test_a_machine_that_slept_shows_nothing_expired(bench: Bench) -> None:
    """When the wall's clock is ahead and the other one stood still, a certificate that has expired is not handed out."""
    await bench.register()
    first = await bench.serial()
    bench.clock.jump_wall(LIFE_SEC + 1)
    assert await bench.serial() != first


async def test_nothing_is_renewed_for_nobody(bench: Bench) -> None:
    """At its time a certificate is forgotten; without a watcher no other is made."""
    await bench.register()
    await bench.serial()
    await bench.svids.start()
    bench.clock.advance(LIFE_SEC)
    bench.svids._sooner.set()
    async with asyncio.timeout(SOON_SEC):
        while bench.svids._held:
            await asyncio.sleep(0)
    await bench.svids.stop()
    assert bench.authority.issued == 1


async def test_a_watcher_keeps_what_it_has_while_nothing_can_be_signed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing authority ends no stream before the certificate itself ends; then the stream says why."""
    monkeypatch.setattr(module, "TRY_AGAIN_SEC", 0.01)
    await bench.register()
    async with contextlib.aclosing(bench.svids.watch(bench.look)) as pictures:
        first = await anext(pictures)
        bench.authority.fault = Unavailable("The key store is away.")
        bench.clock.advance(LIFE_SEC / 2)
        bench.svids.changes.ring()
        waiting = asyncio.ensure_future(anext(pictures))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        bench.authority.fault = None
        async with asyncio.timeout(SOON_SEC):
            assert (await waiting).svids[0].svid.serial != first.svids[0].svid.serial
        bench.authority.fault = Unavailable("The key store is away.")
        bench.clock.advance(LIFE_SEC)
        bench.svids.changes.ring()
        async with asyncio.timeout(SOON_SEC):
            with pytest.raises(Unavailable):
                await anext(pictures)


async def test_a_failed_issue_is_forgotten(bench: Bench) -> None:
    """Who comes after a failure is not told of it again."""
    await bench.register()
    bench.authority.fault = Unavailable("The key store is away.")
    with pytest.raises(Unavailable):
        await bench.serial()
    bench.authority.fault = None
    assert await bench.serial()


async def test_what_cannot_be_recorded_is_not_handed_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a certificate nor a token leaves the node without its record."""
    await bench.register()
    entries = await bench.svids.earned(MARKS)

    async def full(_work: object) -> None:
        raise StoreError("The disk is gone.")

    monkeypatch.setattr(bench.desk.store, "transact", full)
    with pytest.raises(StoreError):
        await bench.svids.picture(entries)
    with pytest.raises(StoreError):
        await bench.svids.tokens(entries, ["db"])
    assert bench.svids._held == {}
    assert not bench.svids._tokens


async def test_a_token_serves_until_half_of_its_life(bench: Bench) -> None:
    """The same audience in any order gets the same token for a while; another audience, or later, another one."""
    await bench.register(ttl_sec=100)
    entries = await bench.svids.earned(MARKS)

    async def token(*audience: str) -> str:
        return (await bench.svids.tokens(entries, audience))[0].token

    first = await token("a", "b")
    assert await token("b", "a", "b") == first
    assert await token("a") != first
    bench.clock.advance(49)
    assert await token("a", "b") == first
    assert bench.svids.check_token(entries, first, "b")[1]["aud"] == ["a", "b"]
    bench.clock.advance(2)
    assert await token("a", "b") != first
    bench.clock.advance(100)
    with pytest.raises(InvalidRequest):
        bench.svids.check_token(entries, first, "b")


@pytest.mark.must(
    "JWT-SVID 1/1", "JWT-SVID 2/1", "JWT-SVID 2.1/1", "JWT-SVID 2.3/1", "JWT-SVID 3.1/1", "JWT-SVID 3.2/1", "JWT-SVID 3.3/1",
    "JWT-SVID 4/2", "JWT-SVID 5.1/1",
)  # fmt: skip
async def test_a_token_has_what_the_standard_asks(bench: Bench) -> None:
    """JWT-SVID 1 to 5: three parts, three members in the header, a key of the bundle, whose it is, for whom and until when."""
    entry = await bench.register()
    entries = await bench.svids.earned(MARKS)
    (made,) = await bench.svids.tokens(entries, ["db"])
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in made.token.split(".")[:2])
    assert made.token.count(".") == 2
    (key,) = bench.authority.bundle().jwt_authorities
    assert header == {"alg": "ES256", "typ": "JWT", "kid": key.kid}
    assert (claims["sub"], claims["aud"]) == (str(entry.spiffe_id), ["db"])
    assert 0 < claims["exp"] - NOW_US // 1_000_000 <= 300
    with pytest.raises(InvalidRequest) as refused:
        await bench.svids.tokens(entries, [])
    assert refused.value.error_code == "invalid_audience"


async def test_marks_that_change_end_what_they_earned(bench: Bench) -> None:
    """Before anything new is handed out the process is looked at again; without change nobody looks."""
    await bench.register()
    looks = 0

    async def look() -> Collection[Selector]:
        nonlocal looks
        looks += 1
        return MARKS if looks == 1 else frozenset()

    async with contextlib.aclosing(bench.svids.watch(look)) as pictures:
        await anext(pictures)
        waiting = asyncio.ensure_future(anext(pictures))
        for _ in range(3):
            # Somebody else's affairs.
            bench.svids.changes.ring()
            await asyncio.sleep(0.01)
        assert looks == 1
        bench.authority.change_root()
        bench.svids._held.clear()
        bench.svids.changes.ring()
        async with asyncio.timeout(SOON_SEC):
            with pytest.raises(NotAllowed):
                await waiting
    assert looks == 2


async def test_entries_of_another_trust_domain_are_nobodys(bench: Bench) -> None:
    """A node that was given another name does not issue under the old one."""
    entry = await bench.register()
    old = replace(entry, spiffe_id=replace(entry.spiffe_id, trust_domain="old.internal"), entry_id=entry.entry_id + "x")  # type: ignore[arg-type]
    await bench.desk.store.transact(lambda tx: tx.workloads.insert(old))
    bench.desk.workloads.ring()
    assert [one.entry_id for one in await bench.svids.earned(MARKS)] == [entry.entry_id]


async def test_a_digest_is_asked_for_only_where_an_entry_names_one(bench: Bench) -> None:
    """Programs are digested for those who say so."""
    await bench.register()
    assert not await bench.svids.wants_digest()
    await bench.register("agent/b", "unix:uid:7", "unix:sha256:" + "0" * 64)
    assert await bench.svids.wants_digest()


async def test_a_foreign_bundle_without_a_number_still_reaches_watchers(bench: Bench) -> None:
    """A publisher need not number its bundles: one that took a root away is told to who watches all the same."""
    await bench.register(federates_with=("other.example",))
    others = Bundles(bench.authority, bench.clock)
    bench.svids._others = others
    roots = [CountedAuthority("other.example", bench.clock).bundle() for _ in range(2)]
    first, second = (replace(bundle, sequence=0) for bundle in roots)
    until_us = bench.clock.now_us() + 1_000_000_000
    others.put(first, until_us)
    async with contextlib.aclosing(bench.svids.watch(bench.look)) as pictures:
        assert (await anext(pictures)).bundles["other.example"] == first
        others.put(second, until_us)
        bench.svids.changes.ring()
        async with asyncio.timeout(SOON_SEC):
            assert (await anext(pictures)).bundles["other.example"] == second


async def test_a_token_of_a_revoked_identity_is_not_said_to_hold(bench: Bench) -> None:
    """Whoever asks about a token hears of a revocation at once; the token itself lives on for minutes."""
    entry = await bench.register()
    entries = await bench.svids.earned(MARKS)
    (token,) = await bench.svids.tokens(entries, ["db"])
    assert bench.svids.check_token(entries, token.token, "db")
    await revoke_identity(bench.desk, str(entry.spiffe_id), reason="", subject="owner")
    with pytest.raises(InvalidRequest):
        bench.svids.check_token(entries, token.token, "db")


async def test_an_entry_that_asks_for_a_digest_reaches_who_watches_already(bench: Bench) -> None:
    """A process that was looked at before anybody asked for its program's digest is looked at again, once."""
    await bench.register()
    digest = f"unix:sha256:{'a' * 64}"
    looks = 0

    async def look() -> Collection[Selector]:
        nonlocal looks
        looks += 1
        return MARKS | {parse_selector(digest)} if await bench.svids.wants_digest() else MARKS

    async with contextlib.aclosing(bench.svids.watch(look)) as pictures:
        assert len((await anext(pictures)).svids) == 1
        await bench.register("agent/b", "unix:uid:7", digest)
        bench.svids.changes.ring()
        async with asyncio.timeout(SOON_SEC):
            assert len((await anext(pictures)).svids) == 2
        waiting = asyncio.ensure_future(anext(pictures))
        bench.svids.changes.ring()
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert looks == 2


# --- what was revoked ------------------------------------------------------------------------------


def named_in(picture: Picture, serial: str) -> bool:
    """Tell whether the lists of a picture name a certificate."""
    lists = [x509.load_der_x509_crl(der) for der in picture.revoked.by_authorities]
    return any(one.get_revoked_certificate_by_serial_number(int(serial, 16)) is not None for one in lists)


async def test_a_revocation_is_one_signature_for_all_who_watch(bench: Bench) -> None:
    """Fifty who watch are each told of a certificate of somebody else that was revoked; their own stays, and one list was signed."""
    await bench.register()
    other = await bench.register("agent/other", "unix:uid:8")
    serial = (await bench.svids.picture([other])).svids[0].svid.serial
    async with contextlib.AsyncExitStack() as opened, asyncio.timeout(SOON_SEC):
        watching = [await opened.enter_async_context(contextlib.aclosing(bench.svids.watch(bench.look))) for _ in range(50)]
        before = [await anext(one) for one in watching]
        assert not any(named_in(one, serial) for one in before)
        assert bench.authority.listed == 1
        waiting = [asyncio.ensure_future(anext(one)) for one in watching]
        await bench.svids.start()
        await revoke_identity(bench.desk, serial, reason="", subject="owner")
        after = await asyncio.gather(*waiting)
        await bench.svids.stop()
    assert all(named_in(one, serial) for one in after)
    assert len({id(one) for one in after}) == 1
    assert after[0].svids == before[0].svids
    assert bench.authority.listed == 2


async def test_a_list_that_ages_is_renewed_for_who_watches(bench: Bench) -> None:
    """At half of the time for which it may be believed another one comes, though nothing was revoked."""
    await bench.register()
    async with contextlib.aclosing(bench.svids.watch_roots(bench.look)) as changes, asyncio.timeout(SOON_SEC):
        first = await anext(changes)
        waiting = asyncio.ensure_future(anext(changes))
        await bench.svids.start()
        bench.clock.advance(NEXT_UPDATE_SEC / 2 + 1)
        bench.svids._sooner.set()
        second = await waiting
        await bench.svids.stop()
    assert second.bundles == first.bundles
    ends = [x509.load_der_x509_crl(one.revoked.by_authorities[0]).next_update_utc for one in (first, second)]
    assert ends[0] is not None
    assert ends[1] is not None
    assert (ends[1] - ends[0]).total_seconds() == NEXT_UPDATE_SEC / 2 + 1


async def test_a_list_that_cannot_be_signed_costs_nobody_an_identity(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certificates go on with the last list, whose end is written in it; who watches hears of the revocation once it can be signed."""
    monkeypatch.setattr(module, "TRY_AGAIN_SEC", 0.05)
    await bench.register()
    other = await bench.register("agent/other", "unix:uid:8")
    serial = (await bench.svids.picture([other])).svids[0].svid.serial
    async with contextlib.aclosing(bench.svids.watch(bench.look)) as pictures, asyncio.timeout(SOON_SEC):
        first = await anext(pictures)
        bench.authority.fault = Unavailable("The key store is away.")
        await revoke_identity(bench.desk, serial, reason="", subject="owner")
        assert (await bench.svids.picture(await bench.svids.earned(MARKS))) is first
        waiting = asyncio.ensure_future(anext(pictures))
        await bench.svids.start()
        bench.authority.fault = None
        bench.clock.advance(1)
        bench.svids._sooner.set()
        assert named_in(await waiting, serial)
        await bench.svids.stop()


async def test_without_any_list_nobody_is_told_anything(bench: Bench) -> None:
    """Who was given an identity without a list would believe the revoked; it is told to come again."""
    await bench.register()
    entries = await bench.svids.earned(MARKS)
    await asyncio.gather(*(bench.svids._svid(entry) for entry in entries))
    bench.authority.fault = Unavailable("The key store is away.")
    with pytest.raises(Unavailable):
        await bench.svids.picture(entries)

"""Identities of workloads under clocks that a test holds: shared, renewed for who watches, and for nobody else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from crank.adapters.fresh_keys import FreshKeys
from crank.adapters.jwt_svid import JoseSvidReader
from crank.controller import svids as module
from crank.controller import workloads
from crank.controller.bundles import Bundles
from crank.controller.desk import Desk
from crank.controller.identities import revoke_identity
from crank.controller.svids import Svids
from crank.domain.ids import LOCAL_TENANT
from crank.domain.workload import Selector, WorkloadEntry, parse_selector
from crank.errors import InvalidRequest, NotAllowed, StoreError, Unavailable
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

    async def serial(self) -> str:
        """Return the serial of the certificate of now."""
        (held,) = (await self.svids.picture(await self.svids.earned(MARKS))).svids
        return held.svid.serial

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

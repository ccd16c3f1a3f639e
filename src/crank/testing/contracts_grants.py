"""What every Store promises about grants, as tests."""

import asyncio
from dataclasses import replace
from pathlib import Path

from crank.domain.grant import GrantId
from crank.domain.ids import LOCAL_TENANT, CredentialId
from crank.errors import Conflict
from crank.ports import Store, Transaction
from crank.testing.contracts_credentials import CredentialStoreContract
from crank.testing.expect import faults
from crank.testing.samples import OTHER_TENANT, sample_full_job, sample_grant, sample_session

_ROOT, _MIDDLE, _LEAF, _ASIDE = (GrantId(name) for name in ("root", "middle", "leaf", "aside"))


class GrantStoreContract(CredentialStoreContract):
    """The promises of `ports.Store`, grants included."""

    def test_a_grant_reads_back_equal_and_is_made_once(self, tmp_path: Path) -> None:
        """One with every field and a bare one survive; another tenant finds nothing; an id is taken once."""
        full = replace(sample_grant("full", parent="root"), revoked_us=50)
        bare = replace(sample_grant("bare"), actors=(), holder_jkt=None, rights=(), depth_left=0)

        async def test(store: Store) -> None:
            await store.transact(lambda tx: tx.grants.insert(full))
            await store.transact(lambda tx: tx.grants.insert(bare))
            assert await store.read(lambda tx: tx.grants.find(LOCAL_TENANT, full.grant_id)) == full
            assert await store.read(lambda tx: tx.grants.find(LOCAL_TENANT, bare.grant_id)) == bare
            assert await store.read(lambda tx: tx.grants.find(OTHER_TENANT, full.grant_id)) is None
            with faults(Conflict, "grant_id_taken"):
                await store.transact(lambda tx: tx.grants.insert(full))

        self.run(tmp_path, test)

    def test_a_chain_leads_to_the_first_and_a_revocation_to_the_last(self, tmp_path: Path) -> None:
        """What stands above is found in order; what stands below ends with its parent, and beside it nothing does."""

        async def test(store: Store) -> None:
            await store.transact(_tree)
            chain = await store.read(lambda tx: tx.grants.chain(LOCAL_TENANT, _LEAF))
            assert [grant.grant_id for grant in chain] == [_LEAF, _MIDDLE, _ROOT]
            assert await store.read(lambda tx: list(tx.grants.chain(LOCAL_TENANT, GrantId("none")))) == []
            assert set(await store.transact(lambda tx: tx.grants.revoke(LOCAL_TENANT, _MIDDLE, 7))) == {_MIDDLE, _LEAF}
            assert set(await store.transact(lambda tx: tx.grants.revoke(LOCAL_TENANT, _ROOT, 9))) == {
                _ROOT, _MIDDLE, _LEAF, _ASIDE,
            }  # fmt: skip
            found = await store.read(lambda tx: [tx.grants.find(LOCAL_TENANT, one) for one in (_ROOT, _MIDDLE, _LEAF)])
            assert [one.revoked_us for one in found if one is not None] == [9, 7, 7]
            theirs = await store.read(lambda tx: tx.grants.find(OTHER_TENANT, _ROOT))
            assert theirs is not None
            assert theirs.revoked_us is None
            assert not await store.transact(lambda tx: tx.grants.revoke(LOCAL_TENANT, GrantId("none"), 9))

        self.run(tmp_path, test)

    def test_grants_are_found_by_who_acts(self, tmp_path: Path) -> None:
        """For or by a name, whole and exact, in every tenant; not those that ended."""
        named = replace(sample_grant("named"), subject="spiffe://example.org/agent/s")
        theirs = sample_grant("theirs", tenant=OTHER_TENANT)
        gone = replace(sample_grant("gone"), revoked_us=50)

        async def test(store: Store) -> None:
            for grant in (named, theirs, gone):
                await store.transact(lambda tx, grant=grant: tx.grants.insert(grant))  # type: ignore[misc]

            async def of(name: str, at_us: int = 99) -> list[GrantId]:
                found = await store.read(lambda tx: tx.grants.of_party(name, alive_at_us=at_us))
                return [grant.grant_id for grant in found]

            assert set(await of("spiffe://example.org/agent/a")) == {named.grant_id, theirs.grant_id}
            assert await of("spiffe://example.org/agent/s") == [named.grant_id]
            assert await of("spiffe://example.org/agent/s", 100) == []
            assert await of("spiffe://example.org/agent") == []
            assert await of("%") == []

        self.run(tmp_path, test)

    def test_uses_are_counted_and_kept_with_what_they_were_for(self, tmp_path: Path) -> None:
        """Each right has its own count and cost; a job leads back to its grant; what failed counts nothing."""

        async def test(store: Store) -> None:
            await store.transact(_tree)

            def use(tx: Transaction) -> None:
                tx.grants.add(LOCAL_TENANT, _ROOT, 0, 5)
                tx.grants.add(LOCAL_TENANT, _ROOT, 0, 0)
                tx.grants.add(LOCAL_TENANT, _ROOT, 1, 2)
                tx.grants.note(LOCAL_TENANT, "job-1", _ROOT)

            def fail(tx: Transaction) -> None:
                tx.grants.add(LOCAL_TENANT, _ROOT, 0, 1)
                raise Conflict("no")

            await store.transact(use)
            with faults(Conflict, "conflict"):
                await store.transact(fail)
            counts = await store.read(lambda tx: [tx.grants.count(LOCAL_TENANT, _ROOT, place) for place in range(3)])
            assert counts == [(2, 5), (1, 2), (0, 0)]
            assert await store.read(lambda tx: tx.grants.noted(LOCAL_TENANT, "job-1")) == _ROOT
            assert await store.read(lambda tx: tx.grants.noted(LOCAL_TENANT, "job-2")) is None
            assert await store.read(lambda tx: tx.grants.noted(OTHER_TENANT, "job-1")) is None

        self.run(tmp_path, test)

    def test_a_count_is_never_passed_by_many_at_once(self, tmp_path: Path) -> None:
        """Fifty that look and then count, all at the same time, are let through exactly as often as allowed."""

        def take(tx: Transaction) -> bool:
            calls, _ = tx.grants.count(LOCAL_TENANT, _ROOT, 0)
            if calls >= 7:
                return False
            tx.grants.add(LOCAL_TENANT, _ROOT, 0, 0)
            return True

        async def test(store: Store) -> None:
            taken = await asyncio.gather(*(store.transact(take) for _ in range(50)))
            assert sum(taken) == 7

        self.run(tmp_path, test)

    def test_grants_are_paged_and_known_by_their_credential(self, tmp_path: Path) -> None:
        """Newest first, with a cursor, of one credential or of all; their spaces are told."""

        def check(tx: Transaction) -> None:
            page = tx.grants.page
            mine = page(LOCAL_TENANT, limit=9, before=None, credential_id=CredentialId("k-mine"))
            assert [one.grant_id for one in mine] == [_LEAF, _MIDDLE, _ROOT]
            assert [one.grant_id for one in page(LOCAL_TENANT, limit=2, before=None)] == [_ASIDE, _LEAF]
            assert [one.grant_id for one in page(LOCAL_TENANT, limit=9, before=_MIDDLE)] == [_ROOT]
            assert not page(LOCAL_TENANT, limit=9, before="none")
            assert tx.grants.spaces(LOCAL_TENANT, CredentialId("k-mine")) == {CredentialId("g-1")}
            assert tx.grants.spaces(LOCAL_TENANT, CredentialId("k-none")) == set()

        self.write(tmp_path, _tree, check=check)

    def test_old_grants_are_forgotten_with_their_counts_and_uses(self, tmp_path: Path) -> None:
        """What ended long ago goes; what ends later stays whole."""

        def fill(tx: Transaction) -> None:
            for name, ends in (("old", 5), ("new", 50)):
                tx.grants.insert(replace(sample_grant(name), expires_us=ends))
                tx.grants.add(LOCAL_TENANT, GrantId(name), 0, 1)
                tx.grants.note(LOCAL_TENANT, f"job-{name}", GrantId(name))
            assert tx.grants.purge(50) == 1

        def check(tx: Transaction) -> None:
            assert tx.grants.find(LOCAL_TENANT, GrantId("old")) is None
            assert tx.grants.count(LOCAL_TENANT, GrantId("old"), 0) == (0, 0)
            assert tx.grants.noted(LOCAL_TENANT, "job-old") is None
            assert tx.grants.find(LOCAL_TENANT, GrantId("new")) is not None
            assert tx.grants.count(LOCAL_TENANT, GrantId("new"), 0) == (1, 1)
            assert tx.grants.noted(LOCAL_TENANT, "job-new") == "new"

        self.write(tmp_path, fill, check=check)

    def test_a_job_that_is_kept_stays_one_that_a_token_asked_for(self, tmp_path: Path) -> None:
        """When its grant is forgotten before it, it is not taken for the key's own."""
        job, session = sample_full_job("kept"), sample_session("kept-too")

        def fill(tx: Transaction) -> None:
            tx.jobs.insert(job)
            tx.sessions.insert(session)
            tx.grants.insert(replace(sample_grant("old"), expires_us=5))
            for used_for in (job.job_id, session.session_id):
                tx.grants.note(LOCAL_TENANT, used_for, GrantId("old"))
            assert tx.grants.purge(50) == 1

        def check(tx: Transaction) -> None:
            assert tx.grants.noted(LOCAL_TENANT, job.job_id) == tx.grants.noted(LOCAL_TENANT, session.session_id) == "old"

        def end(tx: Transaction) -> None:
            tx.jobs.delete(LOCAL_TENANT, job.job_id)
            assert tx.grants.purge(50) == 0

        def gone(tx: Transaction) -> None:
            assert tx.grants.noted(LOCAL_TENANT, job.job_id) is None

        self.write(tmp_path, fill, check, end, check=gone)


def _tree(tx: Transaction) -> None:
    tx.grants.insert(sample_grant("root"))
    tx.grants.insert(sample_grant("middle", parent="root"))
    tx.grants.insert(sample_grant("leaf", parent="middle"))
    aside = replace(
        sample_grant("aside", parent="root"), credential_id=CredentialId("k-other"), space=CredentialId("g-2")
    )
    tx.grants.insert(aside)
    tx.grants.insert(sample_grant("root", tenant=OTHER_TENANT))

"""What every Store promises about issued identities and revocations, as tests; the manner is that of `StoreContract`."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from crank.domain.identity import SpiffeId, parse_spiffe_id
from crank.domain.ids import InstanceId
from crank.domain.issued import Ban, IssuedIdentity
from crank.domain.trust import Attestation
from crank.domain.workload import EntryId
from crank.errors import Conflict, NotFound
from crank.ports import Store, Transaction
from crank.testing.expect import faults

_ONE, _OTHER = (parse_spiffe_id(f"spiffe://test.internal/worker/{name}") for name in ("one", "other"))


def sample_identity(serial: str, *, spiffe_id: SpiffeId = _ONE, not_after_us: int = 100) -> IssuedIdentity:
    """Return a certificate that is not revoked."""
    instance = InstanceId("0190a0a0-0000-7000-8000-000000000001")
    return IssuedIdentity(serial, spiffe_id, "worker", instance, Attestation.THUMBPRINT, "n1", 7, not_after_us)


def _insert(*identities: IssuedIdentity) -> Callable[[Transaction], None]:
    def work(tx: Transaction) -> None:
        for identity in identities:
            tx.identities.insert(identity)

    return work


class IdentityStoreContract:
    """The promises of `ports.IdentityStore`. Subclass and say in `make` how a store is made."""

    def make(self, folder: Path) -> Store:
        """Return a store that was not started."""
        raise NotImplementedError

    def run(self, folder: Path, test: Callable[[Store], Awaitable[None]]) -> None:
        """Run a test on a store that is open."""

        async def whole() -> None:
            store = self.make(folder)
            await store.start()
            try:
                await test(store)
            finally:
                await store.stop()

        asyncio.run(whole())

    def test_a_certificate_reads_back_equal_and_its_serial_is_taken_once(self, tmp_path: Path) -> None:
        """One with every field and one without a node survive; the same serial again is refused."""
        full = replace(sample_identity("aa"), revoked_us=9, reason="lost", workload=EntryId("w-1"))
        bare = replace(sample_identity("bb"), node=None, attestation=Attestation.NONE)

        async def test(store: Store) -> None:
            await store.transact(_insert(full, bare))
            found = await store.read(lambda tx: [tx.identities.find(serial) for serial in ("aa", "bb", "cc")])
            assert found == [full, bare, None]
            with faults(Conflict, "serial_taken"):
                await store.transact(_insert(sample_identity("aa")))

        self.run(tmp_path, test)

    def test_certificates_are_found_by_name_and_by_age(self, tmp_path: Path) -> None:
        """Of one SPIFFE ID the oldest comes first, of all the newest; what has expired is in neither."""
        made = [
            sample_identity("01", not_after_us=10),
            sample_identity("02", not_after_us=20),
            sample_identity("03", spiffe_id=_OTHER, not_after_us=30),
            sample_identity("04", not_after_us=15),
        ]

        async def test(store: Store) -> None:
            await store.transact(_insert(*made))
            own = await store.read(lambda tx: tx.identities.of(_ONE, valid_at_us=10))
            assert [one.serial for one in own] == ["02", "04"]
            newest = await store.read(lambda tx: tx.identities.page(limit=2, valid_at_us=0))
            assert [one.serial for one in newest] == ["04", "03"]
            living = await store.read(lambda tx: tx.identities.page(limit=9, valid_at_us=15))
            assert [one.serial for one in living] == ["03", "02"]

        self.run(tmp_path, test)

    def test_certificates_are_found_by_the_entry_that_they_were_issued_to(self, tmp_path: Path) -> None:
        """Those that have not expired, the oldest first; none of another entry of the same name, and none of no entry."""
        first, second = EntryId("w-1"), EntryId("w-2")
        made = [
            replace(sample_identity("01", not_after_us=10), workload=first),
            replace(sample_identity("02", not_after_us=20), workload=first),
            replace(sample_identity("03", not_after_us=20), workload=second),
            sample_identity("04", not_after_us=20),
            replace(sample_identity("05", not_after_us=15), workload=first, revoked_us=9, reason="lost"),
        ]

        async def test(store: Store) -> None:
            await store.transact(_insert(*made))
            found = await store.read(lambda tx: tx.identities.of_workload(first, valid_at_us=10))
            assert found == [made[1], made[4]]

        self.run(tmp_path, test)

    def test_a_revocation_stays_as_it_was_first_told(self, tmp_path: Path) -> None:
        """A second revocation changes neither time nor reason; an unknown serial is refused; the expired are left out."""
        made = [sample_identity("01", not_after_us=10), sample_identity("02"), sample_identity("03")]

        async def test(store: Store) -> None:
            await store.transact(_insert(*made))
            await store.transact(lambda tx: tx.identities.revoke("01", 5, "stolen"))
            await store.transact(lambda tx: tx.identities.revoke("02", 5, "stolen"))
            await store.transact(lambda tx: tx.identities.revoke("02", 6, "again"))
            with faults(NotFound, "identity_not_found"):
                await store.transact(lambda tx: tx.identities.revoke("ff", 6, "x"))
            revoked = await store.read(lambda tx: tx.identities.revoked(valid_at_us=10))
            assert revoked == [replace(made[1], revoked_us=5, reason="stolen")]

        self.run(tmp_path, test)

    def test_a_ban_stays_until_it_is_lifted(self, tmp_path: Path) -> None:
        """Bans are kept by name, the first one holds, purging leaves them, and lifting says whether there was one."""

        async def test(store: Store) -> None:
            for ban in (Ban(_OTHER, 1, "lost"), Ban(_ONE, 2, "stolen"), Ban(_ONE, 3, "again")):
                await store.transact(lambda tx, ban=ban: tx.identities.ban(ban))  # type: ignore[misc]
            await store.transact(lambda tx: tx.identities.purge(1 << 60))
            bans = await store.read(lambda tx: tx.identities.bans())
            assert bans == [Ban(_ONE, 2, "stolen"), Ban(_OTHER, 1, "lost")]
            assert await store.read(lambda tx: tx.identities.is_banned(_ONE))
            assert await store.transact(lambda tx: tx.identities.lift(_ONE))
            assert not await store.transact(lambda tx: tx.identities.lift(_ONE))
            assert not await store.read(lambda tx: tx.identities.is_banned(_ONE))
            assert await store.read(lambda tx: tx.identities.bans()) == [Ban(_OTHER, 1, "lost")]

        self.run(tmp_path, test)

    def test_what_has_expired_is_forgotten(self, tmp_path: Path) -> None:
        """Purging takes what expired before that time and says how many; the rest stays."""

        async def test(store: Store) -> None:
            made = [sample_identity("01", not_after_us=10), sample_identity("02", not_after_us=20)]
            await store.transact(_insert(*made))
            assert await store.transact(lambda tx: tx.identities.purge(20)) == 1
            assert await store.read(lambda tx: tx.identities.page(limit=9, valid_at_us=0)) == [made[1]]

        self.run(tmp_path, test)

    def test_lists_of_revocations_are_numbered_upward(self, tmp_path: Path) -> None:
        """Each number is one greater than the last, from 1."""

        async def test(store: Store) -> None:
            assert [await store.transact(lambda tx: tx.identities.next_number()) for _ in range(3)] == [1, 2, 3]

        self.run(tmp_path, test)

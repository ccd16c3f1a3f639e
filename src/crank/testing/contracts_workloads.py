"""What every Store promises about registered workloads, as tests."""

from dataclasses import replace
from pathlib import Path

from crank.domain.identity import make_spiffe_id
from crank.domain.ids import LOCAL_TENANT
from crank.domain.workload import EntryId, WorkloadEntry, parse_selector
from crank.errors import Conflict
from crank.ports import Store, Transaction
from crank.testing.contracts_credentials import CredentialStoreContract
from crank.testing.expect import faults
from crank.testing.samples import OTHER_TENANT


def sample_entry(entry_id: str = "w-1", *, name: str = "ci", hint: str = "") -> WorkloadEntry:
    """Return a small entry."""
    return WorkloadEntry(
        EntryId(entry_id),
        LOCAL_TENANT,
        make_spiffe_id("test.internal", "agent", name),
        (parse_selector("unix:uid:1000"), parse_selector("unix:path:/usr/bin/ci")),
        created_us=5,
        hint=hint,
    )


def full_entry() -> WorkloadEntry:
    """Return an entry in which every field holds something."""
    return replace(
        sample_entry("w-full", name="full", hint="ü main"),
        ttl_sec=60,
        dns_names=("db.internal", "b"),
        federates_with=("other.example",),
    )


class WorkloadStoreContract(CredentialStoreContract):
    """The promises of `ports.Store`, those about credentials and workloads included."""

    def test_workloads_read_back_equal_in_their_order(self, tmp_path: Path) -> None:
        """One with every field and a bare one survive; a tenant sees its own, and the node all."""
        other = replace(sample_entry(), tenant=OTHER_TENANT)

        def fill(tx: Transaction) -> None:
            for entry in (sample_entry("w-9"), full_entry(), other):
                tx.workloads.insert(entry)

        def check(tx: Transaction) -> None:
            assert tx.workloads.of(LOCAL_TENANT) == [sample_entry("w-9"), full_entry()]
            assert tx.workloads.all() == [sample_entry("w-9"), full_entry(), other]

        self.write(tmp_path, fill, check=check)

    def test_a_workload_is_registered_once(self, tmp_path: Path) -> None:
        """The same identity for the same marks in any order, an id, and a hint are refused a second time."""
        first = sample_entry(hint="main")
        turned = replace(first, entry_id=EntryId("w-2"), hint="", selectors=first.selectors[::-1])

        async def test(store: Store) -> None:
            await store.transact(lambda tx: tx.workloads.insert(first))
            with faults(Conflict, "entry_taken"):
                await store.transact(lambda tx: tx.workloads.insert(turned))
            with faults(Conflict, "entry_taken"):
                await store.transact(lambda tx: tx.workloads.insert(sample_entry(name="other")))
            with faults(Conflict, "hint_taken"):
                await store.transact(lambda tx: tx.workloads.insert(sample_entry("w-2", name="b", hint="main")))
            for number in (2, 3):
                # No hint is no name, and may be had by many.
                entry = sample_entry(f"w-{number}", name=f"n{number}")
                await store.transact(lambda tx, entry=entry: tx.workloads.insert(entry))  # type: ignore[misc]
            assert len(await store.read(lambda tx: tx.workloads.of(LOCAL_TENANT))) == 3

        self.run(tmp_path, test)

    def test_a_removed_workload_is_gone(self, tmp_path: Path) -> None:
        """Removing works once, for its own tenant alone, and makes room for the same marks."""

        async def test(store: Store) -> None:
            await store.transact(lambda tx: tx.workloads.insert(sample_entry()))
            assert await store.read(lambda tx: tx.workloads.find(LOCAL_TENANT, EntryId("w-1"))) == sample_entry()
            assert await store.read(lambda tx: tx.workloads.find(OTHER_TENANT, EntryId("w-1"))) is None
            assert not await store.transact(lambda tx: tx.workloads.remove(OTHER_TENANT, EntryId("w-1")))
            assert await store.transact(lambda tx: tx.workloads.remove(LOCAL_TENANT, EntryId("w-1")))
            assert not await store.transact(lambda tx: tx.workloads.remove(LOCAL_TENANT, EntryId("w-1")))
            assert await store.read(lambda tx: tx.workloads.find(LOCAL_TENANT, EntryId("w-1"))) is None
            await store.transact(lambda tx: tx.workloads.insert(sample_entry("w-2")))
            assert await store.read(lambda tx: tx.workloads.all()) == [sample_entry("w-2")]

        self.run(tmp_path, test)

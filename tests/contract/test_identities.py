"""Both stores keep the promises of `ports.IdentityStore`."""

from pathlib import Path

from crank.adapters.failpoints import NoFailpoints
from crank.adapters.sqlite import SqliteStore
from crank.ports import Store
from crank.testing.contracts_identities import IdentityStoreContract
from crank.testing.memory import MemoryStore


class TestSqliteIdentities(IdentityStoreContract):
    """The durable store."""

    def make(self, folder: Path) -> Store:
        return SqliteStore(folder / "crank.db", failpoints=NoFailpoints())


class TestMemoryIdentities(IdentityStoreContract):
    """The one for tests."""

    def make(self, folder: Path) -> Store:
        return MemoryStore()

"""Both stores keep the promises of `ports.Store`."""

from pathlib import Path

from crank.adapters.failpoints import NoFailpoints
from crank.adapters.sqlite import SqliteStore
from crank.ports import Store
from crank.testing.contracts_calls import CallContract
from crank.testing.contracts_federation import FederationStoreContract
from crank.testing.contracts_grants import GrantStoreContract
from crank.testing.contracts_workloads import WorkloadStoreContract
from crank.testing.memory import MemoryStore


class TestSqliteStore(GrantStoreContract, CallContract, WorkloadStoreContract, FederationStoreContract):
    """The durable store."""

    def make(self, folder: Path) -> Store:
        return SqliteStore(folder / "crank.db", failpoints=NoFailpoints())


class TestMemoryStore(GrantStoreContract, CallContract, WorkloadStoreContract, FederationStoreContract):
    """The one for tests."""

    def make(self, folder: Path) -> Store:
        return MemoryStore()

"""Both stores keep the promises of `ports.EnrolmentStore`."""

from pathlib import Path

from crank.adapters.failpoints import NoFailpoints
from crank.adapters.sqlite import SqliteStore
from crank.ports import Store
from crank.testing.contracts_enrolments import EnrolmentStoreContract
from crank.testing.memory import MemoryStore


class TestSqliteEnrolments(EnrolmentStoreContract):
    """The durable store."""

    def make(self, folder: Path) -> Store:
        return SqliteStore(folder / "crank.db", failpoints=NoFailpoints())


class TestMemoryEnrolments(EnrolmentStoreContract):
    """The one for tests."""

    def make(self, folder: Path) -> Store:
        return MemoryStore()

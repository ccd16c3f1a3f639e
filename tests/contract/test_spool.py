"""Both spools keep the promises of `ports.Spool`."""

from pathlib import Path

from crank.adapters.spool import FileSpool
from crank.ports import Spool
from crank.testing.contracts_spool import SpoolContract
from crank.testing.fake_spool import MemorySpool


class TestFileSpool(SpoolContract):
    """Files on the disk."""

    def make(self, folder: Path) -> Spool:
        return FileSpool(folder / "spool")


class TestMemorySpool(SpoolContract):
    """The one for tests."""

    def make(self, folder: Path) -> Spool:
        return MemorySpool()

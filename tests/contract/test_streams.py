"""Both event logs keep the promises of `ports.StreamLog`."""

from pathlib import Path

from crank.adapters.streams import FileStreamLog
from crank.ports import StreamLog
from crank.testing.contracts_streams import StreamLogContract
from crank.testing.memory_files import MemoryStreamLog


class TestFileStreamLog(StreamLogContract):
    """Files on the disk."""

    def make(self, folder: Path) -> StreamLog:
        return FileStreamLog(folder)


class TestMemoryStreamLog(StreamLogContract):
    """The one for tests."""

    def make(self, folder: Path) -> StreamLog:
        return MemoryStreamLog()

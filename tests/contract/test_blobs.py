"""Both blob stores keep the promises of `ports.BlobStore`."""

import os
from pathlib import Path

from crank.adapters.blobs import FileBlobStore
from crank.domain.ids import Digest
from crank.ports import BlobStore
from crank.testing.contracts_blobs import BlobStoreContract
from crank.testing.fakes import FakeClock
from crank.testing.memory_files import MemoryBlobStore


class TestFileBlobStore(BlobStoreContract):
    """Files on the disk."""

    def make(self, folder: Path, *, quota_bytes: int) -> BlobStore:
        return FileBlobStore(folder / "blobs", quota_bytes=quota_bytes)

    def age(self, folder: Path, store: BlobStore, digest: Digest, seconds: float) -> None:
        path = folder / "blobs" / digest[:2] / digest
        written_sec = path.stat().st_mtime - seconds
        os.utime(path, (written_sec, written_sec))


class TestMemoryBlobStore(BlobStoreContract):
    """The one for tests."""

    def make(self, folder: Path, *, quota_bytes: int) -> BlobStore:
        self.clock = FakeClock()
        return MemoryBlobStore(quota_bytes=quota_bytes, now_us=self.clock.now_us)

    def age(self, folder: Path, store: BlobStore, digest: Digest, seconds: float) -> None:
        with store.open(digest) as source:
            octets = source
            self.clock.jump_wall(-seconds)
            store.put(octets, expected=digest, bytes_max=1_000)
            self.clock.jump_wall(seconds)

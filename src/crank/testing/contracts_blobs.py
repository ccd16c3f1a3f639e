"""The promises of `ports.BlobStore` as tests. Subclass and say how a store is made and how a blob ages."""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from crank.domain.ids import Digest
from crank.errors import InvalidRequest, NotFound, TooLarge, Unavailable
from crank.ports import BlobStore
from crank.testing.expect import faults

_QUOTA_BYTES = 1_000


def digest_of(octets: bytes) -> Digest:
    """Return the name that a blob of these bytes has."""
    return Digest(hashlib.sha256(octets).hexdigest())


class _Broken(io.RawIOBase):
    """A source whose sender goes away in the middle."""

    def __init__(self) -> None:
        self._first = True

    def read(self, size: int = -1) -> bytes:
        if self._first:
            self._first = False
            return b"half"
        raise ConnectionResetError("gone")


class BlobStoreContract:
    """What every BlobStore promises."""

    def make(self, folder: Path, *, quota_bytes: int) -> BlobStore:
        """Return an empty store."""
        raise NotImplementedError

    def age(self, folder: Path, store: BlobStore, digest: Digest, seconds: float) -> None:
        """Make a blob look as if it was written that long ago."""
        raise NotImplementedError

    def fresh(self, folder: Path) -> BlobStore:
        """Return an empty store with a small quota."""
        return self.make(folder, quota_bytes=_QUOTA_BYTES)

    def assert_empty(self, store: BlobStore) -> None:
        """Show that nothing is kept and the whole quota is free."""
        octets = b"q" * _QUOTA_BYTES
        assert store.put(io.BytesIO(octets), expected=None, bytes_max=_QUOTA_BYTES)[1] == _QUOTA_BYTES

    def test_a_blob_reads_back(self, tmp_path: Path) -> None:
        """Bytes, an empty blob too, are found by their digest with their size."""
        store = self.fresh(tmp_path)
        for octets in (b"hello\x00", b""):
            digest = digest_of(octets)
            assert store.put(io.BytesIO(octets), expected=digest, bytes_max=10) == (digest, len(octets))
            assert store.size(digest) == len(octets)
            with store.open(digest) as source:
                assert source.read() == octets

    def test_what_is_absent_is_said(self, tmp_path: Path) -> None:
        """An unknown digest is not found, has no size, and can be removed without harm."""
        store = self.fresh(tmp_path)
        with faults(NotFound):
            store.open(digest_of(b"nothing"))
        assert store.size(digest_of(b"nothing")) is None
        store.remove(digest_of(b"nothing"))

    def test_a_name_that_is_no_digest_is_refused(self, tmp_path: Path) -> None:
        """A forged digest cannot become a path."""
        store = self.fresh(tmp_path)
        with faults(InvalidRequest, "invalid_digest"):
            store.open(Digest("../" * 20 + "etc"))

    def test_other_bytes_than_said_are_refused(self, tmp_path: Path) -> None:
        """A wrong digest is refused whether the named blob exists or not, and nothing is kept."""
        store = self.fresh(tmp_path)
        with faults(InvalidRequest, "digest_mismatch"):
            store.put(io.BytesIO(b"a"), expected=digest_of(b"b"), bytes_max=10)
        store.put(io.BytesIO(b"b"), expected=None, bytes_max=10)
        with faults(InvalidRequest, "digest_mismatch"):
            store.put(io.BytesIO(b"a"), expected=digest_of(b"b"), bytes_max=10)
        assert store.size(digest_of(b"a")) is None
        with store.open(digest_of(b"b")) as source:
            assert source.read() == b"b"

    def test_too_large_leaves_nothing(self, tmp_path: Path) -> None:
        """One byte over the limit is refused, and its bytes are not counted."""
        store = self.fresh(tmp_path)
        with faults(TooLarge):
            store.put(io.BytesIO(b"x" * 11), expected=None, bytes_max=10)
        self.assert_empty(store)

    def test_the_quota_holds_and_is_given_back(self, tmp_path: Path) -> None:
        """Over the quota nothing is kept; removing a blob makes room; the same blob twice counts once."""
        store = self.fresh(tmp_path)
        first = b"1" * 600
        store.put(io.BytesIO(first), expected=None, bytes_max=1_000)
        for _ in range(3):
            store.put(io.BytesIO(first), expected=digest_of(first), bytes_max=1_000)
        with faults(Unavailable, "quota_exceeded"):
            store.put(io.BytesIO(b"2" * 600), expected=None, bytes_max=1_000)
        assert store.size(digest_of(b"2" * 600)) is None
        store.remove(digest_of(first))
        store.remove(digest_of(first))
        self.assert_empty(store)

    def test_a_sender_that_goes_away_leaves_nothing(self, tmp_path: Path) -> None:
        """The sender's own fault comes through, and the quota is free again."""
        store = self.fresh(tmp_path)
        try:
            store.put(_Broken(), expected=None, bytes_max=100)  # type: ignore[arg-type]
        except ConnectionResetError:
            self.assert_empty(store)
        else:
            raise AssertionError("the sender's fault was swallowed")

    def test_garbage_is_found_by_age(self, tmp_path: Path) -> None:
        """Only blobs written long enough ago are listed; one that is put again is young again."""
        store = self.fresh(tmp_path)
        for octets in (b"old", b"young", b"wanted"):
            store.put(io.BytesIO(octets), expected=None, bytes_max=10)
        self.age(tmp_path, store, digest_of(b"old"), 7_200)
        self.age(tmp_path, store, digest_of(b"wanted"), 9_000)
        assert store.older_than(3_600) == [digest_of(b"wanted"), digest_of(b"old")]
        store.put(io.BytesIO(b"wanted"), expected=digest_of(b"wanted"), bytes_max=10)
        assert store.older_than(3_600) == [digest_of(b"old")]

    def test_many_threads_at_once(self, tmp_path: Path) -> None:
        """Forty puts of ten blobs on eight threads store each once and count each once."""
        # Copies that are being written count until one of them is kept: eight at most beside the ten.
        store = self.make(tmp_path, quota_bytes=180_000)

        def put(number: int) -> Digest:
            octets = bytes([number % 10]) * 10_000
            return store.put(io.BytesIO(octets), expected=None, bytes_max=10_000)[0]

        with ThreadPoolExecutor(8) as threads:
            digests = set(threads.map(put, range(40), timeout=60))
        assert len(digests) == 10
        store.put(io.BytesIO(b"z" * 80_000), expected=None, bytes_max=80_000)
        with faults(Unavailable, "quota_exceeded"):
            store.put(io.BytesIO(b"y"), expected=None, bytes_max=10)

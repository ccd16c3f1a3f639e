"""Blobs as files: rights, links, leftovers, a full disk, and counting after a restart."""

import io
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crank.adapters.blobs import FileBlobStore
from crank.errors import NotFound, StoreError, Unavailable
from crank.testing.contracts_blobs import digest_of


@contextmanager
def _files_at_most(size_bytes: int) -> Iterator[None]:
    """Let the kernel refuse longer files, as a full disk or a quota does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """When the kernel refuses to write, the caller hears `disk_full`, no file is left and no byte is counted."""
    store = FileBlobStore(tmp_path, quota_bytes=10**9)
    with _files_at_most(100_000), pytest.raises(Unavailable) as caught:
        store.put(io.BytesIO(b"x" * 300_000), expected=None, bytes_max=10**6)
    assert caught.value.error_code == "disk_full"
    assert _files(tmp_path) == []
    assert store.used_bytes == 0


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    """Folders are 0700 and files 0600."""
    store = FileBlobStore(tmp_path / "blobs", quota_bytes=100)
    store.put(io.BytesIO(b"x"), expected=None, bytes_max=10)
    for path in [tmp_path / "blobs", *(tmp_path / "blobs").rglob("*")]:
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_links_are_never_followed(tmp_path: Path) -> None:
    """A link in the place of a blob, or of its folder, is no blob."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    store = FileBlobStore(tmp_path / "blobs", quota_bytes=100)
    digest = digest_of(b"a")
    folder = tmp_path / "blobs" / digest[:2]
    folder.mkdir()
    (folder / digest).symlink_to(secret)
    with pytest.raises(NotFound):
        store.open(digest)
    assert store.size(digest) is None
    store.put(io.BytesIO(b"a"), expected=digest, bytes_max=10)
    with store.open(digest) as source:
        assert source.read() == b"a"
    assert secret.read_bytes() == b"secret"
    elsewhere = digest_of(b"b")
    (tmp_path / "blobs" / elsewhere[:2]).symlink_to(tmp_path)
    with pytest.raises(NotFound):
        store.open(elsewhere)


def test_a_fifo_is_no_blob(tmp_path: Path) -> None:
    """Opening never hangs on something that is not a file."""
    store = FileBlobStore(tmp_path, quota_bytes=100)
    digest = digest_of(b"a")
    (tmp_path / digest[:2]).mkdir()
    os.mkfifo(tmp_path / digest[:2] / digest)
    with pytest.raises(NotFound):
        store.open(digest)


def test_a_restart_removes_leftovers_and_counts_again(tmp_path: Path) -> None:
    """What a crash left half written is removed; what was stored is counted."""
    store = FileBlobStore(tmp_path, quota_bytes=100)
    store.put(io.BytesIO(b"x" * 60), expected=None, bytes_max=100)
    (tmp_path / "unfinished" / "left").write_bytes(b"y" * 50)
    again = FileBlobStore(tmp_path, quota_bytes=100)
    assert again.used_bytes == 60
    assert len(_files(tmp_path)) == 1
    with pytest.raises(Unavailable):
        again.put(io.BytesIO(b"z" * 50), expected=None, bytes_max=100)


def test_a_known_blob_is_not_written_again(tmp_path: Path) -> None:
    """A put of what is there needs no room at all, yet its bytes are checked."""
    store = FileBlobStore(tmp_path, quota_bytes=10**6)
    octets = b"x" * 300_000
    digest, _ = store.put(io.BytesIO(octets), expected=None, bytes_max=10**6)
    with _files_at_most(0):
        assert store.put(io.BytesIO(octets), expected=digest, bytes_max=10**6) == (digest, 300_000)


def test_an_open_blob_outlives_its_removal(tmp_path: Path) -> None:
    """Who opened a blob reads it to its end although retention took it away meanwhile."""
    store = FileBlobStore(tmp_path, quota_bytes=100)
    digest, _ = store.put(io.BytesIO(b"kept"), expected=None, bytes_max=100)
    with store.open(digest) as source:
        store.remove(digest)
        assert source.read() == b"kept"
    assert store.used_bytes == 0


def test_other_faults_of_the_disk_are_said(tmp_path: Path) -> None:
    """A folder that vanished is a fault of the store, not of the caller."""
    store = FileBlobStore(tmp_path, quota_bytes=100)
    (tmp_path / "unfinished").rmdir()
    with pytest.raises(StoreError):
        store.put(io.BytesIO(b"x"), expected=None, bytes_max=10)

"""Content-addressed files: a blob is visible under its SHA-256 only when all of it is on the disk."""

import errno
import hashlib
import os
import stat
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from crank.domain.ids import Digest, parse_digest
from crank.errors import InvalidRequest, NotFound, StoreError, TooLarge, Unavailable

_CHUNK_BYTES = 256 * 1024
_OWNER_ONLY_FOLDER = 0o700
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_UNFINISHED = "unfinished"


class FileBlobStore:
    """Blobs in `root/<first two digits>/<digest>`, at most `quota_bytes` together.

    The folder belongs to one process at a time: what an earlier one left unfinished is removed at
    the start. Safe to share between threads.
    """

    def __init__(self, root: Path, *, quota_bytes: int) -> None:
        self._root = root
        self._quota_bytes = quota_bytes
        self._lock = threading.Lock()
        self._temp = root / _UNFINISHED
        root.mkdir(mode=_OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
        self._temp.mkdir(mode=_OWNER_ONLY_FOLDER, exist_ok=True)
        for leftover in self._temp.iterdir():
            leftover.unlink()
        self._used_bytes = sum(entry.stat(follow_symlinks=False).st_size for entry in self._entries())

    @property
    def used_bytes(self) -> int:
        """Return how many bytes the blobs take, those being written included."""
        return self._used_bytes

    def put(self, source: BinaryIO, *, expected: Digest | None, bytes_max: int) -> tuple[Digest, int]:
        """Store a stream durably and return (digest, size).

        One that is there already is read and checked, not written. Raises InvalidRequest
        (`digest_mismatch`), TooLarge, Unavailable (`disk_full`, `quota_exceeded`), StoreError; leaves
        nothing behind then.
        """
        if expected is not None and self._refresh(parse_digest(expected)):
            digest, size_bytes = self._read_through(source, None, bytes_max)
            _check_expected(digest, expected)
            return digest, size_bytes
        with self._reservation() as reserved:
            with _disk_faults():
                descriptor, name = tempfile.mkstemp(dir=self._temp)
            try:
                digest, size_bytes = self._read_through(source, descriptor, bytes_max, reserved)
                if expected is not None:
                    _check_expected(digest, expected)
                with _disk_faults():
                    os.fsync(descriptor)
                    self._publish(Path(name), digest, reserved)
            finally:
                os.close(descriptor)
                Path(name).unlink(missing_ok=True)
        return digest, size_bytes

    def _read_through(
        self, source: BinaryIO, target: int | None, bytes_max: int, reserved: "_Reservation | None" = None
    ) -> tuple[Digest, int]:
        hashing = hashlib.sha256()
        size_bytes = 0
        while chunk := source.read(_CHUNK_BYTES):
            size_bytes += len(chunk)
            if size_bytes > bytes_max:
                raise TooLarge(f"The blob is larger than {bytes_max} bytes.", code="blob_too_large")
            if reserved is not None:
                self._reserve(reserved, len(chunk))
            hashing.update(chunk)
            if target is not None:
                with _disk_faults():
                    _write_all(target, chunk)
        return Digest(hashing.hexdigest()), size_bytes

    def _reserve(self, reserved: "_Reservation", wanted_bytes: int) -> None:
        with self._lock:
            if self._used_bytes + wanted_bytes > self._quota_bytes:
                raise Unavailable(
                    f"The node's blobs would take more than {self._quota_bytes} bytes.",
                    code="quota_exceeded",
                    fix="Wait until old jobs are forgotten, or raise the quota.",
                    retry_after_sec=60,
                )
            self._used_bytes += wanted_bytes
            reserved.held_bytes += wanted_bytes

    @contextmanager
    def _reservation(self) -> Iterator["_Reservation"]:
        reserved = _Reservation()
        try:
            yield reserved
        finally:
            with self._lock:
                self._used_bytes -= reserved.held_bytes

    def _publish(self, written: Path, digest: Digest, reserved: "_Reservation") -> None:
        folder = self._root / digest[:2]
        with self._lock:
            if self._refresh(digest):
                return
            if not folder.is_dir():
                folder.mkdir(mode=_OWNER_ONLY_FOLDER)
                _sync_folder(self._root)
            os.rename(written, folder / digest)
            # From here on the bytes are counted as stored, not as reserved.
            reserved.held_bytes = 0
        _sync_folder(folder)

    def _refresh(self, digest: Digest) -> bool:
        """Tell whether the blob is there; one that is wanted again counts as written now."""
        path = self._root / digest[:2] / digest
        try:
            os.utime(path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_ISREG(os.lstat(path).st_mode)

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob to read; no link is followed. Raises NotFound."""
        try:
            folder = os.open(
                self._root / parse_digest(digest)[:2], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            )
            try:
                descriptor = os.open(digest, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            finally:
                os.close(folder)
        except OSError as fault:
            if fault.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
                raise _absent(digest) from fault
            raise StoreError(f"A blob cannot be read: {fault.strerror}.", code="blob_unreadable") from fault
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _absent(digest)
        return os.fdopen(descriptor, "rb")

    def size(self, digest: Digest) -> int | None:
        """Return the size in bytes, or None when there is no such blob."""
        try:
            found = os.lstat(self._root / parse_digest(digest)[:2] / digest)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def remove(self, digest: Digest) -> None:
        """Remove a blob; doing it twice changes nothing. One that is open can be read to its end."""
        with self._lock:
            size_bytes = self.size(digest)
            if size_bytes is None:
                return
            os.unlink(self._root / digest[:2] / digest)
            self._used_bytes -= size_bytes

    def older_than(self, age_sec: float) -> Sequence[Digest]:
        """Return blobs last written (or wanted again) longer ago than that, oldest first."""
        latest = self._now_sec() - age_sec
        aged = ((entry.stat(follow_symlinks=False).st_mtime, Digest(entry.name)) for entry in self._entries())
        return [digest for written_sec, digest in sorted(aged) if written_sec < latest]

    def _now_sec(self) -> float:
        # The disk's own clock wrote the times that this is compared with.
        with tempfile.TemporaryFile(dir=self._temp) as probe:
            return os.fstat(probe.fileno()).st_mtime

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        for folder in os.scandir(self._root):
            if folder.name == _UNFINISHED or not folder.is_dir(follow_symlinks=False):
                continue
            for entry in os.scandir(folder.path):
                if entry.is_file(follow_symlinks=False):
                    yield entry


class _Reservation:
    """Bytes that one put holds of the quota and gives back unless they became a blob."""

    def __init__(self) -> None:
        self.held_bytes = 0


def _check_expected(digest: Digest, expected: Digest) -> None:
    if digest != expected:
        raise InvalidRequest(
            f"The bytes have the SHA-256 {digest}, not the one that was said.",
            code="digest_mismatch",
            field="sha256",
            fix="Send the bytes again, or name them by their own SHA-256.",
        )


def _absent(digest: Digest) -> NotFound:
    return NotFound(f"There is no blob {digest}.", code="blob_not_found")


@contextmanager
def _disk_faults() -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        if fault.errno in _DISK_FULL:
            raise Unavailable(
                "The disk that holds the node's files is full; nothing was stored.",
                code="disk_full",
                fix="Free space on that disk; the node goes on by itself.",
                detail=repr(fault),
                retry_after_sec=30,
            ) from fault
        raise StoreError(f"A blob cannot be stored: {fault.strerror}.", code="blob_unwritable") from fault


def _write_all(descriptor: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

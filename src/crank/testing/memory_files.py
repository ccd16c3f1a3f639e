"""Blobs and streams that live in memory, with the same promises as the durable ones except durability."""

import hashlib
import io
import threading
from collections.abc import Callable, Sequence
from typing import BinaryIO

from crank.adapters.clock import SystemClock
from crank.domain.ids import Digest, JobId, parse_digest
from crank.errors import InvalidRequest, NotFound, TooLarge, Unavailable
from crank.wire import JobEvent


class MemoryBlobStore:
    """`ports.BlobStore` in memory."""

    def __init__(self, *, quota_bytes: int = 1 << 40, now_us: Callable[[], int] | None = None) -> None:
        self._quota_bytes = quota_bytes
        self._now_us = now_us or SystemClock().now_us
        self._lock = threading.Lock()
        self._blobs: dict[Digest, bytes] = {}
        self._written_us: dict[Digest, int] = {}

    def put(self, source: BinaryIO, *, expected: Digest | None, bytes_max: int) -> tuple[Digest, int]:
        """Keep a stream. Raises InvalidRequest (`digest_mismatch`), TooLarge, Unavailable (`quota_exceeded`)."""
        octets = b""
        while chunk := source.read(64 * 1024):
            octets += chunk
            if len(octets) > bytes_max:
                raise TooLarge(f"The blob is larger than {bytes_max} bytes.", code="blob_too_large")
        digest = Digest(hashlib.sha256(octets).hexdigest())
        if expected is not None and digest != expected:
            raise InvalidRequest("The bytes have another SHA-256.", code="digest_mismatch", field="sha256")
        with self._lock:
            used_bytes = sum(len(blob) for blob in self._blobs.values())
            if digest not in self._blobs and used_bytes + len(octets) > self._quota_bytes:
                raise Unavailable("The blobs would take more than their quota.", code="quota_exceeded")
            self._blobs[digest] = octets
            self._written_us[digest] = self._now_us()
        return digest, len(octets)

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob to read. Raises NotFound."""
        octets = self._blobs.get(parse_digest(digest))
        if octets is None:
            raise NotFound(f"There is no blob {digest}.", code="blob_not_found")
        return io.BytesIO(octets)

    def size(self, digest: Digest) -> int | None:
        """Return the size in bytes, or None when there is no such blob."""
        octets = self._blobs.get(parse_digest(digest))
        return None if octets is None else len(octets)

    def remove(self, digest: Digest) -> None:
        """Remove a blob; doing it twice changes nothing."""
        with self._lock:
            self._blobs.pop(digest, None)
            self._written_us.pop(digest, None)

    def older_than(self, age_sec: float) -> Sequence[Digest]:
        """Return blobs last written longer ago than that, oldest first."""
        latest_us = self._now_us() - round(age_sec * 1_000_000)
        aged = sorted((written, digest) for digest, written in self._written_us.items())
        return [digest for written, digest in aged if written < latest_us]


class MemoryStreamLog:
    """`ports.StreamLog` in memory, without a bound."""

    def __init__(self) -> None:
        self._events: dict[JobId, list[JobEvent]] = {}

    async def append(self, job_id: JobId, events: Sequence[JobEvent]) -> int:
        """Add events and return the last position."""
        log = self._events.setdefault(job_id, [])
        log.extend(events)
        return len(log)

    async def read(self, job_id: JobId, after: int, limit: int) -> Sequence[tuple[int, JobEvent]]:
        """Return at most `limit` events after a position."""
        after = max(0, after)
        found = self._events.get(job_id, [])[after : after + max(0, limit)]
        return list(enumerate(found, start=after + 1))

    async def remove(self, job_id: JobId) -> None:
        """Forget the job's events; doing it twice changes nothing."""
        self._events.pop(job_id, None)

"""What jobs print while they run: one append-only NDJSON file a job, read back by position.

Events are not flushed to the disk one by one: a crash of the process loses none, a loss of power may
lose the last ones, and the outcome (which is durable) holds the output that counts.
"""

import asyncio
import errno
import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from crank.domain.ids import JobId
from crank.domain.quantity import MIB
from crank.errors import StoreError, Unavailable
from crank.wire import JobEvent

JOB_BYTES_MAX = 64 * MIB
_INDEXES_MAX = 512
_MARK_EVERY = 128
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FULL_TEXT = "The event log of this job is full; later output is not kept here."


@dataclass(slots=True)
class _Index:
    """What is known of one file: how far it is sound, and where every 128th event starts."""

    count: int = 0
    size_bytes: int = 0
    full: bool = False
    marks: list[int] = field(default_factory=list)

    def add(self, line_bytes: int) -> None:
        if self.count % _MARK_EVERY == 0:
            self.marks.append(self.size_bytes)
        self.count += 1
        self.size_bytes += line_bytes


class FileStreamLog:
    """Events under `root`, at most `bytes_max` a job; when that is reached one last event says so.

    Files are named by a hash of the job's id, so that no id can act as a path. Safe between threads.
    """

    def __init__(self, root: Path, *, bytes_max: int = JOB_BYTES_MAX) -> None:
        self._root = root
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._indexes: OrderedDict[JobId, _Index] = OrderedDict()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def append(self, job_id: JobId, events: Sequence[JobEvent]) -> int:
        """Add events and return the last position; 0 when there is none. Raises Unavailable (`disk_full`)."""
        return await asyncio.to_thread(self._append, job_id, events)

    async def read(self, job_id: JobId, after: int, limit: int) -> Sequence[tuple[int, JobEvent]]:
        """Return at most `limit` events after a position."""
        return await asyncio.to_thread(self._read, job_id, after, limit)

    async def remove(self, job_id: JobId) -> None:
        """Forget the job's events; doing it twice changes nothing."""
        await asyncio.to_thread(self._remove, job_id)

    def _path(self, job_id: JobId) -> Path:
        name = hashlib.sha256(job_id.encode()).hexdigest()
        return self._root / name[:2] / f"{name}.ndjson"

    def _append(self, job_id: JobId, events: Sequence[JobEvent]) -> int:
        path = self._path(job_id)
        with self._lock:
            index = self._index(job_id, path)
            lines = self._fitting(index, events)
            if not lines:
                return index.count
            try:
                self._write(path, index, b"".join(lines))
            except OSError as fault:
                # The next use reads the file again and cuts off whatever was half written.
                self._indexes.pop(job_id, None)
                raise _fault(fault) from fault
            for line in lines:
                index.add(len(line))
            return index.count

    def _fitting(self, index: _Index, events: Sequence[JobEvent]) -> list[bytes]:
        lines: list[bytes] = []
        room_bytes = self._bytes_max - index.size_bytes
        for event in events:
            if index.full:
                break
            line = _encode(event)
            room_bytes -= len(line)
            if room_bytes < 0:
                last = JobEvent(event.epoch, event.seq, "progress", _FULL_TEXT, event.offset_bytes, None, event.at_ms)
                line, index.full = _encode(last), True
            lines.append(line)
        return lines

    def _write(self, path: Path, index: _Index, octets: bytes) -> None:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            # Cuts a line that a crash or a full disk left torn.
            if os.fstat(descriptor).st_size != index.size_bytes:
                os.ftruncate(descriptor, index.size_bytes)
            written = 0
            while written < len(octets):
                written += os.pwrite(descriptor, octets[written:], index.size_bytes + written)
        finally:
            os.close(descriptor)

    def _read(self, job_id: JobId, after: int, limit: int) -> Sequence[tuple[int, JobEvent]]:
        path = self._path(job_id)
        after = max(0, after)
        try:
            with self._lock:
                index = self._index(job_id, path)
                if after >= index.count or limit <= 0:
                    return []
                start = index.marks[after // _MARK_EVERY]
                skip = after % _MARK_EVERY
                wanted = min(limit, index.count - after)
                # Opened inside the lock; what it reads was complete by then and never changes.
                source = open(path, "rb")  # noqa: SIM115 - closed below, outside the lock
        except OSError as fault:
            raise _fault(fault) from fault
        with source:
            source.seek(start)
            for _ in range(skip):
                source.readline()
            return [(after + number, _decode(source.readline())) for number in range(1, wanted + 1)]

    def _remove(self, job_id: JobId) -> None:
        with self._lock:
            self._indexes.pop(job_id, None)
            self._path(job_id).unlink(missing_ok=True)

    def _index(self, job_id: JobId, path: Path) -> _Index:
        """Return what is known of the file, reading it when this process has not; the lock is held."""
        index = self._indexes.get(job_id)
        if index is None:
            try:
                index = _scan(path)
            except OSError as fault:
                raise _fault(fault) from fault
            self._indexes[job_id] = index
        self._indexes.move_to_end(job_id)
        while len(self._indexes) > _INDEXES_MAX:
            self._indexes.popitem(last=False)
        return index


def _scan(path: Path) -> _Index:
    """Count the events up to the first line that is torn or broken: nothing after it can be trusted."""
    index = _Index()
    try:
        source = open(path, "rb")  # noqa: SIM115 - closed by the statement below
    except FileNotFoundError:
        return index
    with source:
        for line in source:
            try:
                event = _decode(line) if line.endswith(b"\n") else None
            except StoreError:
                event = None
            if event is None:
                break
            index.add(len(line))
            index.full = event.kind == "progress" and event.text == _FULL_TEXT
    return index


def _encode(event: JobEvent) -> bytes:
    # ASCII: a lone surrogate that a job printed must not stop its log.
    return json.dumps(asdict(event), separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def _decode(line: bytes) -> JobEvent:
    try:
        body: dict[str, Any] = json.loads(line)
        return JobEvent(**body)
    except (ValueError, TypeError) as fault:
        raise StoreError("A stored event cannot be read.", code="stream_corrupt") from fault


def _fault(fault: OSError) -> Unavailable | StoreError:
    if fault.errno in _DISK_FULL:
        return Unavailable(
            "The disk that holds the node's files is full; the output was not stored.",
            code="disk_full",
            fix="Free space on that disk; the node goes on by itself.",
            detail=repr(fault),
            retry_after_sec=30,
        )
    return StoreError(f"A job's events cannot be stored: {fault.strerror}.", code="stream_unusable", detail=repr(fault))

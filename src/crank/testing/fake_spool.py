"""A spool in memory. It outlives the worker object, as a disk would, so that a restart can be played."""

import hashlib
import io
import json
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from crank.domain.ids import Digest, JobId
from crank.domain.json import JsonObject, dumps
from crank.errors import NotFound
from crank.ports import Spooled


@dataclass(slots=True)
class _Notes:
    outcome: str | None = None
    blobs: dict[Digest, bytes] = field(default_factory=dict)


class MemorySpool:
    """The Spool port on a dictionary. Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._notes: dict[tuple[JobId, int], _Notes] = {}

    def begin(self, job_id: JobId, epoch: int) -> None:
        """Note that code of this attempt is about to run."""
        with self._lock:
            self._notes.setdefault((job_id, epoch), _Notes())

    def finish(self, job_id: JobId, epoch: int, outcome: JsonObject) -> None:
        """Keep the outcome's document."""
        with self._lock:
            self._notes.setdefault((job_id, epoch), _Notes()).outcome = dumps(outcome)

    def outcome(self, job_id: JobId, epoch: int) -> JsonObject | None:
        """Return the outcome's document, or None while there is none."""
        with self._lock:
            notes = self._notes.get((job_id, epoch))
            if notes is None or notes.outcome is None:
                return None
            return cast(JsonObject, json.loads(notes.outcome))

    def attempts(self) -> Sequence[Spooled]:
        """Return every attempt that was begun and not forgotten."""
        with self._lock:
            return [Spooled(*key, notes.outcome is not None) for key, notes in sorted(self._notes.items())]

    def scratch(self) -> BinaryIO:
        """Open a nameless temporary file."""
        return cast(BinaryIO, tempfile.TemporaryFile())

    def put_blob(self, job_id: JobId, epoch: int, source: BinaryIO) -> Digest:
        """Keep a file of the attempt and return its SHA-256."""
        content = source.read()
        digest = Digest(hashlib.sha256(content).hexdigest())
        with self._lock:
            self._notes.setdefault((job_id, epoch), _Notes()).blobs[digest] = content
        return digest

    def open_blob(self, job_id: JobId, epoch: int, digest: Digest) -> BinaryIO:
        """Open a kept file. Raises NotFound."""
        with self._lock:
            notes = self._notes.get((job_id, epoch))
            if notes is None or digest not in notes.blobs:
                raise NotFound(f"The spool has no file {digest} of job {job_id}.")
            return io.BytesIO(notes.blobs[digest])

    def forget(self, job_id: JobId, epoch: int) -> None:
        """Forget an attempt with its files."""
        with self._lock:
            self._notes.pop((job_id, epoch), None)

"""What a worker must not forget between the end of a job and the word that it is durable."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from crank.domain.ids import Digest, JobId
from crank.domain.json import JsonObject


@dataclass(frozen=True, slots=True)
class Spooled:
    """An attempt that a worker noted durably; `finished` when its outcome is kept too."""

    job_id: JobId
    epoch: int
    finished: bool


class Spool(Protocol):
    """A worker's durable notes about its attempts. What returned survives the loss of process and power.

    Of kept files only `finish` says so, for all that were kept before it: until then nobody is told of them.

    Every method blocks: call it in a thread. All raise Unavailable (`disk_full`, `spool_failed`).
    """

    def begin(self, job_id: JobId, epoch: int) -> None:
        """Note that code of this attempt is about to run; doing it twice changes nothing."""
        ...

    def finish(self, job_id: JobId, epoch: int, outcome: JsonObject) -> None:
        """Keep the outcome's document; begins the attempt when it was not begun."""
        ...

    def outcome(self, job_id: JobId, epoch: int) -> JsonObject | None:
        """Return the outcome's document, or None while there is none."""
        ...

    def attempts(self) -> Sequence[Spooled]:
        """Return every attempt that was begun and not forgotten."""
        ...

    def scratch(self) -> BinaryIO:
        """Open a nameless temporary file to write and read; closing it removes it."""
        ...

    def put_blob(self, job_id: JobId, epoch: int, source: BinaryIO) -> Digest:
        """Keep a file of the attempt and return its SHA-256."""
        ...

    def open_blob(self, job_id: JobId, epoch: int, digest: Digest) -> BinaryIO:
        """Open a kept file. Raises NotFound."""
        ...

    def forget(self, job_id: JobId, epoch: int) -> None:
        """Forget an attempt with its files; doing it twice changes nothing."""
        ...

"""A worker's spool on disk: one folder an attempt, written so that a loss of power leaves whole notes.

<root>/<job id>@<epoch>/               the note that code of this attempt is about to run
                       /outcome.json   appears by rename, after its bytes are on disk
                       /blobs/<sha256> appears by rename, too; all their names are on disk before the outcome is
      /gone/                           what is being removed

A step that somebody relies on costs as few flushes of the disk as it can: one to begin, two to finish, and where
files are kept one for each content and one for all their names. Forgetting costs none: what comes back after a
loss of power is told once more, and the controller knows that it is settled.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import BinaryIO, cast

from crank.domain.ids import Digest, JobId, parse_job_id
from crank.domain.json import JsonObject, dumps
from crank.errors import InvalidRequest, NotFound, Unavailable
from crank.ports import Spooled

_CHUNK_BYTES = 1024 * 1024
_OUTCOME = "outcome.json"


class FileSpool:
    """The Spool port on a folder that only this worker writes to."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._gone = root / "gone"
        with _faults():
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            (root / "scratch").mkdir(exist_ok=True, mode=0o700)
            shutil.rmtree(self._gone, ignore_errors=True)
            self._gone.mkdir(mode=0o700, exist_ok=True)

    def begin(self, job_id: JobId, epoch: int) -> None:
        """Note that code of this attempt is about to run."""
        with _faults():
            self._begin(self._folder(job_id, epoch))

    def finish(self, job_id: JobId, epoch: int, outcome: JsonObject) -> None:
        """Keep the outcome's document, whole or not at all."""
        folder = self._folder(job_id, epoch)
        with _faults():
            self._begin(folder)
            with suppress(FileNotFoundError):
                # Once for all files that were kept, and before there is an outcome that names them.
                _sync_folder(folder / "blobs")
            _write_whole(folder / _OUTCOME, dumps(outcome).encode())

    def outcome(self, job_id: JobId, epoch: int) -> JsonObject | None:
        """Return the outcome's document, or None while there is none."""
        with _faults():
            try:
                raw = (self._folder(job_id, epoch) / _OUTCOME).read_bytes()
            except FileNotFoundError:
                return None
        return cast(JsonObject, json.loads(raw))

    def attempts(self) -> Sequence[Spooled]:
        """Return every attempt that was begun and not forgotten, ordered by name."""
        found = []
        with _faults():
            for folder in sorted(self._root.iterdir()):
                name, _, epoch = folder.name.rpartition("@")
                if _is_attempt(name, epoch):
                    found.append(Spooled(JobId(name), int(epoch), (folder / _OUTCOME).is_file()))
        return found

    def scratch(self) -> BinaryIO:
        """Open a nameless temporary file in the spool's own file system."""
        with _faults():
            return cast(BinaryIO, tempfile.TemporaryFile(dir=self._root / "scratch"))

    def put_blob(self, job_id: JobId, epoch: int, source: BinaryIO) -> Digest:
        """Keep a file of the attempt and return its SHA-256; its bytes are on disk then, its name is when it is finished."""
        blobs = self._folder(job_id, epoch) / "blobs"
        with _faults():
            self._begin(blobs.parent)
            blobs.mkdir(exist_ok=True, mode=0o700)
            hasher = hashlib.sha256()
            with tempfile.NamedTemporaryFile(dir=blobs, delete=False) as target:
                try:
                    while chunk := source.read(_CHUNK_BYTES):
                        hasher.update(chunk)
                        target.write(chunk)
                    target.flush()
                    kept = blobs / hasher.hexdigest()
                    if kept.exists():
                        # A file has its name only once its bytes are on disk.
                        os.unlink(target.name)
                    else:
                        os.fsync(target.fileno())
                        os.replace(target.name, kept)
                except BaseException:
                    Path(target.name).unlink(missing_ok=True)
                    raise
        return Digest(hasher.hexdigest())

    def open_blob(self, job_id: JobId, epoch: int, digest: Digest) -> BinaryIO:
        """Open a kept file. Raises NotFound."""
        with _faults():
            try:
                return (self._folder(job_id, epoch) / "blobs" / digest).open("rb")
            except FileNotFoundError as fault:
                raise NotFound(f"The spool has no file {digest} of job {job_id}.") from fault

    def forget(self, job_id: JobId, epoch: int) -> None:
        """Forget an attempt with its files: its name goes first, so a cut leaves no half of one."""
        folder = self._folder(job_id, epoch)
        gone = self._gone / folder.name
        with _faults():
            try:
                folder.rename(gone)
            except FileNotFoundError:
                return
            shutil.rmtree(gone)

    def _folder(self, job_id: JobId, epoch: int) -> Path:
        return self._root / f"{parse_job_id(job_id)}@{epoch}"

    def _begin(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            return
        _sync_folder(self._root)


def _is_attempt(name: str, epoch: str) -> bool:
    try:
        parse_job_id(name)
    except InvalidRequest:
        return False
    return epoch.isdecimal()


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as target:
        target.write(content)
        target.flush()
        os.fsync(target.fileno())
    os.replace(partial, path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        code = "disk_full" if fault.errno in (ENOSPC, EDQUOT) else "spool_failed"
        raise Unavailable(
            f"The worker cannot write its notes: {fault.strerror}.",
            code=code,
            fix="Free space on the disk of the worker's folder, or correct its owner and mode.",
            detail=str(fault),
        ) from fault

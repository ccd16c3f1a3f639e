"""The durable store on one SQLite file: many readers of a snapshot, one writer that groups commits."""

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO, TypeVar

from crank.adapters.sqlite import statements
from crank.adapters.sqlite.faults import translate
from crank.adapters.sqlite.opening import connect, prepare, sync_folder
from crank.adapters.sqlite.transaction import SqlTransaction, read_job, read_record
from crank.adapters.sqlite.writer import GroupWriter
from crank.domain import job_codec
from crank.domain.json import JsonObject
from crank.errors import Conflict, StoreError, Unavailable
from crank.ports import Failpoints, Transaction

T = TypeVar("T")

_BACKUP_PAGES_A_STEP = 256


class SqliteStore:
    """Keeps the promises of `ports.Store` in the file `path`, which belongs to one process at a time.

    bytes_max  ceiling of the file; beyond it the store answers as on a full disk
    Failpoints: `store.before_commit`, `store.after_commit`.
    """

    def __init__(self, path: Path, *, failpoints: Failpoints, bytes_max: int | None = None) -> None:
        self._path = path
        self._failpoints = failpoints
        self._bytes_max = bytes_max
        self._writer: GroupWriter | None = None
        self._reading: sqlite3.Connection | None = None
        self._read_thread: ThreadPoolExecutor | None = None

    @property
    def commits(self) -> int:
        """Return how many times the disk was flushed for a commit since the start."""
        return 0 if self._writer is None else self._writer.commits

    async def start(self) -> None:
        """Open and migrate. Raises StoreError that says cause and fix and leaves the file as it was."""
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        prepare(self._path)
        try:
            writing = connect(self._path, bytes_max=self._bytes_max)
            try:
                self._reading = connect(self._path, read_only=True)
            except sqlite3.Error:
                writing.close()
                raise
        except sqlite3.Error as fault:
            raise translate(fault, self._path) from fault
        self._read_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="crank-store-reader")
        self._writer = GroupWriter(writing, self._path, self._failpoints)
        self._writer.start()

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` alone and commit it, sharing the flush with others that wait.

        A caller that is cancelled leaves the work in the queue: it may be committed all the same.
        """
        if self._writer is None:
            raise _not_open()
        answer: T = await self._writer.submit(work)
        return answer

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on the last committed state. Raises StoreError (`store_read_only`) when it writes."""
        if self._read_thread is None:
            raise _not_open()
        return await asyncio.get_running_loop().run_in_executor(self._read_thread, self._read, work)

    def _read(self, work: Callable[[Transaction], T]) -> T:
        if self._reading is None:
            raise _not_open()
        try:
            self._reading.execute("BEGIN")
            try:
                return work(SqlTransaction(self._reading))
            finally:
                if self._reading.in_transaction:
                    self._reading.execute("ROLLBACK")
        except sqlite3.Error as fault:
            raise translate(fault, self._path) from fault

    async def backup(self, target: Path) -> None:
        """Copy the running database to a new file (0600) with SQLite's online API; whole or not at all.

        Raises Conflict (`backup_exists`), StoreError, Unavailable (`disk_full`).
        """
        if self._writer is None:
            raise _not_open()
        await asyncio.to_thread(self._backup, target)

    def _backup(self, target: Path) -> None:
        if target.exists():
            raise Conflict(f"There is a file {target.name} already.", code="backup_exists", fix="Name a new file.")
        part = target.with_name(target.name + ".part")
        part.unlink(missing_ok=True)
        try:
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            _copy(self._path, part)
            os.link(part, target)
            sync_folder(target.parent)
        except sqlite3.Error as fault:
            raise translate(fault, target) from fault
        except OSError as fault:
            raise StoreError(
                f"The backup {target.name} cannot be written: {fault.strerror}.",
                code="backup_failed",
                fix="Choose a folder that exists and has room.",
                detail=repr(fault),
            ) from fault
        finally:
            part.unlink(missing_ok=True)

    async def export(self, out: TextIO) -> int:
        """Write every job and record as JSON lines, `kind` first, and return how many. One consistent view."""
        return await self.read(lambda _: self._export(out))

    def _export(self, out: TextIO) -> int:
        if self._reading is None:
            raise _not_open()
        lines = 0
        for row in self._reading.execute(statements.JOBS_ALL):
            out.write(_line({"kind": "job", **job_codec.job_document(read_job(row))}))
            lines += 1
        for row in self._reading.execute(statements.RECORDS_ALL):
            position, record = read_record(row)
            out.write(_line({"kind": "record", "position": position, "record": job_codec.record_document(record)}))
            lines += 1
        return lines

    async def stop(self) -> None:
        """Finish what was begun and close. Safe to call twice."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        if self._read_thread is not None:
            self._read_thread.shutdown(wait=True)
            self._read_thread = None
        # The reader goes first, so that the writer's close can fold the log into the file.
        if self._reading is not None:
            self._reading.close()
            self._reading = None
        if self._writer is not None:
            self._writer.finish()


def _not_open() -> Unavailable:
    return Unavailable("The node's database is not open.", code="store_stopped")


def _line(document: JsonObject) -> str:
    # ASCII: some readers take U+2028 and its like for the end of a line.
    return json.dumps(document, separators=(",", ":"), allow_nan=False) + "\n"


def _copy(source: Path, target: Path) -> None:
    reading = sqlite3.connect(source)
    writing = sqlite3.connect(target)
    try:
        reading.backup(writing, pages=_BACKUP_PAGES_A_STEP)
        # A backup is one file: without this its reader would make a log beside it.
        writing.execute("PRAGMA journal_mode = DELETE")
    finally:
        writing.close()
        reading.close()
    descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

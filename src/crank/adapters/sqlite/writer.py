"""The one writer: a thread that lets everything that waits share a commit, because a commit costs a disk flush."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crank.adapters.sqlite.faults import translate
from crank.adapters.sqlite.transaction import SqlTransaction
from crank.errors import Unavailable
from crank.ports import Failpoints, Transaction

# More would only make the first of a batch wait longer.
_BATCH_MAX = 256


@dataclass(slots=True)
class _Work:
    run: Callable[[Transaction], Any]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    answer: Any = None
    fault: BaseException | None = None

    def settle(self) -> None:
        if self.future.done():
            return
        if self.fault is not None:
            self.future.set_exception(self.fault)
        else:
            self.future.set_result(self.answer)


class GroupWriter:
    """Owns the writing connection. `commits` counts the transactions of SQLite that were committed."""

    def __init__(self, connection: sqlite3.Connection, path: Path, failpoints: Failpoints) -> None:
        self._sql = connection
        self._path = path
        self._failpoints = failpoints
        self._waiting: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open = True
        self._transaction = SqlTransaction(connection)
        self._thread = threading.Thread(target=self._serve, name="crank-store-writer", daemon=True)
        self.commits = 0

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def submit(self, run: Callable[[Transaction], Any]) -> "asyncio.Future[Any]":
        """Queue work; the future is settled in the running loop, after the commit. Raises Unavailable."""
        loop = asyncio.get_running_loop()
        work = _Work(run, loop, loop.create_future())
        with self._lock:
            if not self._open:
                raise Unavailable("The node is stopping.", code="store_stopped")
            self._waiting.put(work)
        return work.future

    def finish(self) -> None:
        """Do what is queued, take nothing more, and close. Blocking; safe to call twice."""
        with self._lock:
            if self._open:
                self._open = False
                self._waiting.put(None)
        self._thread.join()

    def _serve(self) -> None:
        try:
            going = True
            while going:
                batch, going = self._next_batch()
                if batch:
                    self._commit_together(batch)
                    _settle(batch)
        finally:
            self._sql.close()

    def _next_batch(self) -> tuple[list[_Work], bool]:
        batch: list[_Work] = []
        work = self._waiting.get()
        while work is not None:
            batch.append(work)
            if len(batch) >= _BATCH_MAX:
                return batch, True
            try:
                work = self._waiting.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _commit_together(self, batch: Sequence[_Work]) -> None:
        try:
            self._sql.execute("BEGIN IMMEDIATE")
            for work in batch:
                self._run(work)
            self._failpoints.reach("store.before_commit")
            self._sql.execute("COMMIT")
            self.commits += 1
        except Exception as fault:  # noqa: BLE001 - every caller hears of it, and the thread goes on
            # Nothing of the batch is on the disk: no work in it may report success.
            if self._sql.in_transaction:
                self._sql.execute("ROLLBACK")
            told = translate(fault, self._path) if isinstance(fault, sqlite3.Error) else fault
            for work in batch:
                work.answer, work.fault = None, work.fault or told
            return
        self._failpoints.reach("store.after_commit")

    def _run(self, work: _Work) -> None:
        """Run one work in its own savepoint; raises sqlite3.Error only when the whole batch is lost."""
        self._sql.execute("SAVEPOINT work")
        try:
            work.answer = work.run(self._transaction)
        except Exception as fault:
            # Some faults (a full disk) make SQLite roll everything back by itself.
            if not self._sql.in_transaction:
                if isinstance(fault, sqlite3.Error):
                    raise
                raise sqlite3.OperationalError("the transaction ended inside a work") from fault
            self._sql.execute("ROLLBACK TO work")
            work.fault = translate(fault, self._path) if isinstance(fault, sqlite3.Error) else fault
        self._sql.execute("RELEASE work")


def _settle(batch: Sequence[_Work]) -> None:
    """Wake the callers, each loop once for all of its own."""
    for loop in {work.loop for work in batch}:
        mine = [work for work in batch if work.loop is loop]
        try:
            loop.call_soon_threadsafe(_settle_here, mine)
        except RuntimeError:
            # The loop was closed: nobody waits there any more, and the work itself is committed.
            continue


def _settle_here(works: Sequence[_Work]) -> None:
    for work in works:
        work.settle()

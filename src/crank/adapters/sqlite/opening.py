"""Opening the database: made whole or not at all, examined before it is touched, migrated forward only."""

import os
import sqlite3
from pathlib import Path

from crank.adapters.sqlite.faults import corrupt, newer, translate
from crank.adapters.sqlite.schema import APPLICATION_ID, MIGRATIONS, SCHEMA_VERSION
from crank.errors import StoreError

_BUSY_TIMEOUT_SEC = 5.0
_STATEMENTS_CACHED = 128
_JOURNAL_BYTES_MAX = 64 * 1024 * 1024
_OWNER_ONLY = 0o600


def prepare(path: Path) -> None:
    """Make the database if there is none; else prove that this version may use it, and migrate it.

    Raises StoreError (`store_corrupt`, `store_newer`, `store_unreadable`), the file then being as it
    was, and Unavailable (`disk_full`, `store_busy`).
    """
    try:
        if not path.exists():
            _create(path)
            return
        version = _examine(path)
        if version < SCHEMA_VERSION:
            connection = connect(path)
            try:
                _migrate(connection, version)
            finally:
                connection.close()
    except sqlite3.Error as fault:
        raise translate(fault, path) from fault
    except OSError as fault:
        raise StoreError(
            f"The database {path.name} cannot be opened: {fault.strerror}.",
            code="store_unreadable",
            fix="Give the node's user the right to read and write the database and its folder.",
            detail=repr(fault),
        ) from fault


def connect(path: Path, *, bytes_max: int | None = None, read_only: bool = False) -> sqlite3.Connection:
    """Open a connection that may move between threads, one at a time; transactions are begun by hand."""
    connection = sqlite3.connect(
        path,
        timeout=_BUSY_TIMEOUT_SEC,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_STATEMENTS_CACHED,
    )
    try:
        _configure(connection, bytes_max=bytes_max, read_only=read_only)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _configure(connection: sqlite3.Connection, *, bytes_max: int | None, read_only: bool) -> None:
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL: a commit is on the disk before anyone hears of it (WAL with NORMAL would lose the last ones).
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES_MAX}")
    if read_only:
        connection.execute("PRAGMA query_only = ON")
    if bytes_max is not None:
        page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {max(1, bytes_max // page_bytes)}")


def _create(path: Path) -> None:
    # Under another name first: a crash here leaves no half-made database under the real one.
    fresh = path.with_name(path.name + ".new")
    for leftover in (fresh, fresh.with_name(fresh.name + "-journal")):
        leftover.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, _OWNER_ONLY))
    connection = sqlite3.connect(fresh, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        _migrate(connection, 0)
    finally:
        connection.close()
    os.rename(fresh, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _examine(path: Path) -> int:
    """Return the version of a sound database; changes nothing in it."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size == 0:
        raise corrupt(path, "it is empty or not a regular file")
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_TIMEOUT_SEC)
    try:
        application_id = connection.execute("PRAGMA application_id").fetchone()[0]
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if application_id != APPLICATION_ID or version < 1:
            raise corrupt(path, f"application_id is {application_id:#x}, version {version}")
        if version > SCHEMA_VERSION:
            raise newer(path, version, SCHEMA_VERSION)
        finding = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if finding != "ok":
            raise corrupt(path, str(finding))
    finally:
        connection.close()
    return version


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    """Run the steps that are missing, each in a transaction of its own with its version number."""
    for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE;\n{step}\nPRAGMA user_version = {number};\nCOMMIT;")

"""SQLite's error codes in Crank's words, so that no caller ever meets a sqlite3 exception."""

import sqlite3
from pathlib import Path

from crank.errors import CrankError, StoreError, Unavailable

# Primary result codes, https://www.sqlite.org/rescode.html
_BUSY, _LOCKED, _READONLY, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _NOTADB = 5, 6, 8, 10, 11, 13, 14, 26
_PRIMARY_MASK = 0xFF


def is_unique_violation(fault: sqlite3.IntegrityError) -> bool:
    """Tell whether a row was refused because its key is taken."""
    return fault.sqlite_errorcode in (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)


def translate(fault: sqlite3.Error, path: Path) -> CrankError:
    """Return the fault that a caller of the store sees."""
    code = getattr(fault, "sqlite_errorcode", 0) & _PRIMARY_MASK
    detail = f"{type(fault).__name__} {getattr(fault, 'sqlite_errorname', 'unknown')}: {fault} ({path})"
    if code == _FULL:
        return Unavailable(
            "The disk that holds the node's database is full; nothing was stored.",
            code="disk_full",
            fix="Free space on that disk; the node goes on by itself.",
            detail=detail,
            retry_after_sec=30,
        )
    if code in (_BUSY, _LOCKED):
        return Unavailable(
            "Another program holds the node's database.",
            code="store_busy",
            fix="End the other program; a node's database belongs to one controller.",
            detail=detail,
        )
    if code in (_CORRUPT, _NOTADB):
        return corrupt(path, detail)
    if code == _READONLY:
        return StoreError(
            "The node's database may not be written here.",
            code="store_read_only",
            fix="Give the node's user the right to write the database and its folder.",
            detail=detail,
        )
    if code in (_IOERR, _CANTOPEN):
        return StoreError(
            "The node's database cannot be read or written.",
            code="store_unreadable",
            fix="Check the disk and the rights of the database's folder, then start the node again.",
            detail=detail,
        )
    return StoreError("The node's database refused a statement.", detail=detail)


def corrupt(path: Path, detail: str) -> StoreError:
    """Return the fault for a file that is damaged, or is no database."""
    return StoreError(
        f"The database {path.name} is damaged or is not a database of Crank. It was not changed.",
        code="store_corrupt",
        fix="Restore a backup, or move the file away (with its -wal and -shm) and start afresh.",
        detail=detail,
    )


def newer(path: Path, found: int, known: int) -> StoreError:
    """Return the fault for a database that a later version of Crank wrote."""
    return StoreError(
        f"The database {path.name} has schema {found}, and this Crank knows schema {known} at most. "
        "It was not changed.",
        code="store_newer",
        fix="Start the version of Crank that wrote it, or a later one, or restore a backup of this version.",
    )

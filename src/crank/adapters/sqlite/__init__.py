"""The durable store of one node in one SQLite file."""

from crank.adapters.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]

"""Registered workloads in their table, inside a transaction that the store opened."""

import sqlite3
from collections.abc import Sequence

from crank.adapters.sqlite import statements
from crank.adapters.sqlite.faults import is_unique_violation
from crank.domain.entry_codec import entry_document, parse_entry
from crank.domain.ids import TenantId
from crank.domain.json import dumps
from crank.domain.workload import EntryId, WorkloadEntry
from crank.errors import Conflict


class SqlWorkloads:
    """Keeps the promises of `ports.WorkloadStore`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def insert(self, entry: WorkloadEntry) -> None:
        """Add an entry. Raises Conflict (`hint_taken`, `entry_taken`)."""
        if entry.hint and self._sql.execute(statements.WORKLOAD_HINTED, (entry.tenant, entry.hint)).fetchone():
            raise hint_taken(entry.hint)
        document = entry_document(entry)
        # Sorted: the same marks in another order are the same marks.
        marks = dumps(sorted(document["selectors"]))
        try:
            self._sql.execute(
                statements.WORKLOAD_INSERT,
                (entry.tenant, entry.entry_id, document["spiffe_id"], marks, entry.hint, dumps(document)),
            )
        except sqlite3.IntegrityError as fault:
            if not is_unique_violation(fault):
                raise
            raise entry_taken() from fault

    def all(self) -> Sequence[WorkloadEntry]:
        """Return the entries of every tenant, oldest first."""
        return [parse_entry(row["entry"]) for row in self._sql.execute(statements.WORKLOADS_ALL)]

    def of(self, tenant: TenantId) -> Sequence[WorkloadEntry]:
        """Return a tenant's entries, oldest first."""
        return [parse_entry(row["entry"]) for row in self._sql.execute(statements.WORKLOADS_OF, (tenant,))]

    def find(self, tenant: TenantId, entry_id: EntryId) -> WorkloadEntry | None:
        """Return an entry, or None."""
        row = self._sql.execute(statements.WORKLOAD_FIND, (tenant, entry_id)).fetchone()
        return None if row is None else parse_entry(row["entry"])

    def remove(self, tenant: TenantId, entry_id: EntryId) -> bool:
        """Remove an entry; tell whether it was there."""
        return self._sql.execute(statements.WORKLOAD_REMOVE, (tenant, entry_id)).rowcount > 0


def hint_taken(hint: str) -> Conflict:
    """Return the refusal of a hint that another entry has: one process may earn both."""
    return Conflict(
        f"Another entry has the hint {hint!r}.",
        code="hint_taken",
        field="hint",
        fix="Choose another; a workload tells its identities apart by it.",
    )


def entry_taken() -> Conflict:
    """Return the refusal of what is registered already."""
    return Conflict(
        "This identity is registered for these selectors already.",
        code="entry_taken",
        field="selectors",
        fix="Remove that entry first: crank workload list shows it.",
    )

"""Workloads of the store in memory."""

from collections.abc import Sequence

from crank.domain.entry_codec import entry_document, parse_entry
from crank.domain.ids import TenantId
from crank.domain.json import dumps
from crank.domain.workload import EntryId, WorkloadEntry
from crank.errors import Conflict
from crank.testing.memory_state import Part


class Workloads(Part):
    """Keeps the promises of `ports.WorkloadStore`; a dict keeps the order of insertion."""

    def insert(self, entry: WorkloadEntry) -> None:
        """Add an entry. Raises Conflict (`hint_taken`, `entry_taken`)."""
        state = self._change()
        for other in self.of(entry.tenant):
            if entry.hint and other.hint == entry.hint:
                raise Conflict(f"Another entry has the hint {entry.hint!r}.", code="hint_taken", field="hint")
            same = other.spiffe_id == entry.spiffe_id and set(other.selectors) == set(entry.selectors)
            if same or other.entry_id == entry.entry_id:
                raise Conflict("This is registered already.", code="entry_taken", field="selectors")
        state.workloads[entry.tenant, entry.entry_id] = dumps(entry_document(entry))

    def all(self) -> Sequence[WorkloadEntry]:
        """Return the entries of every tenant, oldest first."""
        return [parse_entry(text) for text in self._state.workloads.values()]

    def of(self, tenant: TenantId) -> Sequence[WorkloadEntry]:
        """Return a tenant's entries, oldest first."""
        return [entry for entry in self.all() if entry.tenant == tenant]

    def find(self, tenant: TenantId, entry_id: EntryId) -> WorkloadEntry | None:
        """Return an entry, or None."""
        text = self._state.workloads.get((tenant, entry_id))
        return None if text is None else parse_entry(text)

    def remove(self, tenant: TenantId, entry_id: EntryId) -> bool:
        """Remove an entry; tell whether it was there."""
        return self._change().workloads.pop((tenant, entry_id), None) is not None

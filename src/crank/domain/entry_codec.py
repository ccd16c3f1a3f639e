"""Entries of workloads as JSON documents, for the store and for whoever asks."""

import json

from crank.domain.identity import parse_spiffe_id
from crank.domain.ids import TenantId
from crank.domain.json import JsonObject
from crank.domain.workload import EntryId, WorkloadEntry, parse_selector
from crank.errors import CrankError, StoreError


def entry_document(entry: WorkloadEntry) -> JsonObject:
    """Return every field of an entry, as text and numbers."""
    return {
        "entry_id": entry.entry_id,
        "tenant": entry.tenant,
        "spiffe_id": str(entry.spiffe_id),
        "selectors": [str(selector) for selector in entry.selectors],
        "created_us": entry.created_us,
        "ttl_sec": entry.ttl_sec,
        "hint": entry.hint,
        "dns_names": list(entry.dns_names),
        "federates_with": list(entry.federates_with),
    }


def parse_entry(text: str) -> WorkloadEntry:
    """Read an entry back from its JSON text. Raises StoreError (`store_corrupt`)."""
    try:
        document = json.loads(text)
        return WorkloadEntry(
            entry_id=EntryId(document["entry_id"]),
            tenant=TenantId(document["tenant"]),
            spiffe_id=parse_spiffe_id(document["spiffe_id"]),
            selectors=tuple(parse_selector(selector) for selector in document["selectors"]),
            created_us=document["created_us"],
            ttl_sec=document["ttl_sec"],
            hint=document["hint"],
            dns_names=tuple(document["dns_names"]),
            federates_with=tuple(document["federates_with"]),
        )
    except (CrankError, KeyError, TypeError, ValueError) as fault:
        raise StoreError(f"A stored workload cannot be read back: {fault!r}.", code="store_corrupt") from fault

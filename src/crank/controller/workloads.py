"""Workloads of this machine: the owner says which process gets which identity, and takes it away."""

from dataclasses import dataclass

from crank.controller.access import authorise
from crank.controller.desk import Desk
from crank.controller.identities import heed_revocation, revoke_workload_in
from crank.domain.ids import TenantId
from crank.domain.json import JsonObject
from crank.domain.rules import access
from crank.domain.rules.workload import check_entry, workload_id
from crank.domain.workload import EntryId, WorkloadEntry, parse_selector
from crank.errors import NotFound, TooLarge
from crank.ports import Transaction

ENTRIES_MAX = 1000
_ID_DIGITS = 12


@dataclass(frozen=True, slots=True)
class WorkloadWanted:
    """What is asked of a new entry; `path` is that of its SPIFFE ID, the rest is that of `WorkloadEntry`, as text."""

    path: str
    selectors: tuple[str, ...]
    ttl_sec: int | None = None
    hint: str = ""
    dns_names: tuple[str, ...] = ()
    federates_with: tuple[str, ...] = ()


async def add(desk: Desk, *, tenant: TenantId, subject: str, wanted: WorkloadWanted) -> WorkloadEntry:
    """Register a workload. Raises NotAllowed, InvalidRequest, Conflict (`entry_taken`, `hint_taken`), TooLarge."""
    await authorise(desk, access.Action.CHANGE_WORKLOADS)
    entry = WorkloadEntry(
        entry_id=EntryId("w-" + desk.ids.uuid7().replace("-", "")[-_ID_DIGITS:]),
        tenant=tenant,
        spiffe_id=workload_id(desk.policy.trust_domain, wanted.path),
        selectors=tuple(dict.fromkeys(parse_selector(text) for text in wanted.selectors)),
        created_us=desk.clock.now_us(),
        ttl_sec=wanted.ttl_sec,
        hint=wanted.hint,
        dns_names=tuple(dict.fromkeys(wanted.dns_names)),
        federates_with=tuple(dict.fromkeys(wanted.federates_with)),
    )
    check_entry(entry)

    def commit(tx: Transaction) -> None:
        if len(tx.workloads.of(tenant)) >= ENTRIES_MAX:
            raise TooLarge(
                f"There are {ENTRIES_MAX} workloads already.", code="too_many_workloads", fix="Remove some of them."
            )
        tx.workloads.insert(entry)
        _note(tx, desk, "workload.registered", entry, subject)

    await desk.store.transact(commit)
    desk.workloads.ring()
    return entry


def _note(tx: Transaction, desk: Desk, kind: str, entry: WorkloadEntry, subject: str) -> None:
    facts: JsonObject = {
        "workload": entry.entry_id,
        "spiffe_id": str(entry.spiffe_id),
        "selectors": [str(selector) for selector in entry.selectors],
    }
    tx.records.append(desk.record(kind, tenant=entry.tenant, subject=subject, job_id=None, facts=facts))


async def list_workloads(desk: Desk, *, tenant: TenantId) -> list[WorkloadEntry]:
    """Return the registered workloads, oldest first. Raises NotAllowed."""
    await authorise(desk, access.Action.LIST_WORKLOADS)
    return await desk.store.read(lambda tx: list(tx.workloads.of(tenant)))


async def remove(desk: Desk, *, tenant: TenantId, subject: str, entry_id: str) -> WorkloadEntry:
    """Take an identity away: who watches is told at once, and the certificates that are out are revoked.

    Raises NotAllowed, NotFound.
    """
    await authorise(desk, access.Action.CHANGE_WORKLOADS)

    def commit(tx: Transaction) -> tuple[WorkloadEntry, bool]:
        found = tx.workloads.find(tenant, EntryId(entry_id))
        if found is None:
            raise NotFound(
                f"There is no workload {entry_id[:80]!r}.",
                code="workload_not_found",
                field="workload",
                fix="'crank workload list' shows them.",
            )
        tx.workloads.remove(tenant, found.entry_id)
        _note(tx, desk, "workload.removed", found, subject)
        return found, revoke_workload_in(desk, tx, found.entry_id, subject)

    removed, revoked = await desk.store.transact(commit)
    desk.workloads.ring()
    if revoked:
        await heed_revocation(desk, [], subject=subject)
    return removed

"""What happened: one frozen record a change, written in the same transaction as the change."""

from dataclasses import dataclass

from crank.domain.ids import JobId, TenantId
from crank.domain.json import JsonObject


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the audit trail.

    kind     `job.submitted`, `job.leased`, `job.ended`, `worker.enrolled`, `mount.added`, …
    subject  who did it: a SPIFFE ID, or `local` for the owner of the node
    facts    small JSON, no job content and no secrets
    """

    record_id: str
    tenant: TenantId
    at_us: int
    kind: str
    subject: str
    job_id: JobId | None
    facts: JsonObject

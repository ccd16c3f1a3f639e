"""The small stores on one SQLite connection, inside a transaction that the store opened."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from crank.adapters.sqlite import statements
from crank.adapters.sqlite.credentials import SqlCredentials
from crank.adapters.sqlite.enrolments import SqlEnrolments
from crank.adapters.sqlite.faults import is_unique_violation
from crank.adapters.sqlite.federation import SqlFederation
from crank.adapters.sqlite.grants import SqlGrants
from crank.adapters.sqlite.identities import SqlIdentities
from crank.adapters.sqlite.registry import SqlRegistry
from crank.adapters.sqlite.sessions import SqlSessions, read_value
from crank.adapters.sqlite.workloads import SqlWorkloads
from crank.domain import job_codec
from crank.domain.handle import Called, CalledBy
from crank.domain.ids import CredentialId, JobId, SessionId, TenantId
from crank.domain.job import ENDED, Job, Status
from crank.domain.json import JsonValue, dumps
from crank.domain.record import Record
from crank.domain.worker import Replay
from crank.errors import Conflict, NotFound
from crank.ports import (
    CredentialStore,
    EnrolmentStore,
    FederationStore,
    GrantStore,
    IdentityStore,
    JobStore,
    RecordStore,
    RegistryStore,
    ReplayStore,
    SessionStore,
    WorkloadStore,
)

# Columns of a job, and the fields of `CalledBy` that they hold.
_CALL_FIELDS = {
    "caller_id": "job_id",
    "caller_epoch": "epoch",
    "call_number": "number",
    "call_handle": "handle",
    "call_depth": "depth",
    "call_root": "root",
}


def _text(value: JsonValue) -> str | None:
    return None if value is None else dumps(value)


def _job_row(job: Job) -> dict[str, Any]:
    document = job_codec.job_document(job)
    request = document["request"]
    called_by = document.pop("called_by") or dict.fromkeys(_CALL_FIELDS.values())
    return {
        **document,
        "effects": str(job.request.effects),
        "traceparent": job.request.traceparent,
        "route": job.request.route,
        "capability": job.request.capability,
        "cancel_requested": int(job.cancel_requested),
        "request": dumps(request),
        "end": _text(document["end"]),
        "outcome": _text(job.outcome),
        "session_id": job.request.session_id,
        "owner": job.owner,
        **{column: called_by[name] for column, name in _CALL_FIELDS.items()},
    }


def _read_call(document: dict[str, Any]) -> dict[str, Any] | None:
    """Take the columns of a call out of a row; return the call, or None where nobody called."""
    call = {name: document.pop(column) for column, name in _CALL_FIELDS.items()}
    return None if call["job_id"] is None else call


def read_job(row: sqlite3.Row) -> Job:
    """Make a job of its row. Raises StoreError (`store_corrupt`)."""
    document = dict(row)
    document["request"] = read_value(document["request"])
    document["cancel_requested"] = bool(document["cancel_requested"])
    document["called_by"] = _read_call(document)
    for name in ("end", "outcome"):
        document[name] = None if document[name] is None else read_value(document[name])
    return job_codec.parse_job(document)


def read_record(row: sqlite3.Row) -> tuple[int, Record]:
    """Make a record of its row, with its position. Raises StoreError (`store_corrupt`)."""
    document = dict(row)
    position = document.pop("position")
    document["facts"] = read_value(document["facts"])
    return position, job_codec.parse_record(document)


class SqlJobs:
    """Jobs in the table `job`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def _all(self, statement: str, values: Sequence[Any] | dict[str, Any]) -> Sequence[Job]:
        return [read_job(row) for row in self._sql.execute(statement, values)]

    def insert(self, job: Job) -> None:
        """Add a job. Raises Conflict (`job_id_taken`)."""
        try:
            self._sql.execute(statements.JOB_INSERT, _job_row(job))
        except sqlite3.IntegrityError as fault:
            if not is_unique_violation(fault):
                raise
            raise Conflict(
                f"There is a job {job.job_id} already.",
                code="job_id_taken",
                field="job_id",
                fix="Choose another job_id.",
            ) from fault

    def find(self, tenant: TenantId, job_id: JobId) -> Job | None:
        """Return the job, or None."""
        row = self._sql.execute(statements.JOB_FIND, (tenant, job_id)).fetchone()
        return None if row is None else read_job(row)

    def update(self, job: Job) -> None:
        """Replace what may change of a job. Raises NotFound."""
        changed = self._sql.execute(statements.JOB_UPDATE, _job_row(job)).rowcount
        if not changed:
            raise NotFound(f"There is no job {job.job_id}.", code="job_not_found")

    def queued(self, limit: int) -> Sequence[Job]:
        """Return queued jobs, oldest first; of one session only the one whose turn it is."""
        return self._all(statements.JOBS_QUEUED, (limit,))

    def of_session(self, session_id: SessionId) -> Sequence[Job]:
        """Return the jobs of a session that have not ended, oldest first."""
        return self._all(statements.JOBS_OF_SESSION, (session_id,))

    def held(self) -> Sequence[Job]:
        """Return the jobs that are leased or running, oldest first."""
        return self._all(statements.JOBS_HELD, ())

    def page(
        self,
        tenant: TenantId,
        *,
        limit: int,
        before: str | None,
        status: Status | None,
        owner: CredentialId | None = None,
    ) -> Sequence[Job]:
        """Return jobs, newest first; a cursor that is not known gives an empty page."""
        statement = statements.JOBS_PAGE[owner is not None, status is not None, before is not None]
        values = {"tenant": tenant, "limit": limit, "before": before, "status": status, "owner": owner}
        return self._all(statement, values)

    def count(self, status: Status) -> int:
        """Return how many jobs have the status."""
        return int(self._sql.execute(statements.JOBS_COUNT, (str(status),)).fetchone()[0])

    def ended_before(self, at_us: int, limit: int) -> Sequence[Job]:
        """Return jobs that ended before that time, oldest first."""
        return self._all(statements.JOBS_ENDED_BEFORE, (at_us, limit))

    def called(self, tenant: TenantId, caller: JobId, epoch: int, number: int) -> Job | None:
        """Return the job that was made for this call, or None."""
        row = self._sql.execute(statements.CALL_FIND, (tenant, caller, epoch, number)).fetchone()
        return None if row is None else self.find(tenant, JobId(row["job_id"]))

    def calls(self, tenant: TenantId, root: JobId) -> Sequence[Called]:
        """Return every call of a tree of jobs, oldest first."""
        found = []
        for row in self._sql.execute(statements.CALLS_OF_TREE, (tenant, root)):
            document = dict(row)
            by = CalledBy(**(_read_call(document) or {}))
            found.append(Called(JobId(document["job_id"]), by, document["ended_us"] is not None))
        return found

    def called_open(self) -> Sequence[Job]:
        """Return the called jobs of every tenant that have not ended, oldest first."""
        return self._all(statements.JOBS_CALLED_OPEN, ())

    def delete(self, tenant: TenantId, job_id: JobId) -> None:
        """Forget an ended job and its blob references; one that is gone is no fault.

        Raises Conflict (`job_not_ended`).
        """
        row = self._sql.execute(statements.JOB_STATUS, (tenant, job_id)).fetchone()
        if row is not None and row["status"] not in ENDED:
            raise Conflict(f"The job {job_id} has not ended.", code="job_not_ended")
        self._sql.execute(statements.BLOB_FORGET, (tenant, job_id))
        self._sql.execute(statements.JOB_DELETE, (tenant, job_id))


class SqlReplays:
    """Idempotency keys in the table `replay`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def find(self, tenant: TenantId, key: str) -> Replay | None:
        """Return what the key was used for, or None."""
        row = self._sql.execute(statements.REPLAY_FIND, (tenant, key)).fetchone()
        return None if row is None else Replay(**dict(row))

    def put(self, replay: Replay) -> None:
        """Remember a key, in place of what it was used for before."""
        self._sql.execute(
            statements.REPLAY_PUT,
            (replay.tenant, replay.key, replay.request_digest, replay.job_id, replay.created_us),
        )

    def purge(self, before_us: int) -> int:
        """Forget keys used before that time; return how many."""
        return self._sql.execute(statements.REPLAY_PURGE, (before_us,)).rowcount


class SqlRecords:
    """The audit trail in the table `record`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def append(self, record: Record) -> None:
        """Add a record at the end. Raises Conflict (`record_id_taken`)."""
        try:
            self._sql.execute(
                statements.RECORD_APPEND,
                (
                    record.record_id,
                    record.tenant,
                    record.at_us,
                    record.kind,
                    record.subject,
                    record.job_id,
                    dumps(record.facts),
                ),
            )
        except sqlite3.IntegrityError as fault:
            if not is_unique_violation(fault):
                raise
            raise Conflict(f"There is a record {record.record_id} already.", code="record_id_taken") from fault

    def page(self, *, job_id: JobId | None, after: int, limit: int) -> Sequence[tuple[int, Record]]:
        """Return records in order with their positions, after a position."""
        if job_id is None:
            rows = self._sql.execute(statements.RECORDS_AFTER, (after, limit))
        else:
            rows = self._sql.execute(statements.RECORDS_OF_JOB, (job_id, after, limit))
        return [read_record(row) for row in rows]


class SqlTransaction:
    """All stores on one connection; whoever holds it is inside BEGIN and COMMIT already."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.jobs: JobStore = SqlJobs(connection)
        self.sessions: SessionStore = SqlSessions(connection)
        self.replays: ReplayStore = SqlReplays(connection)
        self.records: RecordStore = SqlRecords(connection)
        self.registry: RegistryStore = SqlRegistry(connection)
        self.credentials: CredentialStore = SqlCredentials(connection)
        self.enrolments: EnrolmentStore = SqlEnrolments(connection)
        self.identities: IdentityStore = SqlIdentities(connection)
        self.federation: FederationStore = SqlFederation(connection)
        self.grants: GrantStore = SqlGrants(connection)
        self.workloads: WorkloadStore = SqlWorkloads(connection)

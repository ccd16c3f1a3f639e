"""Stores that keep everything in memory, with the same promises as the durable ones except durability.

They keep JSON text, not objects, so that a value that would not survive the disk does not survive here.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from crank.domain import job_codec, session_codec
from crank.domain.handle import Called
from crank.domain.ids import CredentialId, Digest, JobId, MountId, SessionId, TenantId, WorkerId
from crank.domain.job import ENDED, HELD, Job, Mount, Status
from crank.domain.json import dumps
from crank.domain.record import Record
from crank.domain.session import Session
from crank.domain.worker import KnownWorker, Replay
from crank.errors import Conflict, NotFound, Unavailable
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
    Transaction,
    WorkloadStore,
)
from crank.testing.memory_credentials import Credentials
from crank.testing.memory_enrolments import Enrolments
from crank.testing.memory_federation import Federation
from crank.testing.memory_grants import Grants
from crank.testing.memory_identities import Identities
from crank.testing.memory_state import Part, Row, State, row_of
from crank.testing.memory_workloads import Workloads

T = TypeVar("T")


class _Jobs(Part):
    def _sorted(self, wanted: Callable[[Row], bool]) -> list[Row]:
        return sorted(filter(wanted, self._state.jobs.values()), key=lambda row: row.seq)

    def insert(self, job: Job) -> None:
        """Add a job. Raises Conflict (`job_id_taken`)."""
        state = self._change()
        if (job.tenant, job.job_id) in state.jobs:
            raise Conflict(f"There is a job {job.job_id} already.", code="job_id_taken", field="job_id")
        by = job.called_by
        if by is not None and self.called(job.tenant, by.job_id, by.epoch, by.number) is not None:
            raise Conflict("There is a job of this call already.", code="job_id_taken", field="job_id")
        state.seq += 1
        state.jobs[job.tenant, job.job_id] = row_of(state.seq, job)

    def find(self, tenant: TenantId, job_id: JobId) -> Job | None:
        """Return the job, or None."""
        row = self._state.jobs.get((tenant, job_id))
        return None if row is None else row.job()

    def update(self, job: Job) -> None:
        """Replace what may change of a job. Raises NotFound."""
        state = self._change()
        row = state.jobs.get((job.tenant, job.job_id))
        if row is None:
            raise NotFound(f"There is no job {job.job_id}.", code="job_not_found")
        kept = row.job()
        fixed = {name: getattr(kept, name) for name in ("request", "request_digest", "submitted_us", "owner", "called_by")}
        job = replace(job, **fixed)
        state.jobs[job.tenant, job.job_id] = row_of(row.seq, job)

    def queued(self, limit: int) -> Sequence[Job]:
        """Return queued jobs, oldest first; of one session only the one whose turn it is."""
        turns: dict[SessionId, int] = {}
        for row in self._sorted(lambda row: row.session_id is not None and row.status not in ENDED)[::-1]:
            turns[row.session_id] = row.seq  # type: ignore[index]
        rows = self._sorted(
            lambda row: row.status is Status.QUEUED and (row.session_id is None or turns[row.session_id] == row.seq)
        )
        return [row.job() for row in rows[:limit]]

    def of_session(self, session_id: SessionId) -> Sequence[Job]:
        """Return the jobs of a session that have not ended, oldest first."""
        return [row.job() for row in self._sorted(lambda row: row.session_id == session_id and row.status not in ENDED)]

    def held(self) -> Sequence[Job]:
        """Return the jobs that are leased or running, oldest first."""
        return [row.job() for row in self._sorted(lambda row: row.status in HELD)]

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
        limit_seq = self._state.seq + 1
        if before is not None:
            last = self._state.jobs.get((tenant, JobId(before)))
            limit_seq = 0 if last is None else last.seq
        rows = self._sorted(
            lambda row: row.tenant == tenant
            and row.seq < limit_seq
            and (status is None or row.status is status)
            and (owner is None or row.owner == owner)
        )
        return [row.job() for row in rows[::-1][:limit]]

    def count(self, status: Status) -> int:
        """Return how many jobs have the status."""
        return sum(row.status is status for row in self._state.jobs.values())

    def ended_before(self, at_us: int, limit: int) -> Sequence[Job]:
        """Return jobs that ended before that time, oldest first."""
        aged = [
            (row.ended_us, row.seq, row)
            for row in self._state.jobs.values()
            if row.ended_us is not None and row.ended_us < at_us and not self._is_counted(row)
        ]
        return [row.job() for _, _, row in sorted(aged, key=lambda entry: entry[:2])[:limit]]

    def _is_counted(self, row: Row) -> bool:
        root = None if row.called_by is None else self._state.jobs.get((row.tenant, row.called_by.root))
        return root is not None and root.ended_us is None

    def called(self, tenant: TenantId, caller: JobId, epoch: int, number: int) -> Job | None:
        """Return the job that was made for this call, or None."""
        key = (caller, epoch, number)
        found = self._sorted(
            lambda row: row.tenant == tenant
            and row.called_by is not None
            and (row.called_by.job_id, row.called_by.epoch, row.called_by.number) == key
        )
        return found[0].job() if found else None

    def calls(self, tenant: TenantId, root: JobId) -> Sequence[Called]:
        """Return every call of a tree of jobs, oldest first."""
        return [
            Called(row.job_id, row.called_by, row.ended_us is not None)
            for row in self._sorted(lambda row: row.tenant == tenant)
            if row.called_by is not None and row.called_by.root == root
        ]

    def called_open(self) -> Sequence[Job]:
        """Return the called jobs that have not ended, oldest first."""
        return [row.job() for row in self._sorted(lambda row: row.called_by is not None and row.ended_us is None)]

    def delete(self, tenant: TenantId, job_id: JobId) -> None:
        """Forget an ended job and its blob references. Raises Conflict (`job_not_ended`)."""
        state = self._change()
        row = state.jobs.get((tenant, job_id))
        if row is not None and row.status not in ENDED:
            raise Conflict(f"The job {job_id} has not ended.", code="job_not_ended")
        state.jobs.pop((tenant, job_id), None)
        state.references = {entry for entry in state.references if entry[:2] != (tenant, job_id)}


class _Sessions(Part):
    """Python keeps a dict in the order of insertion, which is the order of acceptance."""

    def _read(self) -> list[Session]:
        return [session_codec.parse_session(json.loads(text)) for text in self._state.sessions.values()]

    def insert(self, session: Session) -> None:
        """Add a session. Raises Conflict (`session_id_taken`)."""
        state = self._change()
        key = (session.tenant, session.session_id)
        if key in state.sessions:
            raise Conflict(f"There is a session {session.session_id} already.", code="session_id_taken")
        state.sessions[key] = dumps(session_codec.session_document(session))

    def find(self, tenant: TenantId, session_id: SessionId) -> Session | None:
        """Return the session, or None."""
        text = self._state.sessions.get((tenant, session_id))
        return None if text is None else session_codec.parse_session(json.loads(text))

    def update(self, session: Session) -> None:
        """Replace what may change of a session. Raises NotFound."""
        state = self._change()
        kept = self.find(session.tenant, session.session_id)
        if kept is None:
            raise NotFound(f"There is no session {session.session_id}.", code="session_not_found")
        changed = replace(session, created_us=kept.created_us, owner=kept.owner)
        state.sessions[session.tenant, session.session_id] = dumps(session_codec.session_document(changed))

    def live(self) -> Sequence[Session]:
        """Return the sessions that have not ended, oldest first."""
        return [session for session in self._read() if not session.ended]

    def page(
        self, tenant: TenantId, *, limit: int, before: str | None, owner: CredentialId | None = None
    ) -> Sequence[Session]:
        """Return sessions, newest first; a cursor that is not known gives an empty page."""
        found = [session for session in self._read() if session.tenant == tenant]
        if before is not None:
            ids = [session.session_id for session in found]
            found = found[: ids.index(SessionId(before))] if before in ids else []
        return [session for session in found[::-1] if owner in (None, session.owner)][:limit]

    def ended_before(self, at_us: int, limit: int) -> Sequence[Session]:
        """Return sessions that ended before that time, oldest first."""
        aged = [session for session in self._read() if session.ended_us is not None and session.ended_us < at_us]
        return sorted(aged, key=lambda session: session.ended_us or 0)[:limit]

    def delete(self, tenant: TenantId, session_id: SessionId) -> None:
        """Forget an ended session. Raises Conflict (`session_not_ended`)."""
        state = self._change()
        found = self.find(tenant, session_id)
        if found is not None and not found.ended:
            raise Conflict(f"The session {session_id} has not ended.", code="session_not_ended")
        state.sessions.pop((tenant, session_id), None)


class _Replays(Part):
    def find(self, tenant: TenantId, key: str) -> Replay | None:
        """Return what the key was used for, or None."""
        return self._state.replays.get((tenant, key))

    def put(self, replay: Replay) -> None:
        """Remember a key, in place of what it was used for before."""
        self._change().replays[replay.tenant, replay.key] = replay

    def purge(self, before_us: int) -> int:
        """Forget keys used before that time; return how many."""
        state = self._change()
        old = [key for key, replay in state.replays.items() if replay.created_us < before_us]
        for key in old:
            del state.replays[key]
        return len(old)


class _Records(Part):
    def append(self, record: Record) -> None:
        """Add a record at the end. Raises Conflict (`record_id_taken`)."""
        state = self._change()
        if any(record_id == record.record_id for record_id, _, _ in state.records):
            raise Conflict(f"There is a record {record.record_id} already.", code="record_id_taken")
        state.records.append((record.record_id, record.job_id, dumps(job_codec.record_document(record))))

    def page(self, *, job_id: JobId | None, after: int, limit: int) -> Sequence[tuple[int, Record]]:
        """Return records in order with their positions, after a position."""
        found = [
            (position, text)
            for position, (_, of_job, text) in enumerate(self._state.records, start=1)
            if position > after and job_id in (None, of_job)
        ]
        return [(position, job_codec.parse_record(json.loads(text))) for position, text in found[:limit]]


class _Registry(Part):
    def put_mount(self, mount: Mount) -> None:
        """Add or replace the tenant's mount of that id."""
        self._change().mounts[mount.tenant, mount.mount_id] = mount

    def mounts(self, tenant: TenantId) -> Sequence[Mount]:
        """Return the tenant's mounts, by id."""
        return [mount for (owner, _), mount in sorted(self._state.mounts.items()) if owner == tenant]

    def remove_mount(self, tenant: TenantId, mount_id: MountId) -> bool:
        """Remove a mount; tell whether it was there."""
        return self._change().mounts.pop((tenant, mount_id), None) is not None

    def put_worker(self, worker: KnownWorker) -> None:
        """Add or replace a worker by its id."""
        document = {
            "worker_id": worker.worker_id,
            "instance_id": worker.instance_id,
            "node_id": worker.node_id,
            "slots": worker.slots,
            "capabilities": job_codec.capabilities_document(worker),
            "enrolled_us": worker.enrolled_us,
            "seen_us": worker.seen_us,
            "attestation": worker.attestation.label,
            "signed": worker.signed or self.has_signed(worker.worker_id),
        }
        self._change().workers[worker.worker_id] = dumps(document)

    def workers(self) -> Sequence[KnownWorker]:
        """Return every worker, by id."""
        return [job_codec.parse_known_worker(json.loads(text)) for _, text in sorted(self._state.workers.items())]

    def has_signed(self, worker_id: WorkerId) -> bool:
        """Tell whether this worker was ever put as one that signs."""
        text = self._state.workers.get(worker_id)
        return text is not None and bool(json.loads(text)["signed"])

    def refer(self, tenant: TenantId, job_id: JobId, digests: Sequence[Digest]) -> None:
        """Say that a job uses these blobs."""
        self._change().references.update((tenant, job_id, digest) for digest in digests)

    def referred(self, digests: Sequence[Digest]) -> set[Digest]:
        """Return those of the digests that some job uses."""
        return {digest for _, _, digest in self._state.references} & set(digests)

    def job_refers(self, tenant: TenantId, job_id: JobId, digest: Digest) -> bool:
        """Tell whether this job uses the blob."""
        return (tenant, job_id, digest) in self._state.references


class _Transaction:
    def __init__(self, state: State, *, writable: bool) -> None:
        self.jobs: JobStore = _Jobs(state, writable=writable)
        self.sessions: SessionStore = _Sessions(state, writable=writable)
        self.replays: ReplayStore = _Replays(state, writable=writable)
        self.records: RecordStore = _Records(state, writable=writable)
        self.registry: RegistryStore = _Registry(state, writable=writable)
        self.credentials: CredentialStore = Credentials(state, writable=writable)
        self.enrolments: EnrolmentStore = Enrolments(state, writable=writable)
        self.identities: IdentityStore = Identities(state, writable=writable)
        self.federation: FederationStore = Federation(state, writable=writable)
        self.grants: GrantStore = Grants(state, writable=writable)
        self.workloads: WorkloadStore = Workloads(state, writable=writable)


class MemoryStore:
    """`ports.Store` in memory: every work runs on a copy, which becomes the state when it ends well."""

    def __init__(self) -> None:
        self._state = State()
        self._lock = threading.Lock()
        self._open = False

    async def start(self) -> None:
        """Open; what was stored before is still there."""
        self._open = True

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` alone; keep what it did only when it raises nothing."""
        await asyncio.sleep(0)
        with self._lock:
            self._check_open()
            state = self._state.copy()
            answer = work(_Transaction(state, writable=True))
            self._state = state
            return answer

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on the last state. Raises StoreError (`store_read_only`) when it writes."""
        await asyncio.sleep(0)
        self._check_open()
        return work(_Transaction(self._state, writable=False))

    async def stop(self) -> None:
        """Close. Safe to call twice."""
        self._open = False

    def _check_open(self) -> None:
        if not self._open:
            raise Unavailable("The store is not open.", code="store_stopped")

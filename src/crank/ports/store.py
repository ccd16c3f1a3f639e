"""What must not be lost: small stores behind one unit of work, blobs, and the log of output."""

from collections.abc import Callable, Sequence
from typing import BinaryIO, Protocol, TypeVar

from crank.domain.handle import Called
from crank.domain.ids import CredentialId, Digest, JobId, MountId, SessionId, TenantId, WorkerId
from crank.domain.job import Job, Mount, Status
from crank.domain.record import Record
from crank.domain.session import Session
from crank.domain.worker import KnownWorker, Replay
from crank.ports.credentials import CredentialStore
from crank.ports.enrolments import EnrolmentStore
from crank.ports.federation import FederationStore
from crank.ports.grants import GrantStore
from crank.ports.identities import IdentityStore
from crank.ports.workloads import WorkloadStore
from crank.wire import JobEvent

T = TypeVar("T")


class JobStore(Protocol):
    """Jobs, inside one transaction."""

    def insert(self, job: Job) -> None:
        """Add a job. Raises Conflict (code `job_id_taken`) when the tenant has that id, or the job of that call, already."""
        ...

    def find(self, tenant: TenantId, job_id: JobId) -> Job | None:
        """Return the job, or None."""
        ...

    def update(self, job: Job) -> None:
        """Replace the stored job; request, tenant and id never change. Raises NotFound."""
        ...

    def queued(self, limit: int) -> Sequence[Job]:
        """Return queued jobs, oldest first; of one session only the oldest, and none while another is held."""
        ...

    def of_session(self, session_id: SessionId) -> Sequence[Job]:
        """Return the jobs of a session that have not ended, oldest first."""
        ...

    def held(self) -> Sequence[Job]:
        """Return the jobs that are leased or running."""
        ...

    def page(
        self,
        tenant: TenantId,
        *,
        limit: int,
        before: str | None,
        status: Status | None,
        owner: CredentialId | None = None,
    ) -> Sequence[Job]:
        """Return jobs, newest first; `before` is the cursor of the last one seen (its job id).

        owner  only jobs of this bounded credential
        """
        ...

    def count(self, status: Status) -> int:
        """Return how many jobs have the status."""
        ...

    def ended_before(self, at_us: int, limit: int) -> Sequence[Job]:
        """Return jobs that ended before that time, oldest first, for retention.

        A called job is kept for as long as the topmost job of its tree has not ended: its row is what calls are counted by.
        """
        ...

    def called(self, tenant: TenantId, caller: JobId, epoch: int, number: int) -> Job | None:
        """Return the job that was made for this call of a job, or None."""
        ...

    def calls(self, tenant: TenantId, root: JobId) -> Sequence[Called]:
        """Return every call of the tree of jobs under this one, oldest first."""
        ...

    def called_open(self) -> Sequence[Job]:
        """Return the called jobs of every tenant that have not ended, oldest first."""
        ...

    def delete(self, tenant: TenantId, job_id: JobId) -> None:
        """Forget an ended job, with its blob references."""
        ...


class SessionStore(Protocol):
    """Sessions, inside one transaction."""

    def insert(self, session: Session) -> None:
        """Add a session. Raises Conflict (code `session_id_taken`)."""
        ...

    def find(self, tenant: TenantId, session_id: SessionId) -> Session | None:
        """Return the session, or None."""
        ...

    def update(self, session: Session) -> None:
        """Replace what may change of a session: all but its id, tenant and creation. Raises NotFound."""
        ...

    def live(self) -> Sequence[Session]:
        """Return the sessions of every tenant that have not ended, oldest first."""
        ...

    def page(
        self, tenant: TenantId, *, limit: int, before: str | None, owner: CredentialId | None = None
    ) -> Sequence[Session]:
        """Return sessions, newest first; `before` and `owner` as for jobs."""
        ...

    def ended_before(self, at_us: int, limit: int) -> Sequence[Session]:
        """Return sessions that ended before that time, oldest first, for retention."""
        ...

    def delete(self, tenant: TenantId, session_id: SessionId) -> None:
        """Forget an ended session. Raises Conflict (`session_not_ended`)."""
        ...


class ReplayStore(Protocol):
    """Idempotency keys of the last hour, inside one transaction."""

    def find(self, tenant: TenantId, key: str) -> Replay | None:
        """Return what the key was used for, or None."""
        ...

    def put(self, replay: Replay) -> None:
        """Remember a key; replaces an expired one."""
        ...

    def purge(self, before_us: int) -> int:
        """Forget keys used before that time; return how many."""
        ...


class RecordStore(Protocol):
    """The audit trail, inside one transaction. There is no way to change a record."""

    def append(self, record: Record) -> None:
        """Add a record at the end."""
        ...

    def page(self, *, job_id: JobId | None, after: int, limit: int) -> Sequence[tuple[int, Record]]:
        """Return records in order with their positions, after a position."""
        ...


class RegistryStore(Protocol):
    """What the node knows: mounts, workers, and which blobs are in use."""

    def put_mount(self, mount: Mount) -> None:
        """Add or replace a mount by its id."""
        ...

    def mounts(self, tenant: TenantId) -> Sequence[Mount]:
        """Return the tenant's mounts, by id."""
        ...

    def remove_mount(self, tenant: TenantId, mount_id: MountId) -> bool:
        """Remove a mount; tell whether it was there."""
        ...

    def put_worker(self, worker: KnownWorker) -> None:
        """Add or replace a worker by its id. That it ever signed stays."""
        ...

    def has_signed(self, worker_id: WorkerId) -> bool:
        """Tell whether this worker was ever put as one that signs."""
        ...

    def workers(self) -> Sequence[KnownWorker]:
        """Return every worker that was ever enrolled and not forgotten."""
        ...

    def refer(self, tenant: TenantId, job_id: JobId, digests: Sequence[Digest]) -> None:
        """Say that a job uses these blobs; they are kept until the job is deleted."""
        ...

    def referred(self, digests: Sequence[Digest]) -> set[Digest]:
        """Return those of the digests that some job uses."""
        ...

    def job_refers(self, tenant: TenantId, job_id: JobId, digest: Digest) -> bool:
        """Tell whether this job uses the blob."""
        ...


class Transaction(Protocol):
    """Small stores that change together or not at all."""

    jobs: JobStore
    sessions: SessionStore
    replays: ReplayStore
    records: RecordStore
    registry: RegistryStore
    credentials: CredentialStore
    enrolments: EnrolmentStore
    identities: IdentityStore
    federation: FederationStore
    grants: GrantStore
    workloads: WorkloadStore


class Store(Protocol):
    """The durable store. What `transact` returned survives the loss of the process and of power."""

    async def start(self) -> None:
        """Open and migrate. Raises StoreError (corrupt, newer than this version, unreadable)."""
        ...

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` alone and commit it; raise what it raises and then leave no trace of it.

        `work` is short, blocking and free of side effects: it may share a commit with others.
        Raises Unavailable (code `disk_full`) when the disk is full, StoreError for other faults.
        """
        ...

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on a consistent view; it must not write."""
        ...

    async def stop(self) -> None:
        """Finish what was begun and close. Safe to call twice."""
        ...


class BlobStore(Protocol):
    """Content-addressed bytes. A blob that can be opened is whole: its name is its SHA-256."""

    def put(self, source: BinaryIO, *, expected: Digest | None, bytes_max: int) -> tuple[Digest, int]:
        """Store a stream durably and return (digest, size). Blocking.

        Raises InvalidRequest (`digest_mismatch`), TooLarge, Unavailable (`disk_full`, `quota_exceeded`);
        leaves nothing behind then.
        """
        ...

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob to read. Raises NotFound."""
        ...

    def size(self, digest: Digest) -> int | None:
        """Return the size in bytes, or None when there is no such blob."""
        ...

    def remove(self, digest: Digest) -> None:
        """Remove a blob; doing it twice changes nothing."""
        ...

    def older_than(self, age_sec: float) -> Sequence[Digest]:
        """Return blobs last written longer ago than that, for collection of garbage."""
        ...


class StreamLog(Protocol):
    """What a job printed and told, in order, while it ran. Positions start at 1 and have no gaps."""

    async def append(self, job_id: JobId, events: Sequence[JobEvent]) -> int:
        """Add events and return the last position. Raises Unavailable (`disk_full`)."""
        ...

    async def read(self, job_id: JobId, after: int, limit: int) -> Sequence[tuple[int, JobEvent]]:
        """Return events after a position."""
        ...

    async def remove(self, job_id: JobId) -> None:
        """Forget the job's events; doing it twice changes nothing."""
        ...

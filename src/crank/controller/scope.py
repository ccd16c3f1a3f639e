"""The desk as one credential sees it: what is not its own is not there, for every use case alike.

A use case is given a desk and asks its store; which credential stands behind the request is settled here, once, and
not in each of them. A bounded credential (see `Credential.bounded`) finds its own jobs and sessions, its own
idempotency keys, and the mounts that it was allowed; whatever else it asks for is answered as if it did not exist.
Each transaction looks the credential up anew, so that a revocation or a change of its mounts holds from the next step
on, in requests that are under way too.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from crank.controller.desk import Desk
from crank.domain.credential import OWNER_SUBJECT, Credential
from crank.domain.federation import Federated
from crank.domain.ids import Digest, JobId, MountId, SessionId, TenantId
from crank.domain.job import Job, Mount, Status
from crank.domain.record import Record
from crank.domain.rules import access
from crank.domain.session import Session
from crank.domain.worker import KnownWorker, Replay
from crank.domain.workload import EntryId, WorkloadEntry
from crank.errors import NotAllowed, NotAuthenticated
from crank.ports import (
    Clock,
    CredentialStore,
    FederationStore,
    IdentityStore,
    JobStore,
    RecordStore,
    RegistryStore,
    ReplayStore,
    SessionStore,
    Store,
    Transaction,
    WorkloadStore,
)

T = TypeVar("T")


def desk_for(desk: Desk, credential: Credential) -> Desk:
    """Return the desk on which the requests of this credential are served."""
    if credential.subject == OWNER_SUBJECT:
        # The token file's own: it can neither be revoked nor is it bounded.
        return replace(desk, asker=credential)
    return replace(desk, asker=credential, store=ScopedStore(desk.store, credential, desk.clock))


def space_of(asker: Credential | None, tenant: TenantId) -> TenantId:
    """Return the space in which this caller's idempotency keys are unique."""
    return tenant if asker is None or not asker.bounded else TenantId(f"{tenant}/{asker.credential_id}")


def unknown() -> NotAuthenticated:
    """Return the one refusal for a credential that is unknown, expired or revoked, so that it tells nothing."""
    return NotAuthenticated("This request carries no credential that this node knows.")


class ScopedStore:
    """`ports.Store` as one credential sees it; whoever made the store starts and stops it."""

    def __init__(self, store: Store, credential: Credential, clock: Clock) -> None:
        self._store = store
        self._credential = credential
        self._clock = clock

    async def start(self) -> None:
        """Do nothing: the store is open already."""

    async def stop(self) -> None:
        """Do nothing: others still use the store."""

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` as `Store.transact` does. Raises NotAuthenticated once the credential is dead."""
        return await self._store.transact(lambda tx: work(self._narrow(tx)))

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` as `Store.read` does. Raises NotAuthenticated once the credential is dead."""
        return await self._store.read(lambda tx: work(self._narrow(tx)))

    def _narrow(self, tx: Transaction) -> Transaction:
        found = tx.credentials.find(self._credential.tenant, self._credential.credential_id)
        if found is None or not access.lives(found, self._clock.now_us()):
            raise unknown()
        return _Scoped(tx, found) if found.bounded else tx


class _Scoped:
    def __init__(self, tx: Transaction, asker: Credential) -> None:
        self.jobs: JobStore = _Jobs(tx, asker)
        self.sessions: SessionStore = _Sessions(tx, asker)
        self.replays: ReplayStore = _Replays(tx, asker)
        self.records: RecordStore = _Records(tx, asker)
        self.registry: RegistryStore = _Registry(tx, asker)
        # Its own row is all that the use cases of a bounded credential look up here.
        self.credentials: CredentialStore = tx.credentials
        # Only use cases that the owner alone may ask for read or change it.
        self.identities: IdentityStore = tx.identities
        self.federation: FederationStore = _Federation()
        self.workloads: WorkloadStore = _Workloads(tx, asker)


class _Federation:
    """Whom the node is federated with is its owner's affair: for a bounded credential there is nobody."""

    def insert(self, federated: Federated) -> None:
        raise NotAllowed("Only the owner of the node federates it.", code="owner_only")

    def find(self, trust_domain: str) -> Federated | None:
        return None

    def all(self) -> Sequence[Federated]:
        return []

    def update(self, federated: Federated) -> None:
        raise NotAllowed("Only the owner of the node federates it.", code="owner_only")

    def remove(self, trust_domain: str) -> bool:
        raise NotAllowed("Only the owner of the node federates it.", code="owner_only")


class _Part:
    def __init__(self, tx: Transaction, asker: Credential) -> None:
        self._tx = tx
        self._asker = asker
        self._own = asker.credential_id

    def _sees_job(self, tenant: TenantId, job_id: JobId) -> bool:
        job = self._tx.jobs.find(tenant, job_id)
        return job is not None and job.owner == self._own


class _Jobs(_Part):
    """What concerns the whole node (its queue, its bounds) is counted for all; a job is found by its owner alone."""

    def insert(self, job: Job) -> None:
        self._tx.jobs.insert(replace(job, owner=self._own))

    def find(self, tenant: TenantId, job_id: JobId) -> Job | None:
        job = self._tx.jobs.find(tenant, job_id)
        return job if job is not None and job.owner == self._own else None

    def update(self, job: Job) -> None:
        self._tx.jobs.update(job)

    def queued(self, limit: int) -> Sequence[Job]:
        return self._tx.jobs.queued(limit)

    def of_session(self, session_id: SessionId) -> Sequence[Job]:
        return self._tx.jobs.of_session(session_id)

    def held(self) -> Sequence[Job]:
        return self._tx.jobs.held()

    def page(
        self, tenant: TenantId, *, limit: int, before: str | None, status: Status | None, owner: object = None
    ) -> Sequence[Job]:
        return self._tx.jobs.page(tenant, limit=limit, before=before, status=status, owner=self._own)

    def count(self, status: Status) -> int:
        return self._tx.jobs.count(status)

    def ended_before(self, at_us: int, limit: int) -> Sequence[Job]:
        return self._tx.jobs.ended_before(at_us, limit)

    def delete(self, tenant: TenantId, job_id: JobId) -> None:
        self._tx.jobs.delete(tenant, job_id)


class _Sessions(_Part):
    def insert(self, session: Session) -> None:
        self._tx.sessions.insert(replace(session, owner=self._own))

    def find(self, tenant: TenantId, session_id: SessionId) -> Session | None:
        session = self._tx.sessions.find(tenant, session_id)
        return session if session is not None and session.owner == self._own else None

    def update(self, session: Session) -> None:
        self._tx.sessions.update(session)

    def live(self) -> Sequence[Session]:
        return self._tx.sessions.live()

    def page(
        self, tenant: TenantId, *, limit: int, before: str | None, owner: object = None
    ) -> Sequence[Session]:
        return self._tx.sessions.page(tenant, limit=limit, before=before, owner=self._own)

    def ended_before(self, at_us: int, limit: int) -> Sequence[Session]:
        return self._tx.sessions.ended_before(at_us, limit)

    def delete(self, tenant: TenantId, session_id: SessionId) -> None:
        self._tx.sessions.delete(tenant, session_id)


class _Replays(_Part):
    def find(self, tenant: TenantId, key: str) -> Replay | None:
        return self._tx.replays.find(space_of(self._asker, tenant), key)

    def put(self, replay: Replay) -> None:
        self._tx.replays.put(replace(replay, tenant=space_of(self._asker, replay.tenant)))

    def purge(self, before_us: int) -> int:
        return self._tx.replays.purge(before_us)


class _Records(_Part):
    def append(self, record: Record) -> None:
        self._tx.records.append(record)

    def page(self, *, job_id: JobId | None, after: int, limit: int) -> Sequence[tuple[int, Record]]:
        if job_id is None or not self._sees_job(self._asker.tenant, job_id):
            return []
        return self._tx.records.page(job_id=job_id, after=after, limit=limit)


class _Workloads(_Part):
    """Who gets which identity is the owner's to say and to see."""

    def insert(self, entry: WorkloadEntry) -> None:
        raise NotAllowed("Only the owner of the node registers a workload.", code="owner_only")

    def all(self) -> Sequence[WorkloadEntry]:
        return []

    def of(self, tenant: TenantId) -> Sequence[WorkloadEntry]:
        return []

    def remove(self, tenant: TenantId, entry_id: EntryId) -> bool:
        raise NotAllowed("Only the owner of the node removes a workload.", code="owner_only")


class _Registry(_Part):
    def put_mount(self, mount: Mount) -> None:
        raise NotAllowed("Only the owner of the node adds a mount.", code="owner_only")

    def mounts(self, tenant: TenantId) -> Sequence[Mount]:
        return [mount for mount in self._tx.registry.mounts(tenant) if mount.mount_id in self._asker.mounts]

    def remove_mount(self, tenant: TenantId, mount_id: MountId) -> bool:
        raise NotAllowed("Only the owner of the node removes a mount.", code="owner_only")

    def put_worker(self, worker: KnownWorker) -> None:
        self._tx.registry.put_worker(worker)

    def workers(self) -> Sequence[KnownWorker]:
        return self._tx.registry.workers()

    def refer(self, tenant: TenantId, job_id: JobId, digests: Sequence[Digest]) -> None:
        self._tx.registry.refer(tenant, job_id, digests)

    def referred(self, digests: Sequence[Digest]) -> set[Digest]:
        return self._tx.registry.referred(digests)

    def job_refers(self, tenant: TenantId, job_id: JobId, digest: Digest) -> bool:
        return self._sees_job(tenant, job_id) and self._tx.registry.job_refers(tenant, job_id, digest)

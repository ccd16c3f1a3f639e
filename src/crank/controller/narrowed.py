"""What one credential finds in the store: of its own all, or what its rights name; the rest is not there.

No use case asks for it by name: `scope` puts it before the store.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from crank.controller.owners_alone import NoEnrolments, NoFederation
from crank.domain.credential import Credential
from crank.domain.grant import Grant, GrantId, Right
from crank.domain.handle import Called
from crank.domain.ids import CredentialId, Digest, JobId, MountId, SessionId, TenantId, WorkerId
from crank.domain.job import Job, Mount, MountUse, Status
from crank.domain.record import Record
from crank.domain.rules import access
from crank.domain.rules import grant as grants
from crank.domain.session import Session
from crank.domain.worker import KnownWorker, Replay
from crank.domain.workload import EntryId, WorkloadEntry
from crank.errors import NotAllowed
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

T = TypeVar("T")
# Of one space, to fill a page with what a narrow token may see of it.
_PAGES_LOOKED_AT_MAX = 20
# No right that names mounts allows it.
_ANY_MOUNT = MountUse("", MountId(""))


def bounded(tx: Transaction, asker: Credential) -> Transaction:
    """Return what a bounded credential finds."""
    return _Scoped(tx, asker)


def granted(tx: Transaction, asker: Credential, credential: Credential, sight: "Sight") -> Transaction:
    """Return what a token finds, or a key that has rights; `credential`: what stands behind the asker."""
    return _Granted(tx, asker, credential, sight)


def whole(tx: Transaction) -> Transaction:
    """Return the same transaction without bounds, for what the node itself counts."""
    return tx.whole if isinstance(tx, _Scoped) else tx


def space_of(asker: Credential | None, tenant: TenantId) -> TenantId:
    """Return the space in which this caller's idempotency keys are unique."""
    return tenant if asker is None or not asker.bounded else TenantId(f"{tenant}/{asker.credential_id}")


class _Scoped:
    def __init__(self, tx: Transaction, asker: Credential) -> None:
        self.whole = tx
        self.jobs: JobStore = _Jobs(tx, asker)
        self.sessions: SessionStore = _Sessions(tx, asker)
        self.replays: ReplayStore = _Replays(tx, asker)
        self.records: RecordStore = _Records(tx, asker)
        self.registry: RegistryStore = _Registry(tx, asker)
        # Its own row is all that the use cases of a bounded credential look up here.
        self.credentials: CredentialStore = tx.credentials
        self.enrolments: EnrolmentStore = NoEnrolments()
        # Only use cases that the owner alone may ask for read or change it.
        self.identities: IdentityStore = tx.identities
        self.federation: FederationStore = NoFederation()
        self.grants: GrantStore = _Grants(tx, asker)
        self.workloads: WorkloadStore = _Workloads(tx, asker)


class _Granted(_Scoped):
    """What a token sees: of its space, what its rights name; of the node's own, what they name as such."""

    def __init__(self, tx: Transaction, asker: Credential, credential: Credential, sight: "Sight") -> None:
        super().__init__(tx, asker)
        grant = sight.grant
        self.jobs = _GrantedJobs(tx, asker, sight)
        self.sessions = _GrantedSessions(tx, asker, sight)
        self.registry = _GrantedRegistry(tx, asker, sight, credential)
        self.records = _GrantedRecords(tx, asker, sight)
        self.grants = _Grants(tx, credential)
        # What the owner alone may ask for was asked for by name; each use case has seen to it that this is the name.
        if may(grant, access.Action.READ_RECORDS):
            self.records = tx.records
        if may(grant, access.Action.READ_FEDERATION) or may(grant, access.Action.CHANGE_FEDERATION):
            self.federation = tx.federation
        if may(grant, access.Action.LIST_WORKLOADS) or may(grant, access.Action.CHANGE_WORKLOADS):
            self.workloads = tx.workloads
        if may(grant, access.Action.READ_NODES) or may(grant, access.Action.CHANGE_NODES):
            self.enrolments = tx.enrolments


def may(grant: Grant, action: access.Action) -> bool:
    """Tell whether a grant names something that only the owner may do."""
    return grants.names_whole(grant.rights, f"{grants.NODE_PREFIX}{action}")


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

    def called(self, tenant: TenantId, caller: JobId, epoch: int, number: int) -> Job | None:
        job = self._tx.jobs.called(tenant, caller, epoch, number)
        return job if job is not None and job.owner == self._own else None

    def calls(self, tenant: TenantId, root: JobId) -> Sequence[Called]:
        return self._tx.jobs.calls(tenant, root) if self._sees_job(tenant, root) else []

    def called_open(self) -> Sequence[Job]:
        return self._tx.jobs.called_open()

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


class _Grants(_Part):
    """Grants that stem from one credential; there are no others."""

    def insert(self, grant: Grant) -> None:
        raise NotAllowed("Grants are made at the token endpoint alone.", code="owner_only")

    def find(self, tenant: TenantId, grant_id: GrantId) -> Grant | None:
        grant = self._tx.grants.find(tenant, grant_id)
        return grant if grant is not None and grant.credential_id == self._own else None

    def chain(self, tenant: TenantId, grant_id: GrantId) -> Sequence[Grant]:
        # All of a chain stem from the same credential.
        return [] if self.find(tenant, grant_id) is None else self._tx.grants.chain(tenant, grant_id)

    def page(
        self, tenant: TenantId, *, limit: int, before: str | None, credential_id: object = None
    ) -> Sequence[Grant]:
        return self._tx.grants.page(tenant, limit=limit, before=before, credential_id=self._own)

    def revoke(self, tenant: TenantId, grant_id: GrantId, at_us: int) -> Sequence[GrantId]:
        return [] if self.find(tenant, grant_id) is None else self._tx.grants.revoke(tenant, grant_id, at_us)

    def count(self, tenant: TenantId, grant_id: GrantId, place: int) -> tuple[int, int]:
        return self._tx.grants.count(tenant, grant_id, place)

    def add(self, tenant: TenantId, grant_id: GrantId, place: int, cost: int) -> None:
        self._tx.grants.add(tenant, grant_id, place, cost)

    def note(self, tenant: TenantId, used_for: str, grant_id: GrantId) -> None:
        self._tx.grants.note(tenant, used_for, grant_id)

    def noted(self, tenant: TenantId, used_for: str) -> GrantId | None:
        return self._tx.grants.noted(tenant, used_for)

    def spaces(self, tenant: TenantId, credential_id: CredentialId) -> set[CredentialId]:
        return self._tx.grants.spaces(tenant, credential_id) if credential_id == self._own else set()

    def of_party(self, name: str, *, alive_at_us: int) -> Sequence[Grant]:
        found = self._tx.grants.of_party(name, alive_at_us=alive_at_us)
        return [grant for grant in found if grant.credential_id == self._own]

    def purge(self, before_us: int) -> int:
        return self._tx.grants.purge(before_us)


class _Workloads(_Part):
    """Who gets which identity is the owner's to say and to see."""

    def insert(self, entry: WorkloadEntry) -> None:
        raise NotAllowed("Only the owner of the node registers a workload.", code="owner_only")

    def all(self) -> Sequence[WorkloadEntry]:
        return []

    def of(self, tenant: TenantId) -> Sequence[WorkloadEntry]:
        return []

    def find(self, tenant: TenantId, entry_id: EntryId) -> WorkloadEntry | None:
        return None

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

    def has_signed(self, worker_id: WorkerId) -> bool:
        return self._tx.registry.has_signed(worker_id)

    def workers(self) -> Sequence[KnownWorker]:
        return self._tx.registry.workers()

    def refer(self, tenant: TenantId, job_id: JobId, digests: Sequence[Digest]) -> None:
        self._tx.registry.refer(tenant, job_id, digests)

    def referred(self, digests: Sequence[Digest]) -> set[Digest]:
        return self._tx.registry.referred(digests)

    def job_refers(self, tenant: TenantId, job_id: JobId, digest: Digest) -> bool:
        return self._sees_job(tenant, job_id) and self._tx.registry.job_refers(tenant, job_id, digest)


class Sight:
    """What a grant reaches of its space: whoever finds a job reads its args, its results and what its mounts gave.

    A right that has ended, or was used up, makes nothing more; what it made is there as long as its token.
    of_key  whether it stands for a key with rights: all of its space was made by that, or by what was made of it
    """

    def __init__(self, tx: Transaction, grant: Grant, *, of_key: bool = False) -> None:
        self._tx = tx
        self._of_key = of_key
        self.grant = grant

    def of_job(self, job: Job) -> bool:
        """Tell whether a right names this job, with what it finds in its session where it has one."""
        wanted = job.request
        mounts = wanted.mounts
        if wanted.session_id is not None:
            session = self._tx.sessions.find(job.tenant, wanted.session_id)
            # Of a session that is no longer kept, nobody knows what it had.
            mounts = (_ANY_MOUNT,) if session is None else session.request.mounts
        return self._reaches(job.tenant, grants.Call(wanted.capability, wanted.version), mounts, job.job_id)

    def of_session(self, session: Session) -> bool:
        """Tell whether a right names this session."""
        wanted = session.request
        call = grants.Call(wanted.capability, wanted.version)
        return self._reaches(session.tenant, call, wanted.mounts, session.session_id)

    def _reaches(self, tenant: TenantId, call: grants.Call, uses: Sequence[MountUse], made: str) -> bool:
        names = {mount.mount_id: mount.name for mount in self._tx.registry.mounts(tenant)} if uses else {}
        call = replace(call, mounts=tuple((use.mount_id, names.get(use.mount_id)) for use in uses))
        return grants.could_have_made(self.grant.rights, call, self._made_by(tenant, made))

    def _made_by(self, tenant: TenantId, made: str) -> Sequence[Right] | None:
        if self._of_key:
            return None
        if not any(right.constraints for right in self.grant.rights):
            return ()
        noted = self._tx.grants.noted(tenant, made)
        grant = None if noted is None else self._tx.grants.find(tenant, noted)
        return () if grant is None else grant.rights


class _GrantedPart(_Part):
    """What belongs to a job is there where the job is."""

    def __init__(self, tx: Transaction, asker: Credential, sight: Sight) -> None:
        super().__init__(tx, asker)
        self._sight = sight

    def _sees_job(self, tenant: TenantId, job_id: JobId) -> bool:
        job = self._tx.jobs.find(tenant, job_id)
        return job is not None and job.owner == self._own and self._sight.of_job(job)


class _GrantedRecords(_GrantedPart, _Records):
    pass


class _GrantedJobs(_GrantedPart, _Jobs):
    def find(self, tenant: TenantId, job_id: JobId) -> Job | None:
        job = super().find(tenant, job_id)
        return job if job is not None and self._sight.of_job(job) else None

    def page(
        self, tenant: TenantId, *, limit: int, before: str | None, status: Status | None, owner: object = None
    ) -> Sequence[Job]:
        page = partial(super().page, tenant, limit=limit, status=status)
        return _filled(page, self._sight.of_job, lambda job: job.job_id, limit=limit, before=before)


class _GrantedSessions(_GrantedPart, _Sessions):
    def find(self, tenant: TenantId, session_id: SessionId) -> Session | None:
        session = super().find(tenant, session_id)
        return session if session is not None and self._sight.of_session(session) else None

    def page(
        self, tenant: TenantId, *, limit: int, before: str | None, owner: object = None
    ) -> Sequence[Session]:
        page = partial(super().page, tenant, limit=limit)
        return _filled(page, self._sight.of_session, lambda session: session.session_id, limit=limit, before=before)


def _filled(
    page: Callable[..., Sequence[T]], seen: Callable[[T], bool], id_of: Callable[[T], str], *, limit: int, before: str | None
) -> Sequence[T]:
    """Return a page of what is seen, which may take several of all that there is."""
    found: list[T] = []
    for _ in range(_PAGES_LOOKED_AT_MAX):
        batch = page(before=before)
        found += [one for one in batch if seen(one)]
        if len(batch) < limit or len(found) >= limit:
            break
        before = id_of(batch[-1])
    return found[:limit]


class _GrantedRegistry(_GrantedPart, _Registry):
    def __init__(self, tx: Transaction, asker: Credential, sight: Sight, credential: Credential) -> None:
        super().__init__(tx, asker, sight)
        self._credential = credential
        self._grant = sight.grant

    def mounts(self, tenant: TenantId) -> Sequence[Mount]:
        """Return what the credential behind it may name, and of that what some right allows."""
        found = self._tx.registry.mounts(tenant)
        if may(self._grant, access.Action.CHANGE_MOUNTS):
            return found
        held = [one for one in found if not self._credential.bounded or one.mount_id in self._credential.mounts]
        allowed = [right.mounts for right in self._grant.rights]
        return [one for one in held if any(names is None or {one.mount_id, one.name} & set(names) for names in allowed)]

    def put_mount(self, mount: Mount) -> None:
        if not may(self._grant, access.Action.CHANGE_MOUNTS):
            super().put_mount(mount)
        self._tx.registry.put_mount(mount)

    def remove_mount(self, tenant: TenantId, mount_id: MountId) -> bool:
        if not may(self._grant, access.Action.CHANGE_MOUNTS):
            return super().remove_mount(tenant, mount_id)
        return self._tx.registry.remove_mount(tenant, mount_id)

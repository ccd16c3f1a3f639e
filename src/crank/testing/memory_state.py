"""What the store in memory keeps, as JSON text, and the part of it that all its small stores share."""

import json
from dataclasses import dataclass, field

from crank.domain import job_codec
from crank.domain.credential import Credential
from crank.domain.enrolment import Enrolment
from crank.domain.federation import Federated
from crank.domain.grant import GrantId
from crank.domain.handle import CalledBy
from crank.domain.identity import SpiffeId
from crank.domain.ids import CredentialId, Digest, JobId, MountId, SessionId, TenantId
from crank.domain.issued import Ban, IssuedIdentity
from crank.domain.job import Job, Mount, Status
from crank.domain.json import dumps
from crank.domain.worker import Replay
from crank.domain.workload import EntryId
from crank.errors import StoreError


@dataclass(frozen=True, slots=True)
class Row:
    """One job: the parts that queries ask for, and its text."""

    seq: int
    tenant: TenantId
    job_id: JobId
    status: Status
    ended_us: int | None
    session_id: SessionId | None
    owner: CredentialId | None
    called_by: CalledBy | None
    text: str

    def job(self) -> Job:
        """Return the job, read anew from its text."""
        return job_codec.parse_job(json.loads(self.text))


def row_of(seq: int, job: Job) -> Row:
    """Make the row of a job."""
    text = dumps(job_codec.job_document(job))
    return Row(
        seq, job.tenant, job.job_id, job.status, job.ended_us, job.request.session_id, job.owner, job.called_by, text
    )


@dataclass(slots=True)
class State:
    """Everything that a store in memory keeps."""

    jobs: dict[tuple[TenantId, JobId], Row] = field(default_factory=dict)
    sessions: dict[tuple[TenantId, SessionId], str] = field(default_factory=dict)
    seq: int = 0
    replays: dict[tuple[TenantId, str], Replay] = field(default_factory=dict)
    records: list[tuple[str, JobId | None, str]] = field(default_factory=list)
    credentials: dict[tuple[TenantId, CredentialId], tuple[Digest, Credential]] = field(default_factory=dict)
    brought: set[tuple[CredentialId, Digest]] = field(default_factory=set)
    enrolments: dict[str, tuple[Digest | None, Enrolment]] = field(default_factory=dict)
    mounts: dict[tuple[TenantId, MountId], Mount] = field(default_factory=dict)
    workers: dict[str, str] = field(default_factory=dict)
    references: set[tuple[TenantId, JobId, Digest]] = field(default_factory=set)
    identities: dict[str, IssuedIdentity] = field(default_factory=dict)
    bans: dict[SpiffeId, Ban] = field(default_factory=dict)
    revocation_lists: int = 0
    federation: dict[str, Federated] = field(default_factory=dict)
    grants: dict[tuple[TenantId, GrantId], str] = field(default_factory=dict)
    grant_counts: dict[tuple[TenantId, GrantId, int], tuple[int, int]] = field(default_factory=dict)
    grant_uses: dict[tuple[TenantId, str], GrantId] = field(default_factory=dict)
    workloads: dict[tuple[TenantId, EntryId], str] = field(default_factory=dict)

    def copy(self) -> "State":
        """Return a copy that can change without this one."""
        return State(
            jobs=dict(self.jobs),
            sessions=dict(self.sessions),
            seq=self.seq,
            replays=dict(self.replays),
            records=list(self.records),
            credentials=dict(self.credentials),
            brought=set(self.brought),
            enrolments=dict(self.enrolments),
            mounts=dict(self.mounts),
            workers=dict(self.workers),
            references=set(self.references),
            identities=dict(self.identities),
            bans=dict(self.bans),
            revocation_lists=self.revocation_lists,
            federation=dict(self.federation),
            grants=dict(self.grants),
            grant_counts=dict(self.grant_counts),
            grant_uses=dict(self.grant_uses),
            workloads=dict(self.workloads),
        )


class Part:
    """What all stores share: the state, and whether they may change it."""

    def __init__(self, state: State, *, writable: bool) -> None:
        self._state = state
        self._writable = writable

    def _change(self) -> State:
        if not self._writable:
            raise StoreError("A read must not write.", code="store_read_only")
        return self._state

"""A session: one sandbox that lives on between jobs, so that they share variables, imports and files."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from crank.domain.capability import Accelerator
from crank.domain.ids import CredentialId, InstanceId, JobId, SessionId, TenantId, WorkerId
from crank.domain.job import MountUse
from crank.domain.outcome import End
from crank.domain.trust import Attestation

DEFAULT_CONTEXT = "main"


class SessionState(StrEnum):
    """Where a session stands. An ended one never changes."""

    OPENING = "opening"
    OPEN = "open"
    ENDED = "ended"


class SessionReason(StrEnum):
    """Why a session ended. Stable words: they are stored, sent and shown.

    idle         no job ran or waited for as long as its idle clock allows
    lifetime     its lifetime was over
    closed       its owner closed it
    crashed      a job broke its sandbox: `job_id` and `job_end` say which and how
    failed       its sandbox could not be built
    worker_lost  its worker stopped, or stayed away
    """

    IDLE = "idle"
    LIFETIME = "lifetime"
    CLOSED = "closed"
    CRASHED = "crashed"
    FAILED = "failed"
    WORKER_LOST = "worker_lost"


SENTENCES: Mapping[SessionReason, str] = {
    SessionReason.IDLE: "No job ran in it for as long as its idle clock allows.",
    SessionReason.LIFETIME: "Its lifetime was over.",
    SessionReason.CLOSED: "It was closed.",
    SessionReason.CRASHED: "A job ended its sandbox.",
    SessionReason.FAILED: "Its sandbox could not be built.",
    SessionReason.WORKER_LOST: "Its worker stopped, or stayed away for too long.",
}


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """How a session ended.

    code, message  make the reason precise, `no_user_namespace`; message is one sentence for a person
    job_id, job_end  for `crashed`: the job that broke it, and how that job ended
    """

    reason: SessionReason
    code: str | None = None
    message: str | None = None
    job_id: JobId | None = None
    job_end: End | None = None

    @property
    def sentence(self) -> str:
        """Return why it ended, for a person."""
        return self.message or SENTENCES[self.reason]


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """What was asked, checked and with defaults filled in.

    accelerator   what its capability computes on
    memory_bytes  of all its jobs together; None leaves it to the capability
    idle_sec      it ends when no job ran for this long
    lifetime_sec  it ends this long after it was opened, even while a job runs
    attestation   as of a job
    """

    capability: str
    version: str | None
    env_profile: str | None
    accelerator: Accelerator | None
    gpu_model: str | None
    memory_bytes: int | None
    idle_sec: float
    lifetime_sec: float
    mounts: tuple[MountUse, ...] = ()
    name: str | None = None
    attestation: Attestation | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """One session, bound to one worker from its first moment.

    used_us  when its idle clock last began anew: at its opening, at the end of a job, or when it was touched
    tier     the isolation that really holds; None until its sandbox stands
    owner    the bounded credential that asked, as of a job
    """

    session_id: SessionId
    tenant: TenantId
    request: SessionRequest
    state: SessionState
    worker_id: WorkerId
    instance_id: InstanceId
    created_us: int
    used_us: int
    opened_us: int | None = None
    ended_us: int | None = None
    tier: str | None = None
    end: SessionEnd | None = None
    owner: CredentialId | None = None

    @property
    def ended(self) -> bool:
        """Tell whether it is over."""
        return self.state is SessionState.ENDED

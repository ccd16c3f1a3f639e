"""A job (what was asked), its attempts (each one try under a lease), and the table of legal moves."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from crank.domain.capability import Accelerator, Effects
from crank.domain.handle import CalledBy, Handle
from crank.domain.ids import CredentialId, Digest, InstanceId, JobId, MountId, SessionId, TenantId, WorkerId
from crank.domain.json import JsonValue
from crank.domain.outcome import End, Reason
from crank.domain.trust import Attestation


class Status(StrEnum):
    """Where a job stands. The last six are ends; an end never changes."""

    QUEUED = "queued"
    LEASED = "leased"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    LOST = "lost"


ENDED = frozenset(
    {Status.SUCCEEDED, Status.FAILED, Status.TIMED_OUT, Status.CANCELLED, Status.REFUSED, Status.LOST}
)
HELD = frozenset({Status.LEASED, Status.RUNNING})

# From each status, the ones that may follow. A result can overtake the message that it started.
MOVES: Mapping[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.LEASED, Status.CANCELLED, Status.REFUSED}),
    Status.LEASED: frozenset({Status.RUNNING, Status.QUEUED, *(ENDED - {Status.REFUSED})}),
    Status.RUNNING: frozenset({Status.QUEUED, *(ENDED - {Status.REFUSED})}),
    **{status: frozenset() for status in ENDED},
}


def may_move(current: Status, following: Status) -> bool:
    """Tell whether a job may go from one status to another."""
    return following in MOVES[current]


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that the job finds at /scratch/<path>; its bytes are a blob."""

    path: str
    sha256: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class MountUse:
    """A folder of a node that the job finds read-only at /in/<name>."""

    name: str
    mount_id: MountId


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What was asked, checked and with defaults filled in. Never changed after it was accepted.

    version            `1`, `1.2` or `1.2.3`; None takes any
    accelerator, gpu_model, memory_bytes, timeout_sec, max_output_bytes, cpu_sec, idle_sec, no_output_sec
                       None leaves it to the capability
    code               the script, for a capability that takes one
    args               any JSON value
    effects            what running twice would mean; EXTERNAL unless the caller says otherwise
    session_id, context  the session that runs it, with the globals of that name
    program            argv of one of the profile's programs, in place of code
    stdin              its standard input stays open for the caller; otherwise it is empty
    detach             it goes on when nobody waits for it or follows it any more
    handles            what its code may ask for while it runs
    attestation        how well the machine of the worker that runs it must have proved itself; None leaves it to the node
    """

    capability: str
    version: str | None
    env_profile: str | None
    accelerator: Accelerator | None
    gpu_model: str | None
    timeout_sec: float | None
    max_output_bytes: int | None
    memory_bytes: int | None
    code: str | None
    args: JsonValue
    files: tuple[InputFile, ...]
    mounts: tuple[MountUse, ...]
    effects: Effects
    route: str
    traceparent: str | None
    cpu_sec: float | None = None
    idle_sec: float | None = None
    no_output_sec: float | None = None
    session_id: SessionId | None = None
    context: str | None = None
    program: tuple[str, ...] | None = None
    stdin: bool = False
    detach: bool = True
    handles: tuple[Handle, ...] = ()
    attestation: Attestation | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One accepted (or refused) job.

    epoch        counts the leases that were given; a message with another epoch changes nothing
    hold         money set aside for it, in millionths of a credit; 0 until budgets exist
    outcome      JSON document of the outcome (see `outcome_codec`), kept when small
    outcome_blob digest of that document when it is large
    end          how it ended, None while it has not
    owner        the bounded credential that asked, which alone may see it beside the node's owner; None: the owner
    called_by    the call of another job that it was made for, None where somebody submitted it
    """

    job_id: JobId
    tenant: TenantId
    request: JobRequest
    request_digest: Digest
    status: Status
    epoch: int
    attempts: int
    submitted_us: int
    started_us: int | None = None
    ended_us: int | None = None
    worker_id: WorkerId | None = None
    instance_id: InstanceId | None = None
    cancel_requested: bool = False
    end: End | None = None
    outcome: JsonValue = None
    outcome_blob: Digest | None = None
    hold: int = 0
    owner: CredentialId | None = None
    called_by: CalledBy | None = None

    @property
    def ended(self) -> bool:
        """Tell whether the job is over."""
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class Refusal:
    """A decision against a request: a stable code, a sentence, what to do, and the constraint it rests on."""

    code: str
    message: str
    fix: str
    constraint: str | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of one node that jobs may read. Agents see its name or id, never the path."""

    mount_id: MountId
    tenant: TenantId
    node_id: str
    name: str | None
    host_path: str
    created_us: int


def status_of(end: End) -> Status:
    """Derive the final status from how an attempt ended. One table, so that no caller invents an end."""
    if end.reason is Reason.EXITED:
        return Status.SUCCEEDED if end.exit_code == 0 else Status.FAILED
    return _STATUS_BY_REASON[end.reason]


_STATUS_BY_REASON: Mapping[Reason, Status] = {
    Reason.RAISED: Status.FAILED,
    Reason.SIGNALLED: Status.FAILED,
    Reason.TIMEOUT: Status.TIMED_OUT,
    Reason.MEMORY: Status.FAILED,
    Reason.PROCESSES: Status.FAILED,
    Reason.OUTPUT: Status.FAILED,
    Reason.DISK: Status.FAILED,
    Reason.INODES: Status.FAILED,
    Reason.FILES: Status.FAILED,
    Reason.FILE_SIZE: Status.FAILED,
    Reason.POLICY: Status.FAILED,
    Reason.PROTOCOL_VIOLATION: Status.FAILED,
    Reason.SANDBOX_FAILED: Status.FAILED,
    Reason.CANCELLED: Status.CANCELLED,
    Reason.WORKER_LOST: Status.LOST,
    Reason.OUTCOME_UNKNOWN: Status.LOST,
    Reason.REFUSED: Status.REFUSED,
}

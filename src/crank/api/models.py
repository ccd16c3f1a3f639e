"""Shapes of answers, for the OpenAPI document to tell."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from crank.domain.job import Status
from crank.domain.outcome import Clock, Reason, ToldBy


class Answer(BaseModel):
    """What the node sends; a later version may add fields."""


class ProblemEntry(Answer):
    """One thing that is wrong."""

    field: str
    cause: str
    fix: str


class ProblemDocument(Answer):
    """A refusal (RFC 9457): `code` is stable, `fix` says what to do."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(examples=["unknown_field"])
    field: str | None
    fix: str
    problems: list[ProblemEntry]
    job_id: str | None


class EndDocument(Answer):
    """How it ended; parts that do not apply are null."""

    reason: Reason
    exit_code: int | None
    signal: str | None
    clock: Clock | None
    code: str | None
    message: str | None


class StreamCount(Answer):
    """What became of one output stream."""

    seen_bytes: int
    kept_bytes: int
    truncated: bool


class Metrics(Answer):
    """What the whole process tree used."""

    wall_sec: float
    cpu_sec: float
    peak_memory_bytes: int | None
    setup_sec: float
    pool_hit: bool = Field(description="The sandbox stood ready before the job came.")
    tasks_peak: int | None = Field(description="Most processes and threads at one time; null where nobody counts.")
    stdout: StreamCount
    stderr: StreamCount


class ArtifactDocument(Answer):
    """A file that the job left in /out."""

    path: str
    size_bytes: int
    sha256: str
    media_type: str


class SkippedDocument(Answer):
    """Something in /out that was not collected."""

    path: str
    cause: str


class DenialDocument(Answer):
    """Evidence of one thing that a layer refused."""

    layer: str = Field(examples=["network"])
    action: str = Field(description="What was tried; the job's own words when told_by is job.")
    count: int
    told_by: ToldBy = Field(description="Whose word it is; job means that nothing but the job says so.")


class MountUsed(Answer):
    """A mount as a job sees it: at /in/<name>."""

    name: str
    mount_id: str


class CallerDocument(Answer):
    """The call of another job that a job was made for."""

    job_id: str
    epoch: int
    number: int
    handle: str


class JobHead(Answer):
    """A job without its output."""

    job_id: str
    status: Status
    capability: str
    version: str | None
    env_profile: str | None
    accelerator: str | None
    effects: str
    session_id: str | None
    context: str | None
    mounts: list[MountUsed]
    submitted_at: str
    started_at: str | None
    ended_at: str | None
    attempts: int
    epoch: int
    worker_id: str | None
    cancel_requested: bool
    called_by: CallerDocument | None = Field(description="Which other job's code called for it.")
    handles: list[str] = Field(description="Names of what its own code may ask for.")
    pending: str | None = Field(description="Why it waits, while it is queued.")
    end: EndDocument | None


class JobDocument(JobHead):
    """The whole job."""

    stdout: str
    stderr: str
    has_result: bool
    result: Any
    displays: list[Any]
    artifacts: list[ArtifactDocument]
    skipped: list[SkippedDocument]
    metrics: Metrics | None
    tier: str | None
    layers: list[str] = Field(description="The walls that stood, each proven from inside before the code ran.")
    denials: list[DenialDocument]
    notes: list[str]


class JobsPage(Answer):
    """Jobs, newest first; give `next` as `before` for more."""

    jobs: list[JobHead]
    next: str | None


class ArtifactsPage(Answer):
    """The job's artifacts."""

    artifacts: list[ArtifactDocument]


class BlobStored(Answer):
    """A blob that is safely stored."""

    sha256: str
    size_bytes: int


class MountDocument(Answer):
    """A mount as agents see it: never a path of the host."""

    mount_id: str
    name: str | None
    node_id: str
    created_at: str | None


class MountsPage(Answer):
    """The tenant's mounts."""

    mounts: list[MountDocument]


class PoolDocument(Answer):
    """What a worker keeps ready for one profile."""

    profile: str
    parked: int = Field(description="Sandboxes that stand and wait for a job.")
    burnt: int = Field(description="Thrown away as doubtful since the worker started.")


class WorkerDocument(Answer):
    """A worker that enrolled."""

    worker_id: str
    instance_id: str
    node_id: str
    connected: bool
    draining: bool
    slots: int
    free_slots: int
    capabilities: list[str]
    attestation: Literal["none", "thumbprint", "join"] = Field(
        description="How its node proved itself, as its certificate says; none: it is the controller's own machine's."
    )
    tier: str | None = Field(description="How well its scripts are walled in; null where it runs none.")
    pools: list[PoolDocument]
    enrolled_at: str
    seen_at: str


class WorkersPage(Answer):
    """Workers."""

    workers: list[WorkerDocument]


class ManifestDocument(Answer):
    """What a worker signed."""

    worker_id: str
    instance_id: str
    node_id: str
    attestation: Literal["none", "thumbprint", "join"]
    manifest: str = Field(
        description="Compact JWS (ES256, typ crank-manifest+jws): x5c is the worker's X.509-SVID with its chain."
    )
    sha256: str = Field(description="Of the manifest's text.")


class CapabilityDocument(Answer):
    """What connected workers offer."""

    schema_: Annotated[int, Field(alias="schema")]
    name: str
    version: str
    summary: str
    effects: str
    accelerator: str
    gpu_model: str | None
    env_profile: str | None
    profile_digest: str | None
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    error_codes: list[str]
    required_capabilities: list[str]
    timeout_sec: float
    memory_bytes: int | None
    limits: dict[str, float] = Field(description="What one job may use; a name that is missing is not enforced.")
    tier: str | None = Field(description="How well its jobs are walled in.")
    takes_files: bool = Field(description="Whether it takes files and mounts beside its args; scripts always do.")
    workers: list[str]


class CapabilitiesPage(Answer):
    """Capabilities."""

    capabilities: list[CapabilityDocument]


class RecordDocument(Answer):
    """One line of the audit trail."""

    position: int
    record_id: str
    at: str
    kind: str
    subject: str
    job_id: str | None
    facts: dict[str, Any]


class RecordsPage(Answer):
    """Records in order; give `next` as `after` for more."""

    records: list[RecordDocument]
    next: int | None


class BidsPage(Answer):
    """Workers do not bid yet, so the list is empty."""

    bids: list[Any]


class Health(Answer):
    """The process answers."""

    status: Literal["ok"]
    version: str


class Ready(Answer):
    """Jobs are accepted and can run now."""

    ready: bool
    workers: int
    queued: int
    held: int

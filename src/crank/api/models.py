"""The shapes of the API, so that its OpenAPI document is true."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from crank.domain.quantity import FILES_MAX, JSON_DEPTH_MAX, OUTPUT_BYTES_MAX, TIMEOUT_SEC_MAX

_WHOLE_MAX = 2**53 - 1


class Strict(BaseModel):
    """A body in which nothing unknown is accepted and no type is guessed."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Constraints(Strict):
    """What the job needs, and the limits it sets itself."""

    accelerator: str | None = Field(None, description="`cpu` or `gpu`; left out, a CPU is preferred.", examples=["cpu"])
    gpu_model: str | None = Field(None, max_length=128)
    timeout_sec: float | None = Field(None, gt=0, le=TIMEOUT_SEC_MAX, description="Wall clock.", examples=[30])
    max_output_bytes: int | None = Field(
        None, ge=1, le=OUTPUT_BYTES_MAX, description="Kept of stdout and of stderr, each: head and tail.",
        examples=[100_000],
    )  # fmt: skip
    memory_bytes: int | None = Field(None, ge=1, le=_WHOLE_MAX)


class InputFileBody(Strict):
    """A file that the job finds at /scratch/<path>: exactly one of text, base64, sha256."""

    path: str = Field(examples=["table.csv"])
    text: str | None = None
    base64: str | None = None
    sha256: str | None = Field(None, description="A blob uploaded before.")


class MountBody(Strict):
    """A mounted folder under a name of the job's own."""

    name: str
    mount: str = Field(description="The mount's name or id.")


class JobBody(Strict):
    """A job. Only `code` is needed; `env_profile` is python-core when neither it nor `capability` is given."""

    job_id: str | None = Field(None, description="Your own id, unique for ever; made by the node if left out.")
    runtime: str | None = Field(None, examples=["python3.11"])
    env_profile: str | None = Field(None, examples=["python-core"])
    capability: str | None = Field(None, examples=["python.run.core"])
    version: str | None = Field(None, description="`1`, `1.2` or `1.2.3`: any version that starts so.", examples=["1"])
    constraints: Constraints | None = None
    code: str | None = Field(None, examples=["print(args['n'] + 1)"])
    args: Any = Field(None, description=f"Any JSON, nested at most {JSON_DEPTH_MAX} deep.", examples=[{"n": 41}])
    files: list[InputFileBody] | None = Field(None, description=f"At most {FILES_MAX}.")
    mounts: list[str | MountBody] | None = None
    session: Any = Field(None, description="Not supported yet.")
    idempotency_key: str | None = Field(None, description="The same as the Idempotency-Key header.")
    budget: Any = Field(None, description="Not supported yet.")
    route: str | None = Field(None, description="`local`.", examples=["local"])
    effects: str | None = Field(None, description="`pure`, `idempotent` or `external` (default).", examples=["pure"])
    detach: bool | None = Field(None, description="`true`: a job always outlives its connection.")


class MountRequest(Strict):
    """A folder of this node to make usable by jobs."""

    path: str = Field(max_length=4096, examples=["/srv/documents"])
    name: str | None = Field(None, examples=["documents"])


class End(BaseModel):
    """How the job ended."""

    reason: str
    exit_code: int | None
    signal: str | None
    clock: str | None
    code: str | None
    message: str | None


class StreamFacts(BaseModel):
    """Bytes of one output stream."""

    seen_bytes: int
    kept_bytes: int
    truncated: bool


class Metrics(BaseModel):
    """What the job used."""

    wall_sec: float
    cpu_sec: float
    peak_memory_bytes: int | None
    setup_sec: float
    stdout: StreamFacts
    stderr: StreamFacts


class ArtifactView(BaseModel):
    """A file that the job left in /out."""

    path: str
    size_bytes: int
    sha256: str
    media_type: str


class SkippedView(BaseModel):
    """Something in /out that was not kept, and why."""

    path: str
    cause: str


class JobHead(BaseModel):
    """A job without its output."""

    job_id: str
    status: Literal[
        "queued", "leased", "running", "succeeded", "failed", "timed_out", "cancelled", "refused", "lost"
    ]  # fmt: skip
    capability: str
    version: str | None
    env_profile: str | None
    accelerator: str | None
    effects: str
    submitted_at: str
    started_at: str | None
    ended_at: str | None
    attempts: int
    epoch: int
    worker_id: str | None
    cancel_requested: bool
    pending: str | None
    end: End | None


class JobView(JobHead):
    """A job, whole."""

    stdout: str
    stderr: str
    has_result: bool
    result: Any
    displays: list[Any]
    artifacts: list[ArtifactView]
    skipped: list[SkippedView]
    metrics: Metrics | None
    tier: str | None
    denials: list[str]


class JobsPage(BaseModel):
    """Jobs, newest first; `next` goes into `before`."""

    jobs: list[JobHead]
    next: str | None


class ArtifactsView(BaseModel):
    """What a job left."""

    artifacts: list[ArtifactView]


class MountView(BaseModel):
    """A mount, as its owner sees it."""

    mount_id: str
    name: str | None
    node_id: str
    host_path: str


class MountsView(BaseModel):
    """The mounts of this credential."""

    mounts: list[MountView]


class BlobView(BaseModel):
    """A stored blob."""

    sha256: str
    size_bytes: int


class WorkerView(BaseModel):
    """A worker."""

    worker_id: str
    instance_id: str
    node_id: str
    connected: bool
    draining: bool
    slots: int
    free_slots: int
    capabilities: list[str]
    enrolled_at: str
    seen_at: str


class WorkersView(BaseModel):
    """Every worker that is known."""

    workers: list[WorkerView]


class CapabilityView(BaseModel):
    """A capability that is offered now."""

    model_config = ConfigDict(protected_namespaces=())
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
    schema_version: int = Field(alias="schema")
    workers: list[str]


class CapabilitiesView(BaseModel):
    """Everything that can be asked for now."""

    capabilities: list[CapabilityView]


class RecordView(BaseModel):
    """One line of the audit trail."""

    position: int
    record_id: str
    at: str
    kind: str
    subject: str
    job_id: str | None
    facts: dict[str, Any]


class RecordsPage(BaseModel):
    """Records in order; `next` goes into `after`."""

    records: list[RecordView]
    next: int | None


class BidsView(BaseModel):
    """Bids of workers. Workers of this version make none, so the list is empty."""

    bids: list[Any]


class HealthView(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class ReadyView(BaseModel):
    """Whether jobs run now."""

    ready: bool
    workers: int
    queued: int
    held: int


class ProblemEntry(BaseModel):
    """One thing that is wrong."""

    field: str
    cause: str
    fix: str


class ProblemView(BaseModel):
    """A problem document (RFC 9457) with a stable code, the field, the cause (`detail`) and a fix."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    field: str | None
    fix: str
    problems: list[ProblemEntry]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the responses of a route that may fail with these statuses."""
    return {
        status: {
            "description": "A problem document.",
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemView"}}},
        }
        for status in statuses
    }

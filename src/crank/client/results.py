"""What a node answers, as typed values. Fields that a newer node adds are kept in `document`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crank.domain.json import JsonObject, JsonValue
from crank.errors import ProtocolError

ENDED = frozenset({"succeeded", "failed", "timed_out", "cancelled", "refused", "lost"})


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a job ended; `reason` is one of Crank's words (see `crank.domain.outcome.Reason`)."""

    reason: str
    exit_code: int | None = None
    signal: str | None = None
    clock: str | None = None
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class StreamMetrics:
    """How much of one output stream there was and how much was kept."""

    seen_bytes: int = 0
    kept_bytes: int = 0
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Metrics:
    """What the job used."""

    wall_sec: float = 0.0
    cpu_sec: float = 0.0
    peak_memory_bytes: int | None = None
    setup_sec: float = 0.0
    pool_hit: bool = False
    tasks_peak: int | None = None
    stdout: StreamMetrics = field(default_factory=StreamMetrics)
    stderr: StreamMetrics = field(default_factory=StreamMetrics)


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file that a job left in /out."""

    path: str
    size_bytes: int
    sha256: str
    media_type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Skipped:
    """One thing in /out that was not collected, and why."""

    path: str
    cause: str


@dataclass(frozen=True, slots=True)
class Denial:
    """Evidence of one thing that a layer refused; `told_by` is `kernel`, `sandbox`, or `job` for its own word."""

    layer: str
    action: str
    count: int = 1
    told_by: str = "sandbox"


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the node that jobs may read."""

    mount_id: str
    name: str | None
    document: JsonObject = field(repr=False, default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event of a job: `stdout`, `stderr`, `progress`, `status` or `end`, with its position."""

    position: int
    kind: str
    body: JsonObject

    @property
    def text(self) -> str:
        """Return what was printed, for stdout and stderr; what was told, for progress."""
        return str(self.body.get("message" if self.kind == "progress" else "text") or "")


@dataclass(frozen=True, slots=True)
class JobResult:
    """A job as the node tells it: where it stands, and when it is over, everything that it left.

    called_by  the call of another job that it was made for: that job's `job_id`, `epoch`, `number` and `handle`
    handles    names of what its own code may ask for
    """

    job_id: str
    status: str
    capability: str | None = None
    version: str | None = None
    env_profile: str | None = None
    accelerator: str | None = None
    effects: str | None = None
    session_id: str | None = None
    context: str | None = None
    submitted_at: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    attempts: int = 0
    epoch: int = 0
    worker_id: str | None = None
    cancel_requested: bool = False
    called_by: JsonObject | None = None
    handles: tuple[str, ...] = ()
    pending: str | None = None
    end: JobEnd | None = None
    stdout: str = ""
    stderr: str = ""
    result: JsonValue = None
    has_result: bool = False
    displays: tuple[JsonValue, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    metrics: Metrics | None = None
    tier: str | None = None
    layers: tuple[str, ...] = ()
    denials: tuple[Denial, ...] = ()
    notes: tuple[str, ...] = ()
    document: JsonObject = field(repr=False, compare=False, default_factory=dict)

    @property
    def ended(self) -> bool:
        """Tell whether the job is over."""
        return self.status in ENDED

    @property
    def ok(self) -> bool:
        """Tell whether the job succeeded."""
        return self.status == "succeeded"


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, newest first, and the cursor of the next page (None at the end)."""

    jobs: tuple[JobResult, ...]
    next: str | None


_PLAIN = (
    "capability", "version", "env_profile", "accelerator", "effects", "session_id", "context", "submitted_at", "started_at",
    "ended_at", "attempts", "epoch", "worker_id", "cancel_requested", "called_by", "pending", "stdout", "stderr", "result", "has_result", "tier",
)  # fmt: skip


def _known(kind: type, body: Mapping[str, Any]) -> dict[str, Any]:
    names = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return {name: value for name, value in body.items() if name in names}


def parse_job(body: Any) -> JobResult:
    """Read a job document. Raises ProtocolError when it is none."""
    if not isinstance(body, dict) or not isinstance(body.get("job_id"), str) or not isinstance(body.get("status"), str):
        raise ProtocolError("The node answered something that is not a job.")
    try:
        return JobResult(
            job_id=body["job_id"],
            status=body["status"],
            **{name: body[name] for name in _PLAIN if name in body},
            end=None if body.get("end") is None else JobEnd(**_known(JobEnd, body["end"])),
            displays=tuple(body.get("displays") or ()),
            artifacts=tuple(Artifact(**_known(Artifact, entry)) for entry in body.get("artifacts") or ()),
            skipped=tuple(Skipped(**_known(Skipped, entry)) for entry in body.get("skipped") or ()),
            metrics=None if body.get("metrics") is None else _metrics(body["metrics"]),
            handles=tuple(body.get("handles") or ()),
            layers=tuple(body.get("layers") or ()),
            denials=_denials(body),
            notes=tuple(body.get("notes") or ()),
            document=body,
        )
    except (TypeError, AttributeError) as fault:
        raise ProtocolError(f"The node answered a job that cannot be read: {fault}") from fault


def _denials(body: Mapping[str, Any]) -> tuple[Denial, ...]:
    # A node of the first version told sentences; they stay in `document`.
    entries = (entry for entry in body.get("denials") or () if isinstance(entry, Mapping))
    return tuple(Denial(**_known(Denial, entry)) for entry in entries)


def _metrics(body: Mapping[str, Any]) -> Metrics:
    streams = {name: StreamMetrics(**_known(StreamMetrics, body.get(name) or {})) for name in ("stdout", "stderr")}
    return Metrics(**{**_known(Metrics, body), **streams})


def parse_mount(body: Any) -> Mount:
    """Read a mount document. Raises ProtocolError when it is none."""
    if not isinstance(body, dict) or not isinstance(body.get("mount_id"), str):
        raise ProtocolError("The node answered something that is not a mount.")
    return Mount(mount_id=body["mount_id"], name=body.get("name"), document=body)


def parse_page(body: Any) -> Page:
    """Read one page of jobs. Raises ProtocolError when it is none."""
    if not isinstance(body, dict) or not isinstance(body.get("jobs"), list):
        raise ProtocolError("The node answered something that is not a list of jobs.")
    return Page(jobs=tuple(parse_job(entry) for entry in body["jobs"]), next=body.get("next"))

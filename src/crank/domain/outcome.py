"""How one attempt ended, and the evidence for it. Reasons are Crank's words, never the job's."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias

from crank.domain.ids import Digest
from crank.domain.json import JsonValue

# Code of the fault of a run whose sandbox died before its first line: it may be run in another.
NEVER_BEGAN = "never_began"


class Reason(StrEnum):
    """Why an attempt ended. Stable words: they are stored, sent and shown."""

    EXITED = "exited"
    RAISED = "raised"
    SIGNALLED = "signalled"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    PROCESSES = "processes"
    OUTPUT = "output"
    DISK = "disk"
    INODES = "inodes"
    FILES = "open_files"
    FILE_SIZE = "file_size"
    POLICY = "policy"
    PROTOCOL_VIOLATION = "protocol_violation"
    CANCELLED = "cancelled"
    SANDBOX_FAILED = "sandbox_failed"
    WORKER_LOST = "worker_lost"
    OUTCOME_UNKNOWN = "outcome_unknown"
    REFUSED = "refused"


class Clock(StrEnum):
    """Which deadline ended the attempt; LIFETIME is that of a session, the others are limits of a run."""

    WALL = "wall"
    CPU = "cpu"
    IDLE = "idle"
    NO_OUTPUT = "no_output"
    LIFETIME = "lifetime"


@dataclass(frozen=True, slots=True)
class End:
    """The one statement of how it ended.

    exit_code  as the process gave it (0 to 255), for exited and raised
    signal     the signal's name, `SIGSEGV`, for signalled
    clock      for timeout
    code       a stable code that makes the reason precise, `unsatisfied-capability`
    message    one sentence for a person
    """

    reason: Reason
    exit_code: int | None = None
    signal: str | None = None
    clock: Clock | None = None
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """What was kept of one output stream. `text` is head, a marker line and tail where bytes were cut."""

    text: str = ""
    seen_bytes: int = 0
    kept_bytes: int = 0

    @property
    def truncated(self) -> bool:
        """Tell whether bytes were dropped."""
        return self.seen_bytes > self.kept_bytes


@dataclass(frozen=True, slots=True)
class Usage:
    """What the whole process tree used. A peak is None where the host cannot tell.

    setup_sec   from the request for a sandbox until its walls stood and were proven; on a pool hit, until
                the parked one was handed over
    pool_hit    the sandbox stood ready before the job came
    tasks_peak  most processes and threads at one time
    """

    wall_sec: float = 0.0
    cpu_sec: float = 0.0
    peak_memory_bytes: int | None = None
    setup_sec: float = 0.0
    pool_hit: bool = False
    tasks_peak: int | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file that a job left in /out. `path` is relative, slash-separated and safe to show."""

    path: str
    size_bytes: int
    sha256: Digest
    media_type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Skipped:
    """One thing in /out that was not collected, and why (a link, a socket, over quota, …)."""

    path: str
    cause: str


# Whose word a denial is: the kernel counted it, our supervisor saw it, or the job itself says so.
ToldBy: TypeAlias = Literal["kernel", "sandbox", "job"]
TOLD_BY: tuple[ToldBy, ...] = ("kernel", "sandbox", "job")
# The walls by the names that evidence uses; a later worker may know more of them.
LAYERS = ("network", "seccomp", "landlock", "mounts", "limits", "cgroup", "handle")


@dataclass(frozen=True, slots=True)
class Denial:
    """Evidence of one thing that a layer refused, `count` times.

    layer    one of LAYERS
    action   what was tried: `connect to example.com:443`, `socket`, `write /usr/new`; the job's words when
             told_by is `job`, so it is shown escaped and never obeyed
    told_by  whose word it is; only `kernel` and `sandbox` are more than the job's own word
    """

    layer: str
    action: str
    count: int = 1
    told_by: ToldBy = "sandbox"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything one attempt left. `result` is meaningful only when `has_result`.

    displays  rich results in order, each a MIME bundle {media type: data}
    tier      the isolation that really held: a word of `domain.isolation`, `none` when no code ran; `process` in
              records from before functions of worker authors were walled in
    denials   evidence: what a layer refused
    layers    the walls that stood, each proven from inside before the job's code ran
    notes     sentences for a person: what was left running, what was dropped
    """

    end: End
    stdout: Stream = field(default_factory=Stream)
    stderr: Stream = field(default_factory=Stream)
    has_result: bool = False
    result: JsonValue = None
    displays: tuple[JsonValue, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    usage: Usage = field(default_factory=Usage)
    tier: str = "none"
    denials: tuple[Denial, ...] = ()
    layers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

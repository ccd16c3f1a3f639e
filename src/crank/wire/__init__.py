"""What controller and worker say to each other: versioned, bounded, strict JSON; no input or output here.

`hello` carries a range of versions and the controller picks the highest that both know. Bytes (input
files, artifacts, large outcomes) never travel in a message: they are blobs beside the link.

A field that a later version added has a default. It is left out while it has that value, so what version 1
can say is still said in the words of version 1; a message of a later version goes only to who agreed on it.
"""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Literal, TypeAlias

from crank.domain.fields import later_fields, read_fields
from crank.domain.json import JsonObject, JsonValue, dumps, loads_strict
from crank.domain.quantity import JSON_DEPTH_MAX, MIB
from crank.errors import InvalidRequest, ProtocolError
from crank.wire.calls import Call, CallAnswer, LeaseHandle

VERSION_MIN = 1
VERSION_MAX = 3
# The version that brought sessions, programs, and calls on running jobs.
SESSIONS_SINCE = 2
# The version that brought trust, and links that follow one another without a gap.
TRUST_SINCE = 3
# The version that brought handles, and the calls that jobs make with them.
HANDLES_SINCE = 3
# What a worker's hello says of itself needs this version: controllers are renewed first, workers after.
HELLO_SINCE = 3
# Who signs what it offers; an older worker is served on the controller's own machine alone, where it must have run.
MANIFEST_SINCE = 3
MESSAGE_BYTES_MAX = 4 * MIB
# A larger outcome travels as a blob.
OUTCOME_INLINE_BYTES_MAX = 256 * 1024
OUTPUT_TEXT_CHARS_MAX = 64 * 1024


# --- worker to controller --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Holding:
    """A lease that a worker still knows: it runs, it is finished, or it was cut off by a restart."""

    job_id: str
    epoch: int
    phase: Literal["running", "finished", "interrupted"]


@dataclass(frozen=True, slots=True)
class Hello:
    """First message of a worker. `capabilities` are documents of `domain.capability`.

    renews    the older link, agreed on version 3, stands; the worker reads it to its end, and says `held`
    manifest  these, signed (compact JWS); `capabilities` is empty then
    """

    version_min: int
    version_max: int
    worker_id: str
    instance_id: str
    node_id: str
    software: str
    slots: int
    capabilities: list[JsonObject]
    holding: list[Holding]
    renews: bool = False
    manifest: str | None = None


@dataclass(frozen=True, slots=True)
class Beat:
    """Sent every few seconds; extends every lease that the worker holds."""

    free_slots: int


@dataclass(frozen=True, slots=True)
class Pool:
    """What is parked for one profile, and how many sandboxes were burnt since the worker started."""

    profile: str
    parked: int
    burnt: int


@dataclass(frozen=True, slots=True)
class Pools:
    """The sandboxes that stand ready, told after a beat when something changed."""

    pools: list[Pool]


@dataclass(frozen=True, slots=True)
class Started:
    """The job's own code is about to run."""

    job_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something a job printed or told: `stdout`, `stderr` (text, offset_bytes) or `progress` (fraction, text).

    epoch, seq  the attempt, and the position in it (from 1): a repeated event is dropped by them
    at_ms       milliseconds since the job's own code started
    """

    epoch: int
    seq: int
    kind: Literal["stdout", "stderr", "progress"]
    text: str
    offset_bytes: int
    fraction: float | None
    at_ms: int


@dataclass(frozen=True, slots=True)
class Output:
    """Events of one attempt, in order."""

    job_id: str
    epoch: int
    events: list[JobEvent]


@dataclass(frozen=True, slots=True)
class Finished:
    """How an attempt ended: the outcome's document, or the digest of the blob that holds it."""

    job_id: str
    epoch: int
    outcome: JsonObject | None
    outcome_blob: str | None


@dataclass(frozen=True, slots=True)
class Declined:
    """The worker will not run this lease (full, draining, unknown profile); nothing of it ran."""

    job_id: str
    epoch: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Draining:
    """The worker takes no new lease and leaves when its last job is done."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A session's sandbox stands, or its child lives on after the link was lost."""

    session_id: str
    tier: str


@dataclass(frozen=True, slots=True)
class Sessions:
    """The first thing after `welcome`: every session that the worker holds. The controller ends all others of its.

    opened   sessions whose sandbox stands
    opening  sessions whose sandbox is being built; `opened` or `ended` follows for each
    """

    opened: list[Opened]
    opening: list[str]


@dataclass(frozen=True, slots=True)
class Ended:
    """A session is over. `reason` is a word of `domain.session`; `job_id` names the job that broke it, `end` how."""

    session_id: str
    reason: str
    code: str | None
    message: str | None
    job_id: str | None
    end: JsonObject | None


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to one call.

    verdict  `done`, or the kind of fault, which `code` and `message` make precise
    answer   what was asked for, where something was
    """

    call_id: str
    verdict: Literal["done", "invalid", "not_supported", "not_found", "conflict", "too_large", "unavailable", "failed"]
    code: str | None
    message: str | None
    answer: JsonValue


@dataclass(frozen=True, slots=True)
class Held:
    """On a link that renews another: the older one was read to its end; these leases and sessions are held now."""

    holding: list[Holding]
    sessions: list[str]


@dataclass(frozen=True, slots=True)
class Trusted:
    """The worker believes what that `trust` said from now on."""

    sequence: int
    revision: int


# --- controller to worker --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Resumed:
    """What to do with a lease that the worker named in `hello`; `next_seq` is the first event wanted."""

    job_id: str
    epoch: int
    verdict: Literal["continue", "abandon"]
    next_seq: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """The worker is enrolled."""

    version: int
    controller_id: str
    beat_sec: float
    lease_sec: float
    resumed: list[Resumed]


@dataclass(frozen=True, slots=True)
class Rejected:
    """The worker is not enrolled, and the connection ends."""

    code: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class LeaseFile:
    """An input file of the job."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class LeaseMount:
    """A folder of the worker's own node."""

    name: str
    host_path: str


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to try a job once. None for a limit leaves it to the capability.

    session_id, context  run it in that session of the worker, with the globals of that name
    program              the argv of one of the profile's programs, in place of code
    stdin                its stdin stays open for calls; otherwise it is empty
    cpu_sec, idle_sec, no_output_sec   clocks that the request lowered
    handles              what its code may ask for while it runs; None: nothing
    called               another job waits for it, so it may take a slot that a waiting job lends
    """

    job_id: str
    epoch: int
    capability: str
    accelerator: str
    code: str | None
    args: JsonValue
    files: list[LeaseFile]
    mounts: list[LeaseMount]
    timeout_sec: float | None
    max_output_bytes: int | None
    memory_bytes: int | None
    traceparent: str | None
    session_id: str | None = None
    context: str | None = None
    program: list[str] | None = None
    stdin: bool = False
    cpu_sec: float | None = None
    idle_sec: float | None = None
    no_output_sec: float | None = None
    handles: list[LeaseHandle] | None = None
    called: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """End the attempt now; its partial outcome is still wanted."""

    job_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcome is durable (or superseded by a later lease); the worker may forget it."""

    job_id: str
    epoch: int
    verdict: Literal["accepted", "superseded"]


@dataclass(frozen=True, slots=True)
class Open:
    """Build a sandbox that lasts. `opened` or `ended` follows. A session with this id already is left as it is."""

    session_id: str
    capability: str
    accelerator: str
    mounts: list[LeaseMount]
    memory_bytes: int | None
    idle_sec: float
    lifetime_sec: float


@dataclass(frozen=True, slots=True)
class Touch:
    """Begin the idle clock of a session anew; a number also changes that clock, counted from the session's start."""

    session_id: str
    idle_sec: float | None
    lifetime_sec: float | None


@dataclass(frozen=True, slots=True)
class Close:
    """End a session now, with what runs in it; the end of one that is not there is told too."""

    session_id: str


@dataclass(frozen=True, slots=True)
class Noted:
    """The end of a session is durable; the worker may forget it."""

    session_id: str


@dataclass(frozen=True, slots=True)
class Interrupt:
    """A call: send SIGINT to what runs for the job."""

    call_id: str
    job_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Stdin:
    """A call: write to the stdin of what runs for the job.

    base64        at most `STDIN_CALL_BYTES_MAX` bytes
    offset_bytes  where they begin; what was taken before is not taken again. None means where the last ended
    end           nothing follows
    """

    call_id: str
    job_id: str
    epoch: int
    base64: str
    offset_bytes: int | None
    end: bool


@dataclass(frozen=True, slots=True)
class Files:
    """A call: act on the files of a session. The bytes that `put` stores and `get` answers with are a blob."""

    call_id: str
    session_id: str
    verb: Literal["list", "get", "put", "remove"]
    path: str
    sha256: str | None
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Trust:
    """By what the worker checks its peers from now on; told after `welcome` and at every change, answered by `trusted`.

    sequence          of the bundle of the trust domain
    roots             its X.509 authorities, DER in base64
    revision          of what is revoked, as this link counts it
    revoked_ids       SPIFFE IDs that nobody may speak for
    revoked_serials   certificates that were revoked alone, lower-case hexadecimal
    """

    sequence: int
    roots: list[str]
    revision: int
    revoked_ids: list[str]
    revoked_serials: list[str]


Message: TypeAlias = (
    Hello | Beat | Started | Output | Finished | Declined | Draining | Welcome | Rejected | Lease | Cancel | Settled
    | Pools | Opened | Sessions | Ended | Answered | Open | Touch | Close | Noted | Interrupt | Stdin | Files
    | Held | Trusted | Trust
    | Call | CallAnswer
)  # fmt: skip

_KINDS: dict[str, type] = {kind.__name__.lower(): kind for kind in typing.get_args(Message)}


def encode(message: Message) -> str:
    """Write a message as JSON text. Raises ProtocolError when it is too large."""
    body = {name: value for name, value in dataclasses.asdict(message).items() if not _is_default(message, name)}
    text = dumps({"t": type(message).__name__.lower(), **body})
    if len(text.encode("utf-8")) > MESSAGE_BYTES_MAX:
        raise ProtocolError(f"A {type(message).__name__} message is larger than {MESSAGE_BYTES_MAX} bytes.")
    return text


def _is_default(message: Message, name: str) -> bool:
    kind: type = type(message)
    later = later_fields(kind)
    return name in later and getattr(message, name) == later[name]


def decode(raw: str | bytes) -> Message:
    """Read a message strictly: known kind, every field present and of its type, nothing else.

    Only a field that a later version added may be absent; it then has its default.

    Raises ProtocolError.
    """
    octets = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    if len(octets) > MESSAGE_BYTES_MAX:
        raise ProtocolError(f"A message is larger than {MESSAGE_BYTES_MAX} bytes.")
    try:
        body = loads_strict(octets, depth_max=JSON_DEPTH_MAX + 8)
    except InvalidRequest as fault:
        raise ProtocolError(f"A message is not strict JSON: {fault.message}") from fault
    if not isinstance(body, dict) or not isinstance(body.get("t"), str) or body["t"] not in _KINDS:
        raise ProtocolError("A message has no known kind.")
    kind = _KINDS[body.pop("t")]
    return typing.cast(Message, read_fields(kind, body, kind.__name__))

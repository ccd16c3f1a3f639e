"""What controller and worker say to each other: versioned, bounded, strict JSON; no input or output here.

`hello` carries a range of versions and the controller picks the highest that both know. Bytes (input
files, artifacts, large outcomes) never travel in a message: they are blobs beside the link.
"""

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from crank.domain.json import JsonObject, JsonValue, dumps, loads_strict
from crank.domain.quantity import JSON_DEPTH_MAX, MIB
from crank.errors import InvalidRequest, ProtocolError

VERSION_MIN = 1
VERSION_MAX = 1
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
    """First message of a worker. `capabilities` are documents of `domain.capability`."""

    version_min: int
    version_max: int
    worker_id: str
    instance_id: str
    node_id: str
    software: str
    slots: int
    capabilities: list[JsonObject]
    holding: list[Holding]


@dataclass(frozen=True, slots=True)
class Beat:
    """Sent every few seconds; extends every lease that the worker holds."""

    free_slots: int


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
    """The right to try a job once. None for a limit leaves it to the capability."""

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


Message: TypeAlias = (
    Hello | Beat | Started | Output | Finished | Declined | Draining | Welcome | Rejected | Lease | Cancel | Settled
)

_KINDS: dict[str, type] = {
    kind.__name__.lower(): kind
    for kind in (Hello, Beat, Started, Output, Finished, Declined, Draining, Welcome, Rejected, Lease, Cancel, Settled)
}


def encode(message: Message) -> str:
    """Write a message as JSON text. Raises ProtocolError when it is too large."""
    body = dataclasses.asdict(message)
    text = dumps({"t": type(message).__name__.lower(), **body})
    if len(text.encode("utf-8")) > MESSAGE_BYTES_MAX:
        raise ProtocolError(f"A {type(message).__name__} message is larger than {MESSAGE_BYTES_MAX} bytes.")
    return text


def decode(raw: str | bytes) -> Message:
    """Read a message strictly: known kind, every field present and of its type, nothing else.

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
    return typing.cast(Message, _read(kind, body, kind.__name__))


def _read(kind: type, body: Any, where: str) -> Any:
    if not isinstance(body, dict):
        raise ProtocolError(f"{where} must be an object.")
    hints = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    if set(body) != names:
        odd = ", ".join(sorted(set(body) ^ names))[:200]
        raise ProtocolError(f"{where} has missing or unknown fields: {odd}.")
    return kind(**{name: _value(hints[name], body[name], f"{where}.{name}") for name in names})


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _union(hint, value, where)
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise ProtocolError(f"{where} has a value that is not allowed.")
        return value
    if origin is list:
        if not isinstance(value, list):
            raise ProtocolError(f"{where} must be a list.")
        (item,) = typing.get_args(hint)
        return [_value(item, entry, where) for entry in value]
    if dataclasses.is_dataclass(hint):
        return _read(typing.cast(type, hint), value, where)
    return _plain(origin or hint, value, where)


def _union(hint: Any, value: Any, where: str) -> Any:
    options = typing.get_args(hint)
    if value is None and type(None) in options:
        return None
    (inner,) = [option for option in options if option is not type(None)]
    return _value(inner, value, where)


def _plain(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as fault:
            raise ProtocolError(f"{where} is too large.") from fault
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ProtocolError(f"{where} has the wrong type.")
    return value

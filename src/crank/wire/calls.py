"""Messages about calls that the code of a job makes with its handles (since version 3)."""

from dataclasses import dataclass
from typing import Literal

from crank.domain.json import JsonValue


@dataclass(frozen=True, slots=True)
class CallFile:
    """A file on its way to or from a called job: its bytes are a blob that the worker brought, or that it may read."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class CallMount:
    """A mount that a called job shall find under a name: which handle of the caller it stands for."""

    name: str
    handle: str


@dataclass(frozen=True, slots=True)
class Call:
    """The code of a job asks for something by one of its handles. Said again on each link until it is answered.

    job_id, epoch, number  which call it is: the same three never make a second job
    """

    job_id: str
    epoch: int
    number: int
    handle: str
    capability: str
    version: str | None
    args: JsonValue
    code: str | None
    files: list[CallFile]
    mounts: list[CallMount]
    handles: list[str]
    timeout_sec: float | None


@dataclass(frozen=True, slots=True)
class LeaseHandle:
    """What the code of a job is told of a handle. None says nothing of it; what counts is what the controller has."""

    name: str
    kind: Literal["call", "mount"]
    capability: str | None
    version: str | None
    mounts: list[str] | None
    calls_max: int | None


@dataclass(frozen=True, slots=True)
class CallAnswer:
    """What became of a call.

    verdict   `done`: the called job succeeded; `failed`: it ended otherwise; `refused`: there is no such job
    status    the end of the called job, with its reason, None for a refusal
    code, message, fix   why it is not done
    files     what the called job left, for the worker to fetch
    left_out  how many files are not among them
    """

    job_id: str
    epoch: int
    number: int
    verdict: Literal["done", "failed", "refused"]
    status: str | None
    reason: str | None
    code: str | None
    message: str | None
    fix: str | None
    has_result: bool
    result: JsonValue
    files: list[CallFile]
    left_out: int

"""Handles: what the code of a job may ask for through its supervisor, and the calls that it makes with them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from crank.domain.grant import Right
from crank.domain.ids import JobId, MountId
from crank.domain.json import JsonValue

# Of one job. Calls of a tree are those of a job, of the jobs that it called for, and so on.
HANDLES_MAX = 16
OPEN_CALLS_MAX = 8
TREE_CALLS_MAX = 64
CALL_DEPTH_MAX = 3
# What one attempt may ask for, whatever becomes of it: beyond that nobody is asked any more.
ASKED_CALLS_MAX = 256

# One call and its answer, as the frames that carry them; files travel beside.
CALL_BYTES_MAX = 1 << 20
CALL_RESULT_BYTES_MAX = 1 << 20
CALL_FILES_MAX = 64
CALL_FILES_BYTES_MAX = 64 << 20
# Where in /scratch a job finds what the jobs that it called for have left.
CALLS_FOLDER = "calls"


class HandleKind(StrEnum):
    """What a handle is for."""

    CALL = "call"
    MOUNT = "mount"


@dataclass(frozen=True, slots=True)
class Handle:
    """One thing in a job's hand.

    right     of a `call`: what may be called for. Its `mounts` are names of the job's own handles of kind `mount`
    mount_id  of a `mount`: the folder that a call may take along
    """

    name: str
    kind: HandleKind
    right: Right | None = None
    mount_id: MountId | None = None


@dataclass(frozen=True, slots=True)
class CalledBy:
    """Which call a job comes from. Nothing else in the world has the same first three.

    job_id, epoch, number  the job that called, the lease under which it did, and the how many-th call that was
    handle                 the handle that it used
    depth                  1 for a job that was called for by one that somebody submitted
    root                   that one, the topmost
    """

    job_id: JobId
    epoch: int
    number: int
    handle: str
    depth: int
    root: JobId


@dataclass(frozen=True, slots=True)
class Called:
    """One call as it was accepted: the job that was made for it, and whether that has ended."""

    job_id: JobId
    by: CalledBy
    ended: bool


@dataclass(frozen=True, slots=True)
class JobCall:
    """What the code of a job asks for. It is a stranger's word: each part is well formed, and none is granted.

    files   by the path that the called job shall find them under, where they lie below the caller's /scratch
    mounts  by the name that the called job shall find them under, the caller's handle
    handles names of the caller's handles that the called job shall have too
    """

    number: int
    handle: str
    capability: str
    version: str | None = None
    args: JsonValue = None
    code: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, str] = field(default_factory=dict)
    handles: tuple[str, ...] = ()
    timeout_sec: float | None = None

"""What the use cases need from outside, as Protocols. Each promise is held by a conformance suite
in `crank.testing.contracts`, which every adapter passes.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from crank.domain.ids import Digest, JobId, MountId, TenantId
from crank.domain.job import Job, Mount, Status
from crank.domain.json import JsonObject, JsonValue
from crank.domain.outcome import Outcome, Reason
from crank.domain.profile import Limits, Profile
from crank.domain.record import Record
from crank.domain.worker import GpuDevice, KnownWorker, Replay
from crank.errors import Problem
from crank.wire import JobEvent, Message

T = TypeVar("T")


# --- time, identity, chance ------------------------------------------------------------------


class Clock(Protocol):
    """Two clocks: one that people read and one that only moves forward."""

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch, UTC. May jump; never use it for a deadline."""
        ...

    def monotonic_sec(self) -> float:
        """Return seconds that never go back, for deadlines and durations."""
        ...


class IdSource(Protocol):
    """Makes identifiers and secrets."""

    def uuid7(self) -> str:
        """Return a new UUID version 7 (RFC 9562), greater than every one this source made before."""
        ...

    def secret(self) -> str:
        """Return 256 random bits as unpadded base64url."""
        ...

    def jitter(self) -> float:
        """Return a random number from 0 (included) to 1 (excluded)."""
        ...


class Failpoints(Protocol):
    """Named moments. Free in production; tests wait for one, or end the process at one."""

    def reach(self, name: str) -> None:
        """Say that the program stands at the named moment."""
        ...


# --- the sandbox -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProfileBuild:
    """A profile that was built on this machine and may be used.

    rootfs  folder that becomes the sandbox's read-only root; holds its own interpreter and libraries
    python  path of the interpreter inside the root, `/opt/python/bin/python3.11`
    site    path of the packages inside the root, `/opt/site`
    digest  SHA-256 over the profile, its lock and the interpreter's version
    accelerator  `cpu` or `gpu`: which variant was built
    """

    profile: Profile
    rootfs: Path
    python: str
    site: str
    digest: Digest
    accelerator: str


@dataclass(frozen=True, slots=True)
class MountBinding:
    """A folder of this node that a job sees read-only as /in/<name>."""

    name: str
    host_path: Path


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What one session may use. `limits` never pass the profile's own."""

    build: ProfileBuild
    limits: Limits
    mounts: tuple[MountBinding, ...] = ()
    devices: tuple[str, ...] = ()


class OutputSink(Protocol):
    """Takes output while it is made. Calls come from the event loop and must not block."""

    def output(self, stream: str, text: str, offset_bytes: int, at_sec: float) -> None:
        """Take decoded text of `stdout` or `stderr`.

        offset_bytes  where its first byte stood in the stream
        at_sec        seconds since user code started
        """
        ...

    def progress(self, fraction: float | None, message: str) -> None:
        """Take progress that the job told of; fraction is 0 to 1, or None when the job cannot say."""
        ...


class SandboxSession(Protocol):
    """One sandbox: a process tree, a private /scratch and /out. Dead after the first fault.

    A plain job is a session of one run. Operations that this version of a runner does not have
    raise NotSupported.
    """

    tier: str

    async def put_file(self, path: str, source: BinaryIO) -> None:
        """Copy a file to /scratch/<path> before the run. Raises InvalidRequest for a path that leaves it."""
        ...

    async def run_python(self, code: str, args: JsonValue, sink: OutputSink) -> Outcome:
        """Run a script to its end and return how it ended, artifacts not yet collected.

        Never raises for anything the job did. Raises SandboxError when the sandbox could not be built
        or proven; then no line of the job ran. When cancelled, the tree is dead before it raises.
        """
        ...

    async def run_program(self, argv: Sequence[str], sink: OutputSink) -> Outcome:
        """Run one of the profile's programs. Same promises as run_python."""
        ...

    async def stop(self, reason: Reason) -> None:
        """End the run now with this reason; run_python then returns the partial outcome."""
        ...

    async def write_stdin(self, chunk: bytes) -> None:
        """Send bytes to the running program's stdin."""
        ...

    async def signal(self, name: str) -> None:
        """Send a signal (`SIGINT`) to the running code."""
        ...

    def collect(self, store: Callable[[BinaryIO], Digest], outcome: Outcome) -> Outcome:
        """Return the outcome with the files of /out stored and listed; runs after the tree is dead.

        Only regular files are taken, opened beneath /out with no link followed; what is not taken is
        in `skipped` with its cause. Blocking: call it in a thread.
        """
        ...

    async def close(self) -> None:
        """Kill what is left and free everything. Safe to call twice."""
        ...


class SandboxRunner(Protocol):
    """Makes sandboxes on this machine."""

    tier: str

    async def start(self) -> None:
        """Prove that the sandbox works here. Raises SandboxError that names the missing layer."""
        ...

    async def open(self, spec: SandboxSpec) -> SandboxSession:
        """Prepare a session. Raises SandboxError."""
        ...

    async def stop(self) -> None:
        """Kill every session. Safe to call twice."""
        ...


# --- a worker author's own functions ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """One call of a worker author's function: where it is (`module:app`), its capability, what it may use.

    Of the limits, wall_sec, output_bytes, output_flood_bytes and result_bytes hold; memory_bytes holds for
    one process and only where the lease asks for it (None leaves it open).
    """

    target: str
    capability: str
    limits: Limits
    memory_bytes: int | None = None


class FunctionCall(Protocol):
    """One call, in a process of its own that dies with the call."""

    tier: str

    async def run(self, args: JsonValue, sink: OutputSink) -> Outcome:
        """Run the function to its end. Never raises for anything that the function did.

        Raises SandboxError when its process could not be started.
        """
        ...

    async def stop(self, reason: Reason) -> None:
        """End the call now with this reason; run then returns the partial outcome."""
        ...

    async def close(self) -> None:
        """Kill what is left. Safe to call twice."""
        ...


class FunctionRunner(Protocol):
    """Runs the functions of worker authors: trusted code, apart from the worker but not sandboxed."""

    tier: str

    async def open(self, spec: FunctionSpec) -> FunctionCall:
        """Prepare one call."""
        ...


# --- what a worker must not forget -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spooled:
    """An attempt that a worker noted durably; `finished` when its outcome is kept too."""

    job_id: JobId
    epoch: int
    finished: bool


class Spool(Protocol):
    """A worker's durable notes about its attempts. What returned survives the loss of process and power.

    Every method blocks: call it in a thread. All raise Unavailable (`disk_full`, `spool_failed`).
    """

    def begin(self, job_id: JobId, epoch: int) -> None:
        """Note that code of this attempt is about to run; doing it twice changes nothing."""
        ...

    def finish(self, job_id: JobId, epoch: int, outcome: JsonObject) -> None:
        """Keep the outcome's document; begins the attempt when it was not begun."""
        ...

    def outcome(self, job_id: JobId, epoch: int) -> JsonObject | None:
        """Return the outcome's document, or None while there is none."""
        ...

    def attempts(self) -> Sequence[Spooled]:
        """Return every attempt that was begun and not forgotten."""
        ...

    def scratch(self) -> BinaryIO:
        """Open a nameless temporary file to write and read; closing it removes it."""
        ...

    def put_blob(self, job_id: JobId, epoch: int, source: BinaryIO) -> Digest:
        """Keep a file of the attempt and return its SHA-256."""
        ...

    def open_blob(self, job_id: JobId, epoch: int, digest: Digest) -> BinaryIO:
        """Open a kept file. Raises NotFound."""
        ...

    def forget(self, job_id: JobId, epoch: int) -> None:
        """Forget an attempt with its files; doing it twice changes nothing."""
        ...


# --- the store -------------------------------------------------------------------------------


class JobStore(Protocol):
    """Jobs, inside one transaction."""

    def insert(self, job: Job) -> None:
        """Add a job. Raises Conflict (code `job_id_taken`) when the tenant has that id already."""
        ...

    def find(self, tenant: TenantId, job_id: JobId) -> Job | None:
        """Return the job, or None."""
        ...

    def update(self, job: Job) -> None:
        """Replace the stored job; request, tenant and id never change. Raises NotFound."""
        ...

    def queued(self, limit: int) -> Sequence[Job]:
        """Return queued jobs, oldest first."""
        ...

    def held(self) -> Sequence[Job]:
        """Return the jobs that are leased or running."""
        ...

    def page(self, tenant: TenantId, *, limit: int, before: str | None, status: Status | None) -> Sequence[Job]:
        """Return jobs, newest first; `before` is the cursor of the last one seen (its job id)."""
        ...

    def count(self, status: Status) -> int:
        """Return how many jobs have the status."""
        ...

    def ended_before(self, at_us: int, limit: int) -> Sequence[Job]:
        """Return jobs that ended before that time, oldest first, for retention."""
        ...

    def delete(self, tenant: TenantId, job_id: JobId) -> None:
        """Forget an ended job, with its blob references."""
        ...


class ReplayStore(Protocol):
    """Idempotency keys of the last hour, inside one transaction."""

    def find(self, tenant: TenantId, key: str) -> Replay | None:
        """Return what the key was used for, or None."""
        ...

    def put(self, replay: Replay) -> None:
        """Remember a key; replaces an expired one."""
        ...

    def purge(self, before_us: int) -> int:
        """Forget keys used before that time; return how many."""
        ...


class RecordStore(Protocol):
    """The audit trail, inside one transaction. There is no way to change a record."""

    def append(self, record: Record) -> None:
        """Add a record at the end."""
        ...

    def page(self, *, job_id: JobId | None, after: int, limit: int) -> Sequence[tuple[int, Record]]:
        """Return records in order with their positions, after a position."""
        ...


class RegistryStore(Protocol):
    """What the node knows: credentials (hashed), mounts, workers, and which blobs are in use."""

    def credential_tenant(self, secret_sha256: Digest) -> TenantId | None:
        """Return the tenant whose secret has this hash, or None."""
        ...

    def put_credential(self, secret_sha256: Digest, tenant: TenantId, created_us: int) -> None:
        """Add a credential; doing it twice changes nothing."""
        ...

    def put_mount(self, mount: Mount) -> None:
        """Add or replace a mount by its id."""
        ...

    def mounts(self, tenant: TenantId) -> Sequence[Mount]:
        """Return the tenant's mounts, by id."""
        ...

    def remove_mount(self, tenant: TenantId, mount_id: MountId) -> bool:
        """Remove a mount; tell whether it was there."""
        ...

    def put_worker(self, worker: KnownWorker) -> None:
        """Add or replace a worker by its id."""
        ...

    def workers(self) -> Sequence[KnownWorker]:
        """Return every worker that was ever enrolled and not forgotten."""
        ...

    def refer(self, tenant: TenantId, job_id: JobId, digests: Sequence[Digest]) -> None:
        """Say that a job uses these blobs; they are kept until the job is deleted."""
        ...

    def referred(self, digests: Sequence[Digest]) -> set[Digest]:
        """Return those of the digests that some job uses."""
        ...

    def job_refers(self, tenant: TenantId, job_id: JobId, digest: Digest) -> bool:
        """Tell whether this job uses the blob."""
        ...


class Transaction(Protocol):
    """Four small stores that change together or not at all."""

    jobs: JobStore
    replays: ReplayStore
    records: RecordStore
    registry: RegistryStore


class Store(Protocol):
    """The durable store. What `transact` returned survives the loss of the process and of power."""

    async def start(self) -> None:
        """Open and migrate. Raises StoreError (corrupt, newer than this version, unreadable)."""
        ...

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` alone and commit it; raise what it raises and then leave no trace of it.

        `work` is short, blocking and free of side effects: it may share a commit with others.
        Raises Unavailable (code `disk_full`) when the disk is full, StoreError for other faults.
        """
        ...

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on a consistent view; it must not write."""
        ...

    async def stop(self) -> None:
        """Finish what was begun and close. Safe to call twice."""
        ...


class BlobStore(Protocol):
    """Content-addressed bytes. A blob that can be opened is whole: its name is its SHA-256."""

    def put(self, source: BinaryIO, *, expected: Digest | None, bytes_max: int) -> tuple[Digest, int]:
        """Store a stream durably and return (digest, size). Blocking.

        Raises InvalidRequest (`digest_mismatch`), TooLarge, Unavailable (`disk_full`, `quota_exceeded`);
        leaves nothing behind then.
        """
        ...

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob to read. Raises NotFound."""
        ...

    def size(self, digest: Digest) -> int | None:
        """Return the size in bytes, or None when there is no such blob."""
        ...

    def remove(self, digest: Digest) -> None:
        """Remove a blob; doing it twice changes nothing."""
        ...

    def older_than(self, age_sec: float) -> Sequence[Digest]:
        """Return blobs last written longer ago than that, for collection of garbage."""
        ...


class StreamLog(Protocol):
    """What a job printed and told, in order, while it ran. Positions start at 1 and have no gaps."""

    async def append(self, job_id: JobId, events: Sequence[JobEvent]) -> int:
        """Add events and return the last position. Raises Unavailable (`disk_full`)."""
        ...

    async def read(self, job_id: JobId, after: int, limit: int) -> Sequence[tuple[int, JobEvent]]:
        """Return events after a position."""
        ...

    async def remove(self, job_id: JobId) -> None:
        """Forget the job's events; doing it twice changes nothing."""
        ...


# --- links -----------------------------------------------------------------------------------


class WorkerLink(Protocol):
    """The controller's side of one open connection to a worker."""

    async def send(self, message: Message) -> None:
        """Send one message. Raises Unavailable when the connection is gone."""
        ...

    async def close(self, code: str, message: str) -> None:
        """End the connection, telling why."""
        ...


class ControllerLink(Protocol):
    """The worker's side of one open connection to its controller."""

    async def send(self, message: Message) -> None:
        """Send one message. Raises Unavailable when the connection is gone."""
        ...

    def messages(self) -> AsyncIterator[Message]:
        """Yield messages until the connection ends. Raises ProtocolError."""
        ...

    async def fetch_blob(self, digest: Digest, target: BinaryIO) -> None:
        """Copy a blob from the controller into `target`, and check it. Raises NotFound, Unavailable."""
        ...

    async def send_blob(self, digest: Digest, source: BinaryIO, size_bytes: int) -> None:
        """Copy a blob to the controller; one that it has already costs nothing. Raises Unavailable."""
        ...

    async def close(self) -> None:
        """End the connection. Safe to call twice."""
        ...


class Connector(Protocol):
    """Opens links to the controller."""

    async def connect(self) -> ControllerLink:
        """Open a mutually authenticated link.

        Raises Unavailable when nobody answers, UntrustedPeer when the controller cannot prove who it is.
        """
        ...


class SchemaChecker(Protocol):
    """JSON Schema 2020-12, with references to other documents refused."""

    def check_schema(self, schema: JsonObject) -> Problem | None:
        """Return what is wrong with a schema, or None."""
        ...

    def check(self, schema: JsonObject, value: JsonValue, *, field: str) -> Sequence[Problem]:
        """Return where a value breaks a schema, at most 10 places."""
        ...


class GpuProbe(Protocol):
    """Finds the GPUs of this machine."""

    def devices(self) -> Sequence[GpuDevice]:
        """Return the GPUs that can be used now; an empty sequence on a machine without one."""
        ...

"""The sandbox, shaped as a session: open, put files, run, collect, close."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from crank.domain.ids import Digest
from crank.domain.json import JsonValue
from crank.domain.outcome import Outcome, Reason
from crank.domain.profile import Limits, Profile
from crank.ports.calls import CallTaker


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

    @property
    def name(self) -> str:
        """Return the profile's name."""
        return self.profile.name

    @property
    def limits(self) -> Limits:
        """Return the ceilings of one job."""
        return self.profile.limits

    @property
    def programs(self) -> tuple[str, ...]:
        """Return the names of the programs that a job may start."""
        return self.profile.programs


@dataclass(frozen=True, slots=True)
class ModuleBuild:
    """An author's own module as it lies on this machine, with everything that it is imported from.

    name      what its sandboxes are counted under
    modules   imported once, ahead of every call
    python    the interpreter of this machine that it runs on
    version   that interpreter's language version, `3.11`
    paths     where modules are looked for, in this order, places inside the sandbox
    layers    (place inside, file or folder of this machine) of all that the sandbox shows, read-only
    limits    ceilings of one call
    """

    name: str
    modules: tuple[str, ...]
    python: str
    version: str
    paths: tuple[str, ...]
    layers: tuple[tuple[str, Path], ...]
    limits: Limits
    programs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MountBinding:
    """A folder of this node that a job sees read-only as /in/<name>."""

    name: str
    host_path: Path


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What one session may use. `limits` never pass the profile's own.

    lasting  the session may run many times and keeps its state between the runs; otherwise it runs once
    """

    build: ProfileBuild | ModuleBuild
    limits: Limits
    mounts: tuple[MountBinding, ...] = ()
    devices: tuple[str, ...] = ()
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class PoolCount:
    """The sandboxes that a runner keeps ready for one profile.

    parked  stand now, proven, and wait for a job
    burnt   were thrown away since the runner started because something about them was dirty or doubtful
    """

    profile: str
    parked: int
    burnt: int


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One thing that lies in a session's /scratch. `path` is relative to it, slash-separated.

    size_bytes   of a file; 0 for everything else
    modified_us  microseconds since the Unix epoch, as the sandbox's file system says
    """

    path: str
    kind: Literal["file", "folder", "other"]
    size_bytes: int
    modified_us: int


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

    A plain job is a session of one run; a lasting one runs many times, one after another. Operations that
    this version of a runner does not have raise NotSupported. Paths of files are relative to /scratch;
    one that leaves it raises InvalidRequest.
    """

    tier: str

    @property
    def alive(self) -> bool:
        """Tell whether it can still be used: False after the first fault, after `stop` and after `close`."""
        ...

    async def put_file(self, path: str, source: BinaryIO) -> None:
        """Copy a file to /scratch/<path>: before the run, or at any time where the session lasts.

        Raises InvalidRequest for a path that leaves it, TooLarge when it does not fit.
        """
        ...

    async def list_files(self, path: str = "") -> tuple[FileEntry, ...]:
        """Return what lies directly in the folder /scratch/<path>, by name; no link is followed.

        Raises NotFound (`file_not_found`), SandboxError when the sandbox is dead.
        """
        ...

    async def get_file(self, path: str, target: BinaryIO) -> int:
        """Copy the regular file /scratch/<path> into `target` and return its size in bytes.

        Raises NotFound (`file_not_found`) for what is not there or not a regular file, SandboxError when dead.
        """
        ...

    async def remove_file(self, path: str) -> None:
        """Remove a file, or a folder with everything in it. Raises NotFound (`file_not_found`), SandboxError."""
        ...

    async def run_python(
        self,
        code: str,
        args: JsonValue,
        sink: OutputSink,
        *,
        context: str = "main",
        limits: Limits | None = None,
        stdin: bool = False,
        calls: CallTaker | None = None,
    ) -> Outcome:
        """Run a script to its end and return how it ended, artifacts not yet collected.

        context  names the globals that the code sees; each name has its own for as long as the session lasts
        limits   what this run may use, where that is less than the session may
        stdin    its standard input is what `write_stdin` brings until `close_stdin`; otherwise it is empty
        calls    takes what the code asks for by its handles; without it there is nothing to ask for

        Never raises for anything the job did. Raises SandboxError when the sandbox could not be built
        or proven, or is dead; then no line of the job ran. When cancelled, the tree is dead before it raises.
        """
        ...

    async def run_program(
        self, argv: Sequence[str], sink: OutputSink, *, limits: Limits | None = None, stdin: bool = False
    ) -> Outcome:
        """Run one of the profile's programs. Same promises as run_python.

        Raises InvalidRequest (`program_not_listed`) for a program that the profile does not list.
        """
        ...

    async def stop(self, reason: Reason) -> None:
        """End the run and the session now with this reason; the run then returns the partial outcome."""
        ...

    async def write_stdin(self, chunk: bytes) -> None:
        """Send bytes to the stdin of what runs; returns when they are taken.

        Raises Conflict (`not_running` when nothing runs, `stdin_closed` when its stdin is empty or was ended).
        """
        ...

    async def close_stdin(self) -> None:
        """End the stdin of what runs; doing it twice changes nothing. Raises Conflict (`not_running`)."""
        ...

    async def signal(self, name: str) -> None:
        """Send a signal to the running code: `SIGINT` interrupts the run and leaves the session's state as it is.

        Raises Conflict (`not_running`) when nothing runs.
        """
        ...

    def collect(self, store: Callable[[BinaryIO], Digest], outcome: Outcome) -> Outcome:
        """Return the outcome with the files of /out stored and listed; called after the run has ended.

        Only regular files are taken, opened beneath /out with no link followed; what is not taken is
        in `skipped` with its cause. In a lasting session /out keeps its files, so each run lists all of them.
        Blocking: call it in a thread.
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

    def pools(self) -> tuple[PoolCount, ...]:
        """Return what it keeps ready, by profile; empty where it keeps nothing. Never blocks."""
        ...

    async def stop(self) -> None:
        """Kill every session. Safe to call twice."""
        ...

"""The sandbox, shaped as a session: open, put files, run, collect, close."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from crank.domain.ids import Digest
from crank.domain.json import JsonValue
from crank.domain.outcome import Outcome, Reason
from crank.domain.profile import Limits, Profile


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

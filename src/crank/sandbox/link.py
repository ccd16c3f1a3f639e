"""Starting the launcher and talking to it: the worker's side of the one privileged border.

It may be started before the worker gives up its own privilege, and handed to the runner afterwards.
"""

import contextlib
import resource
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crank.domain.isolation import Tier
from crank.domain.json import JsonObject, dumps, loads_strict
from crank.domain.quantity import KIB
from crank.errors import SandboxError
from crank.sandbox.frames import Frame, FrameReader

_START_SEC = 30.0
_REQUEST_SEC = 5.0
_LEAVE_SEC = 20.0
_REHEARSAL_SEC = 60.0
_GREETING_BYTES_MAX = 64 * KIB
_DESCRIPTORS_MAX = 1_048_576
_LAUNCHERS = {Tier.NAMESPACES: "launcher", Tier.LANDLOCK: "bare_launcher"}


@dataclass(slots=True)
class LauncherLink:
    """A running launcher of one tier. `privileged` and `cgroup` (`v1`, `v2` or None) are what it found at its start."""

    process: subprocess.Popen[bytes]
    socket: socket.socket
    privileged: bool
    cgroup: str | None
    tier: Tier = Tier.NAMESPACES

    @property
    def alive(self) -> bool:
        """Tell whether the launcher is still running."""
        return self.process.poll() is None

    def request(self, message: JsonObject, descriptors: Sequence[int]) -> None:
        """Send one request with its descriptors, the session's channel first. Raises SandboxError."""
        try:
            socket.send_fds(self.socket, [dumps(message).encode()], list(descriptors))
        except OSError as fault:
            raise SandboxError(
                "The sandbox launcher is gone.",
                code="launcher_lost",
                fix="Restart the worker; its log says why the launcher ended.",
                detail=str(fault),
            ) from fault

    def close(self) -> None:
        """Let the launcher end every session and itself; kill it if it does not. Safe to call twice."""
        self.socket.close()
        try:
            self.process.wait(_LEAVE_SEC)
        except subprocess.TimeoutExpired:
            # A worker in walls of its own may signal nobody outside; the launcher sees the link's end all the same.
            with contextlib.suppress(PermissionError):
                self.process.kill()
                self.process.wait()


def rehearse(link: LauncherLink) -> None:
    """Let the launcher raise every wall that needs no profile. Blocking. Raises SandboxError naming a missing one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.closing(ours):
        with contextlib.closing(theirs):
            link.request({"kind": "rehearse"}, [theirs.fileno()])
        ours.settimeout(_REHEARSAL_SEC)
        reader = FrameReader({"R": _GREETING_BYTES_MAX, "F": _GREETING_BYTES_MAX})
        frames: list[Frame] = []
        try:
            while not frames:
                chunk = ours.recv(_GREETING_BYTES_MAX)
                if not chunk:
                    raise ConnectionResetError("the channel was closed")
                frames = reader.feed(chunk)
        except OSError as fault:
            raise SandboxError(
                "The sandbox could not be tried.", code="launcher_lost", fix="Read the worker's log.", detail=str(fault)
            ) from fault
    if frames[0].kind == "F":
        raise refusal(loads_strict(frames[0].payload))


def refusal(source: JsonObject) -> SandboxError:
    """Return the fault that a supervisor told of."""
    return SandboxError(source["message"], code=source["code"], fix=source["fix"], detail=source["detail"])


def launch(
    *,
    roots: Sequence[Path] | None = None,
    mounts_register: Path | None = None,
    children_max: int | None = None,
    tier: Tier = Tier.NAMESPACES,
) -> LauncherLink:
    """Start a launcher and wait for its greeting. Blocking, a fraction of a second. Raises SandboxError.

    This process's own ceiling of descriptors is raised as far as it may be: jobs of the same account have as many on
    their way as theirs allows, and the kernel refuses to pass one on to whoever may have fewer (unix(7), ETOOMANYREFS).

    roots            places beneath which profiles lie; None lets the caller name any folder
    mounts_register  file that lists the folders that may be mounted; None lets the caller name any
    children_max     after so many jobs a zygote is replaced; None for the launcher's own number
    tier             what its sandboxes stand on
    """
    allow_descriptors(_DESCRIPTORS_MAX)
    source = Path(__file__).resolve().parents[2]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program = (
        f"import sys; sys.path.insert(0, {str(source)!r}); "
        f"from crank.sandbox.{_LAUNCHERS[tier]} import main; "
        f"main({theirs.fileno()}, {None if roots is None else [str(root) for root in roots]!r}, "
        f"{None if mounts_register is None else str(mounts_register)!r}"
        f"{'' if children_max is None else f', children_max={children_max}'})"
    )
    with contextlib.closing(theirs):
        # -I and -S: nothing of the caller's environment, working folder or site packages decides what runs.
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-c", program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env={},
            cwd="/",
            start_new_session=True,
        )
    ours.settimeout(_START_SEC)
    try:
        raw = ours.recv(_GREETING_BYTES_MAX)
    except OSError:
        raw = b""
    if not raw:
        ours.close()
        process.kill()
        process.wait()
        raise SandboxError(
            "The sandbox launcher did not start.",
            code="launcher_lost",
            fix="Read the worker's log: the launcher's own error stands there.",
        )
    greeting = loads_strict(raw)
    ours.settimeout(_REQUEST_SEC)
    return LauncherLink(process, ours, privileged=greeting["privileged"], cgroup=greeting["cgroup"], tier=tier)


def allow_descriptors(most: int) -> None:
    """Raise this process's ceiling of descriptors to `most`, or to what it may be raised to. Raises OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

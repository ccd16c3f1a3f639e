"""The cell: how a forked process becomes a job's first process, one wall after another.

Three processes take part. The *builder* leaves the shared namespaces and ends. Its child, the *init*, is
process 1 inside: it builds the file system, gives up every privilege, starts the guest, reaps what the
guest leaves behind and says how the guest ended; when it dies the kernel kills everything in the cell.
The *guest* is the profile's own interpreter, which runs `guest.py`.

Whatever fails is sent to the supervisor as one sentence that names the layer; nothing runs half built.
"""

import array
import contextlib
import fcntl
import json
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from crank.domain.profile import Limits
from crank.domain.quantity import GIB, KIB, MIB
from crank.sandbox import kernel, landlock, mounts, namespaces
from crank.sandbox.cgroup import Group
from crank.sandbox.namespaces import INSIDE_ID, Identity
from crank.sandbox.plan import Plan

LINK_BYTES_MAX = 4 * KIB
# Where the guest finds its two pipes.
REQUEST_DESCRIPTOR, RESULT_DESCRIPTOR = 3, 4

_INIT_TITLE = "crank-init"
_STACK_BYTES = 8 * MIB
_LOCKED_BYTES = 64 * KIB
_SIGNALS_QUEUED_MAX = 1_024
_OOM_SCORE = "500"
_THREADS_MAX = 4


@dataclass(frozen=True, slots=True)
class GuestPipes:
    """The guest's ends: what it reads its orders from, and where its output and its word go."""

    request: int
    result: int
    stdout: int
    stderr: int


@dataclass(frozen=True, slots=True)
class Cell:
    """Everything a builder needs, prepared before the fork.

    files  what lies in /.crank inside; `start` is the one that the interpreter is given
    link   the builder's end of the socket to the supervisor, a lifted descriptor
    """

    plan: Plan
    identity: Identity
    sources: mounts.Sources
    group: Group | None
    pipes: GuestPipes
    link: socket.socket
    files: Mapping[str, bytes]
    start: str
    argument_area: tuple[int, int]


class _Broken(Exception):
    """A layer could not be raised. Never leaves this file: it becomes a message to the supervisor."""

    def __init__(self, layer: str, cause: str) -> None:
        super().__init__(cause)
        self.layer = layer


@contextlib.contextmanager
def _layer(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise _Broken(name, str(fault)) from fault


def environment(limits: Limits) -> dict[str, str]:
    """Return the job's whole environment; nothing is inherited."""
    threads = str(max(1, min(_THREADS_MAX, os.cpu_count() or 1, limits.processes)))
    return {
        "HOME": "/scratch",
        "LANG": "C.UTF-8",
        "LOGNAME": "job",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": "/tmp",
        "TZ": "UTC",
        "USER": "job",
    }


def rlimits(limits: Limits, *, counted: bool) -> dict[int, tuple[int, int]]:
    """Return the per-process ceilings.

    counted  whether a control group counts memory; without one, private memory of a process is capped too
    """
    cpu_sec = int(limits.cpu_sec) + 2
    ceilings = {
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_CPU: (cpu_sec, cpu_sec),
        resource.RLIMIT_FSIZE: (limits.file_bytes, limits.file_bytes),
        resource.RLIMIT_MEMLOCK: (_LOCKED_BYTES, _LOCKED_BYTES),
        resource.RLIMIT_MSGQUEUE: (0, 0),
        resource.RLIMIT_NOFILE: (limits.open_files, limits.open_files),
        # One for the init and one more, so that passing the limit can be seen and named.
        resource.RLIMIT_NPROC: (limits.processes + 2, limits.processes + 2),
        resource.RLIMIT_RTPRIO: (0, 0),
        resource.RLIMIT_SIGPENDING: (_SIGNALS_QUEUED_MAX, _SIGNALS_QUEUED_MAX),
        resource.RLIMIT_STACK: (_STACK_BYTES, 8 * _STACK_BYTES),
    }
    if not counted:
        private = limits.memory_bytes + GIB // 2
        ceilings[resource.RLIMIT_DATA] = (private, private)
    return ceilings


def _say(link: socket.socket, descriptors: tuple[int, ...] = (), **message: object) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    link.sendmsg([json.dumps(message).encode()[:LINK_BYTES_MAX]], ancillary)


def _await(link: socket.socket, word: bytes) -> None:
    if link.recv(64) != word:
        raise OSError("the supervisor went away")


def build(cell: Cell) -> None:
    """Be the builder: make the cell's first process and end. Never returns."""
    _end_after(cell, lambda: _build(cell))


def _end_after(cell: Cell, work: Callable[[], None]) -> None:
    try:
        work()
    except _Broken as broken:
        _say(cell.link, failed={"layer": broken.layer, "cause": str(broken)[:500]})
    except BaseException as fault:  # noqa: BLE001 - the border of a forked process: nothing may pass it
        _say(cell.link, failed={"layer": "sandbox", "cause": f"{type(fault).__name__}: {fault}"[:500]})
    finally:
        os._exit(1)


def _build(cell: Cell) -> None:
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    pipes = cell.pipes
    folders = [descriptor for _, descriptor in cell.sources.mounts]
    if cell.sources.root is not None:
        folders.append(cell.sources.root)
    kernel.close_all_but([cell.link.fileno(), *folders, pipes.request, pipes.result, pipes.stdout, pipes.stderr])
    for _ in range(3):
        # The launcher's own 0, 1 and 2 have no business in here.
        os.open("/dev/null", os.O_RDWR)
    if cell.group is not None:
        with _layer("cgroup"):
            cell.group.join(os.getpid())
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
        # Best effort: it only makes the kernel choose the job before the worker when the host runs out.
        score.write(_OOM_SCORE)
    trees: list[mounts.Tree] = []
    links: dict[str, str] = {}
    if cell.identity.privileged:
        with _layer("mounts"):
            trees, links = mounts.detach(cell.sources, cell.plan.devices, cell.identity)
    else:
        _own_user_namespace(cell)
    with _layer("namespaces"):
        kernel.unshare(namespaces.SHARED_NOTHING)
        pid = os.fork()
    if pid == 0:
        _end_after(cell, lambda: _init(cell, trees, links))
    _say(cell.link, init=pid)
    os._exit(0)


def _own_user_namespace(cell: Cell) -> None:
    with _layer("user_namespace"):
        kernel.unshare(kernel.CLONE_NEWUSER)
        _say(cell.link, map=True)
        _await(cell.link, b"mapped")


def _init(cell: Cell, trees: list[mounts.Tree], links: dict[str, str]) -> None:
    _await(cell.link, b"adopted")
    kernel.overwrite_arguments(cell.argument_area, _INIT_TITLE)
    with _layer("mounts"):
        socket.sethostname(namespaces.HOST_NAME)
        if not cell.identity.privileged:
            trees, links = mounts.detach(cell.sources, cell.plan.devices, cell.identity)
        opened = mounts.build(trees, links, cell.files, cell.plan.limits, cell.identity)
    if cell.identity.privileged:
        os.setgroups([])
        _own_user_namespace(cell)
    with _layer("identity"):
        os.setresgid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
        os.setresuid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
    with _layer("capabilities"):
        kernel.drop_bounding_set()
        kernel.drop_capabilities()
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    # After the last change of identity, which would clear it.
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    folders = (opened.scratch, opened.out, opened.temporary, opened.shared_memory, opened.proc)
    _say(cell.link, folders, built=True)
    _await(cell.link, b"start")
    pid = os.fork()
    if pid == 0:
        _end_after(cell, lambda: _guest(cell))
    _report_end(cell, pid)


def _report_end(cell: Cell, guest: int) -> None:
    """Reap everything; when the guest itself has ended say how, and end, which ends whatever it left."""
    pipes = cell.pipes
    for descriptor in (pipes.request, pipes.result, pipes.stdout, pipes.stderr):
        # Held open here, the pipes would never say that the guest let go of them.
        os.close(descriptor)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == guest:
            left = sum(name.isdigit() for name in os.listdir("/proc")) - 1
            _say(cell.link, guest=status, left=left)
            os._exit(0)


def _guest(cell: Cell) -> None:
    limits = cell.plan.limits
    os.setsid()
    os.chdir("/scratch")
    os.umask(0o022)
    _place_descriptors(cell.pipes, keep=cell.link.fileno())
    for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
        # An ignored signal would stay ignored across exec; the job begins with the defaults.
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    with _layer("landlock"):
        version = landlock.abi()
        if version:
            landlock.restrict(_file_rules(cell, version), version=version)
    with _layer("limits"):
        for kind, (soft, hard) in rlimits(limits, counted=cell.group is not None).items():
            _, allowed = resource.getrlimit(kind)
            most = hard if allowed == resource.RLIM_INFINITY else min(hard, allowed)
            resource.setrlimit(kind, (min(soft, most), most))
    argv = [cell.plan.python, "-I", "-S", "-B", "-u", f"/.crank/{cell.start}"]
    with _layer("interpreter"):
        os.execve(cell.plan.python, argv, environment(limits))  # noqa: S606 - a fixed program of the profile's root


def _place_descriptors(pipes: GuestPipes, *, keep: int) -> None:
    """Leave the guest with 0 to 4; `keep` is close-on-exec and stays only to tell of a failed exec."""
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    wanted = (nothing, pipes.stdout, pipes.stderr, pipes.request, pipes.result)
    # Lifted out of the way first: a pipe may already stand where another belongs.
    lifted = [lift(descriptor) for descriptor in wanted]
    for place, descriptor in enumerate(lifted):
        os.dup2(descriptor, place, inheritable=True)
    kernel.close_all_but([*range(len(wanted)), keep])


def lift(descriptor: int) -> int:
    """Return a copy of a descriptor with a number of 64 or more, away from those the guest is given."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 64)


def _file_rules(cell: Cell, version: int) -> list[tuple[str, int]]:
    everything = landlock.file_rights(version)
    changeable = everything & ~landlock.EXECUTE & ~landlock.IOCTL_DEV
    rules = [("/", landlock.READ)]
    rules += [(place, changeable) for place in mounts.WRITABLE]
    rules += [(f"/dev/{node}", landlock.READ_FILE | landlock.WRITE_FILE) for node in ("null", "zero", "full")]
    rules += [(device, everything) for device in cell.plan.devices]
    rules += [(f"/{name}", landlock.READ | landlock.EXECUTE) for name in os.listdir("/") if _may_hold_programs(name)]
    return rules


def _may_hold_programs(name: str) -> bool:
    return name not in ("dev", "etc", "in", "out", "proc", "scratch", "tmp", "var", ".crank")

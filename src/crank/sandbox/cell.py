"""The cell: how a process that a zygote forked becomes a job's first process, one wall after another.

Two processes take part. The *init* is process 1 inside: it makes the job's own places, gives up every
privilege, starts the guest, reaps what the guest leaves behind and says how the guest ended; when it dies
the kernel kills everything in the cell. The *guest* is the init's child: it limits itself, and runs the job.

Whatever fails is sent to the supervisor as one sentence that names the layer; nothing runs half built.
This runs inside the zygote's own walls, in the profile's interpreter: the standard library and the few
modules of Crank that lie beside it.
"""

import array
import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from crank.domain.profile import Limits
from crank.domain.quantity import GIB, KIB, MIB
from crank.sandbox import kernel, landlock, mounts, namespaces
from crank.sandbox.namespaces import INSIDE_ID
from crank.sandbox.own_root import Shown

LINK_BYTES_MAX = 4 * KIB
# Where the guest finds its two channels.
REQUEST_DESCRIPTOR, RESULT_DESCRIPTOR = 3, 4

_INIT_TITLE, _GUEST_TITLE = "crank-init", "python job.py"
_STACK_BYTES = 8 * MIB
_FORKS_UNDER_WAY = 512
_LOCKED_BYTES = 64 * KIB
_SIGNALS_QUEUED_MAX = 1_024
# How many descriptors more than a job Crank's own parts may have on their way: a message carries up to 253.
_DESCRIPTORS_KEPT = 4_096
OOM_SCORE = "500"
_THREADS_MAX = 4
# The supervisor counts what the whole tree uses, and ends it first; these are for the day when it does not.
_CPU_MARGIN_SEC = 2
_CPU_HARD_SEC = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Ends:
    """The guest's ends: what it reads its orders from, and where its output and its word go."""

    request: int
    result: int
    stdout: int
    stderr: int


@dataclass(frozen=True, slots=True)
class Cell:
    """Everything that one child needs, come from the launcher before the fork.

    inside    the job's id inside the zygote's user namespace
    groups    descriptors into the job's control group, each open for moving a process in; none without one
    folders   a detached tree for each mount, by name
    shown     what the zygote's cell shows of the host
    programs  folders and files inside that hold what the job may execute
    devices   device nodes that the job may drive
    link      socket to the supervisor
    """

    inside: int
    limits: Limits
    groups: tuple[int, ...]
    folders: dict[str, int]
    shown: tuple[Shown, ...]
    programs: tuple[str, ...]
    devices: tuple[str, ...]
    ends: Ends
    link: socket.socket
    argument_area: tuple[int, int]

    @property
    def descriptors(self) -> list[int]:
        """Return everything that was opened for this child."""
        ends = self.ends
        own = [ends.request, ends.result, ends.stdout, ends.stderr, self.link.fileno()]
        return [*own, *self.groups, *self.folders.values()]


class Broken(Exception):
    """A layer could not be raised. Never leaves the cell: it becomes a message to the supervisor."""

    def __init__(self, layer: str, cause: str) -> None:
        super().__init__(cause)
        self.layer = layer


@contextlib.contextmanager
def layer(name: str) -> Iterator[None]:
    """Name the layer that whatever fails inside was meant to raise."""
    try:
        yield
    except OSError as fault:
        raise Broken(name, str(fault)) from fault


def threads(limits: Limits) -> int:
    """Return how many threads numeric libraries may use."""
    return max(1, min(_THREADS_MAX, os.cpu_count() or 1, limits.processes))


def environment(limits: Limits) -> dict[str, str]:
    """Return the job's whole environment; nothing is inherited."""
    return {
        "HOME": "/scratch",
        "LANG": "C.UTF-8",
        "LOGNAME": "job",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": "/tmp/matplotlib",
        "OMP_NUM_THREADS": str(threads(limits)),
        "OPENBLAS_NUM_THREADS": str(threads(limits)),
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
    # One for the init and one more, so that passing the limit can be seen and named. Where a group counts, it
    # shall be the one that refuses: forks that are under way count here, and a refusal of this kind leaves no trace.
    processes = limits.processes + (_FORKS_UNDER_WAY if counted else 2)
    ceilings = {
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_CPU: (int(limits.cpu_sec) + _CPU_MARGIN_SEC, _CPU_HARD_SEC),
        resource.RLIMIT_FSIZE: (limits.file_bytes, limits.file_bytes),
        resource.RLIMIT_MEMLOCK: (_LOCKED_BYTES, _LOCKED_BYTES),
        resource.RLIMIT_MSGQUEUE: (0, 0),
        resource.RLIMIT_NOFILE: (limits.open_files, limits.open_files),
        resource.RLIMIT_NPROC: (processes, processes),
        resource.RLIMIT_RTPRIO: (0, 0),
        resource.RLIMIT_SIGPENDING: (_SIGNALS_QUEUED_MAX, _SIGNALS_QUEUED_MAX),
        resource.RLIMIT_STACK: (_STACK_BYTES, 8 * _STACK_BYTES),
    }
    if not counted:
        private = limits.memory_bytes + GIB // 2
        ceilings[resource.RLIMIT_DATA] = (private, private)
    return ceilings


def say(link: socket.socket, descriptors: Sequence[int] = (), **message: object) -> None:
    """Send one message to the supervisor, with descriptors."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    link.sendmsg([json.dumps(message).encode()[:LINK_BYTES_MAX]], ancillary)


def end_after(link: socket.socket, work: Callable[[], None]) -> NoReturn:
    """Do the work of a forked process and end it; what fails is told on the link. Never returns."""
    try:
        work()
    except Broken as broken:
        say(link, failed={"layer": broken.layer, "cause": str(broken)[:500]})
    except BaseException as fault:  # noqa: BLE001 - the border of a forked process: nothing may pass it
        say(link, failed={"layer": "sandbox", "cause": f"{type(fault).__name__}: {fault}"[:500]})
    finally:
        os._exit(1)


def be_init(cell: Cell, run_guest: Callable[[Cell], None]) -> None:
    """Be process 1 of a fresh process namespace: raise the walls, start the guest, tell how it ended."""
    kernel.close_all_but([0, 1, 2, *cell.descriptors])
    for group in cell.groups:
        with layer("cgroup"):
            os.write(group, b"0")
            os.close(group)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
        # Best effort: it only makes the kernel choose the job before the worker when the host runs out.
        score.write(OOM_SCORE)
    zygotes_proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with layer("namespaces"):
        kernel.unshare(namespaces.CHILD)
    with layer("identity"):
        # Before the mounts: an overlay reads what lies beneath it as whoever made it.
        os.setresgid(cell.inside, cell.inside, cell.inside)
        os.setresuid(cell.inside, cell.inside, cell.inside)
        # A change of identity hides a process's own files in /proc from it.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    with layer("mounts"):
        socket.sethostname(namespaces.HOST_NAME)
        opened = mounts.furnish(cell.folders, cell.limits, owner=cell.inside, shown=cell.shown)
    _own_user_namespace(cell, zygotes_proc)
    os.close(zygotes_proc)
    with layer("capabilities"):
        kernel.drop_bounding_set()
        kernel.drop_capabilities()
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    kernel.overwrite_arguments(cell.argument_area, _INIT_TITLE)
    woken, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    guest = os.fork()
    if guest == 0:
        end_after(cell.link, lambda: _be_guest(cell, run_guest))
    folders = [opened.scratch, opened.out, opened.temporary, opened.shared_memory, opened.proc]
    say(cell.link, [os.pidfd_open(os.getpid()), os.pidfd_open(guest), *folders], built=True)
    kernel.close_all_but([0, 1, 2, cell.link.fileno(), woken, waker])
    _reap(cell.link, woken, guest)


def default_signals() -> None:
    """Let every signal do what it does by default."""
    for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)


def _own_user_namespace(cell: Cell, zygotes_proc: int) -> None:
    with layer("user_namespace"):
        kernel.unshare(kernel.CLONE_NEWUSER)
        namespaces.map_own_id(zygotes_proc, cell.inside)
    if os.getuid() != INSIDE_ID or os.getgid() != INSIDE_ID:
        raise Broken("identity", f"the job would be {os.getuid()}:{os.getgid()}")


def _reap(link: socket.socket, woken: int, guest: int) -> NoReturn:
    """Reap everything; when the guest has ended say how, and end, which ends whatever it left."""
    waiting = select.poll()
    waiting.register(woken, select.POLLIN)
    # The supervisor never writes here: the link becomes readable when it is gone, and then so are we.
    waiting.register(link.fileno(), select.POLLIN)
    while True:
        for descriptor, _ in waiting.poll():
            if descriptor == link.fileno():
                os._exit(0)
            os.read(woken, 512)
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == guest:
                    left = sum(name.isdigit() for name in os.listdir("/proc")) - 1
                    say(link, guest=ended[1], left=left)
                    os._exit(0)


def begin_guest(cell: Cell, place: str) -> int:
    """Make this process look like one that was started alone, in `place`.

    Return the number of the link, which is left to tell of a failure and must be closed.
    """
    signal.set_wakeup_fd(-1)
    os.setsid()
    os.chdir(place)
    os.umask(0o022)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    link = place_descriptors(cell.ends, keep=cell.link.fileno())
    # The zygote left every signal to its default. As every Python starts: broken pipes and large files are
    # errors, Ctrl-C is an exception.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kernel.overwrite_arguments(cell.argument_area, _GUEST_TITLE)
    return link


def _be_guest(cell: Cell, run_guest: Callable[[Cell], None]) -> None:
    link = begin_guest(cell, "/scratch")
    with layer("landlock"):
        version = landlock.abi()
        if version:
            landlock.restrict(_file_rules(cell, version), version=version)
    with layer("limits"):
        Ceilings(cell.limits, counted=bool(cell.groups)).begin()
    os.close(link)
    run_guest(cell)


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The ceilings that a guest puts on itself.

    limits   those of its session, which no run passes
    counted  whether a control group counts memory and processes
    beside   how many processes of this account are not the job's, and count for it all the same
    """

    limits: Limits
    counted: bool
    beside: int = 0

    def begin(self) -> None:
        """Lower all but that of descriptors for good; none is ever raised. Raises OSError.

        The kernel compares what all processes of an account have on their way to each other with the sender's own
        ceiling of descriptors: another job's would keep this guest from passing its listener on.
        """
        self._lower({**self._of(self.limits), resource.RLIMIT_NOFILE: resource.getrlimit(resource.RLIMIT_NOFILE)})

    def settle(self) -> None:
        """Lower that of descriptors, too, below what Crank's own parts may have on their way. Raises OSError."""
        # As it came from the launcher, whose own it is.
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        kept = min(self.limits.open_files, allowed - min(_DESCRIPTORS_KEPT, allowed // 2))
        resource.setrlimit(resource.RLIMIT_NOFILE, (kept, kept))
        self.keep(None, last=False)

    def keep(self, wanted: dict[str, Any] | None, *, last: bool) -> None:
        """Keep to the limits of one run, or to the session's: for good when it is the last, otherwise until the next.

        The kernel counts the CPU time of a process from its start, so what earlier runs used is added. Raises OSError.
        """
        limits = Limits(**wanted) if wanted else self.limits
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu_sec = int(used.ru_utime + used.ru_stime + limits.cpu_sec) + _CPU_MARGIN_SEC
        self._lower({**self._of(limits), resource.RLIMIT_CPU: (cpu_sec, cpu_sec)}, for_good=last)

    def _of(self, limits: Limits) -> dict[int, tuple[int, int]]:
        ceilings = rlimits(limits, counted=self.counted)
        soft, hard = ceilings[resource.RLIMIT_NPROC]
        return {**ceilings, resource.RLIMIT_NPROC: (soft + self.beside, hard + self.beside)}

    def _lower(self, ceilings: dict[int, tuple[int, int]], *, for_good: bool = True) -> None:
        for kind, (soft, hard) in ceilings.items():
            _, allowed = resource.getrlimit(kind)
            most = hard if allowed == resource.RLIM_INFINITY else min(hard, allowed)
            resource.setrlimit(kind, (min(soft, most), most if for_good else allowed))


def place_descriptors(ends: Ends, *, keep: int) -> int:
    """Leave the process with 0 to 4; return the number of `keep`, which stays only to tell of a failure."""
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    wanted = (nothing, ends.stdout, ends.stderr, ends.request, ends.result)
    # Lifted out of the way first: one may already stand where another belongs.
    lifted = [lift(descriptor) for descriptor in wanted]
    kept = lift(keep)
    for place, descriptor in enumerate(lifted):
        os.dup2(descriptor, place, inheritable=place < REQUEST_DESCRIPTOR)
    kernel.close_all_but([*range(len(wanted)), kept])
    return kept


def lift(descriptor: int) -> int:
    """Return a copy of a descriptor with a number of 64 or more, away from those the guest is given."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 64)


def _file_rules(cell: Cell, version: int) -> list[tuple[str, int]]:
    everything = landlock.file_rights(version)
    changeable = everything & ~landlock.EXECUTE & ~landlock.IOCTL_DEV
    rules = [("/", landlock.READ)]
    rules += [(place, changeable) for place in mounts.WRITABLE]
    rules += [(f"/dev/{node}", landlock.READ_FILE | landlock.WRITE_FILE) for node in ("null", "full")]
    # Not to be written: what can be is memory shared without a file, when it is mapped (zero(4)).
    rules += [("/dev/zero", landlock.READ_FILE)]
    rules += [(device, everything) for device in cell.devices]
    rules += [(program, landlock.READ_FILE | landlock.EXECUTE) for program in cell.programs]
    return rules

"""A job's processes on a machine that gives no namespaces: inside, from the zygote's fork to the guest.

The *init* makes the job's private folders, is the subreaper of all that the job starts, and ends them all when
the guest has ended or the supervisor lets go; it stands outside the job's walls, and nothing in them can reach
it. The *guest* limits itself, shuts itself in with Landlock and the filter, tries both, and runs the job.

Whatever fails is sent to the supervisor as one sentence that names the layer; nothing runs half built. This
runs in the profile's interpreter: the standard library and the few modules of Crank that lie beside it.
"""

import contextlib
import importlib
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from crank.domain.profile import Limits
from crank.sandbox import cell, fresh, guest, guest_paths, guest_result, kernel, landlock, tree, yard
from crank.sandbox.cell import Broken, Cell, layer
from crank.sandbox.guest_bare import BareProof
from crank.sandbox.zygote import Zygote, serve

_INIT_TITLE = "crank-init"
END_SEC = 8.0
# Below this, a truncated file needs no right to be written (Landlock version 3, Linux 6.2).
LANDLOCK_NEEDED = 3
LANDLOCK_SCOPED = 6
# Processes of the same account come and go beside the job; its own are counted by the supervisor. No more than this: a
# bomb that is faster than it could then take hundreds, and with them the turns of all others.
_BESIDE_MARGIN = 16
# Where a control group counts the job's own, neighbours that grow must not take what the job was promised.
_BESIDE_COUNTED = 8_192

# What a job may read of its own process. Not `mountinfo`, `cgroup`, `net` or `environ`: those tell of the host.
_OWN_PROCESS = (
    *("auxv", "cmdline", "comm", "limits", "maps", "mem", "oom_score", "smaps", "smaps_rollup", "stat", "statm"),
    *("status", "fd", "fdinfo"),
)
_MACHINE = (
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/loadavg", "/proc/uptime", "/proc/version", "/proc/stat"),
    "/sys/devices/system/cpu/online",
)
# Zero is not to be written: what can be is memory shared without a file, when it is mapped (zero(4)).
_NODES_READ = ("/dev/random", "/dev/urandom", "/dev/zero")
_NODES = ("/dev/null", "/dev/full")


@dataclass(frozen=True, slots=True)
class Ground:
    """What a bare zygote stands on, beside what every zygote is told.

    root       the profile's folder on the host
    libraries  its folders of shared libraries
    base       the zygote's own folder, beneath which every yard is made
    """

    root: str
    libraries: tuple[str, ...]
    base: str

    @property
    def programs(self) -> str:
        """Return the folder that holds a link to each program."""
        return os.path.join(self.base, "bin")

    @property
    def bench(self) -> str:
        """Return the folder that the zygote's imports may use."""
        return os.path.join(self.base, "bench")


@dataclass(frozen=True, slots=True)
class Yard:
    """A job's private folders.

    mounts  each mounted folder's place on the host
    beside  how many processes of the same account are not the job's
    """

    path: str
    mounts: tuple[str, ...]
    beside: int = 0

    @property
    def scratch(self) -> str:
        """Return the folder in which the job begins."""
        return os.path.join(self.path, yard.FOLDERS["/scratch"])


class BareZygote(Zygote):
    """Forks jobs' processes into walls that need no namespace."""

    def __init__(self, control: socket.socket) -> None:
        self._code = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        super().__init__(control)
        told = self._message["bare"]
        self._ground = Ground(told["root"], tuple(told["libraries"]), os.path.dirname(self._code))

    def prepare(self) -> None:
        """Import everything, with nothing of our own left to be found."""
        sys.path.remove(self._code)
        self._check_libraries()
        super().prepare()

    def _check_libraries(self) -> None:
        """Refuse an interpreter that runs on the host's libraries: what was built and tested is another."""
        with open("/proc/self/maps", encoding="utf-8") as source:
            mapped = {line.split(maxsplit=5)[5].strip() for line in source if len(line.split(maxsplit=5)) == 6}
        strangers = sorted(path for path in mapped if path[0] == "/" and not path.startswith(f"{self._ground.root}/"))
        if strangers:
            self._fail("interpreter", f"it loads {strangers[0]} of the host; build the profile again")

    @contextlib.contextmanager
    def _workbench(self) -> Iterator[None]:
        os.mkdir(self._ground.bench, 0o700)
        with contextlib.suppress(ImportError):
            # It opens files below Python; `guest_paths` can only reach it where it is there already.
            importlib.import_module("sqlite3")
        try:
            yield
        finally:
            yard.remove(self._ground.bench)

    def _find_programs(self) -> tuple[str, ...]:
        """Return what the launcher found: it looked inside the root, which is no root here."""
        found: tuple[str, ...] = tuple(self._message["bare"]["programs"])
        return found

    def _fork(self, child: Cell, message: dict[str, Any]) -> None:
        if os.fork() == 0:
            cell.end_after(child.link, lambda: be_init(child, self._ground, self._run_in))

    def _run_in(self, child: Cell, place: Yard) -> None:
        limits = child.limits
        fresh.begin(environment(limits, self._ground, place), threads=cell.threads(limits))
        sys.path.append(place.scratch)
        guest.main(
            self._proof(place),
            guest_result,
            self._walls(),
            cell.Ceilings(limits, counted=bool(child.groups), beside=place.beside),
        )

    def _proof(self, place: Yard) -> BareProof:
        ground = self._ground
        real = {**yard.places(place.path), "/opt": os.path.join(ground.root, "opt")}
        places = guest_paths.Places(real, (ground.root, ground.base, *place.mounts))
        # Afterwards: what is tried shall mean what it says.
        return BareProof(
            ground.base,
            root=ground.root,
            scratch=place.scratch,
            parent=os.getppid(),
            then=lambda: guest_paths.install(places),
        )


def environment(limits: Limits, ground: Ground, place: Yard) -> dict[str, str]:
    """Return the job's whole environment: that of every job, with the real places of what it may use."""
    real = yard.places(place.path)
    return {
        **cell.environment(limits),
        "HOME": real["/scratch"],
        "MPLCONFIGDIR": f"{real['/tmp']}/matplotlib",
        "PATH": ground.programs,
        "TMPDIR": real["/tmp"],
        "CRANK_IN": real["/in"],
        "CRANK_OUT": real["/out"],
        "CRANK_SCRATCH": real["/scratch"],
        "LD_LIBRARY_PATH": ":".join(ground.libraries),
        "PYTHONTZPATH": f"{ground.root}/usr/share/zoneinfo",
    }


def be_init(child: Cell, ground: Ground, run: Callable[[Cell, Yard], None]) -> None:
    """Make the job's places, start the guest, tell how it ended, and leave nothing of it alive."""
    kernel.close_all_but([0, 1, 2, *child.descriptors])
    for group in child.groups:
        with layer("cgroup"):
            os.write(group, b"0")
            os.close(group)
    os.setsid()
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    # Nobody of this account may look into it, whatever Landlock knows of tracing.
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    with layer("mounts"):
        targets = {name: os.readlink(f"/proc/self/fd/{folder}") for name, folder in child.folders.items()}
        for name, folder in child.folders.items():
            _check_readable(name, folder, targets[name])
        beside = tree.tasks_of(os.getuid()) + (_BESIDE_COUNTED if child.groups else _BESIDE_MARGIN)
        place = Yard(yard.make(ground.base, targets), tuple(targets.values()), beside)
    kernel.overwrite_arguments(child.argument_area, _INIT_TITLE)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    woken, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running = os.fork()
    if running == 0:
        cell.end_after(child.link, lambda: _be_guest(child, ground, place, run))
    folders = [
        os.open(os.path.join(place.path, name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for name in yard.FOLDERS.values()
    ]
    pidfds = [os.pidfd_open(os.getpid()), os.pidfd_open(running)]
    cell.say(child.link, [*pidfds, *folders], built=True, init=os.getpid(), yard=place.path)
    kernel.close_all_but([0, 1, 2, child.link.fileno(), woken, waker])
    _reap(child.link, woken, running)


def _check_readable(name: str, folder: int, path: str) -> None:
    """Refuse a mounted folder that this account may not read by its path: here nobody can lend it the right."""
    if not os.access(path, os.R_OK | os.X_OK):
        raise Broken(
            "permissions", f"the folder of {name} may not be read by the account of jobs (user id {os.getuid()})"
        )
    if not os.path.samestat(os.stat(path), os.fstat(folder)):
        raise Broken("mounts", f"the folder of {name} was replaced while it was opened")


def _reap(link: socket.socket, woken: int, running: int) -> NoReturn:
    """Reap everything; when the guest has ended, or nobody waits for it, end all that is left, and then this."""
    waiting = select.poll()
    waiting.register(woken, select.POLLIN)
    # The supervisor never writes here: the link becomes readable when it lets go.
    waiting.register(link.fileno(), select.POLLIN)
    ended = False
    while not ended:
        for descriptor, _ in waiting.poll():
            if descriptor == woken:
                os.read(woken, 512)
            else:
                ended = True
        with contextlib.suppress(ChildProcessError):
            while (gone := os.waitpid(-1, os.WNOHANG))[0]:
                if gone[0] == running:
                    ended = True
                    with contextlib.suppress(OSError):
                        cell.say(link, guest=gone[1], left=len(tree.descendants(os.getpid())))
    # What outlived this process would be nobody's, and go on: where others take the time, it takes as long as it takes.
    while not tree.end_children(limit_sec=END_SEC):
        continue
    os._exit(0)


def _be_guest(child: Cell, ground: Ground, place: Yard, run: Callable[[Cell, Yard], None]) -> None:
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    link = cell.begin_guest(child, place.scratch)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
        # The job before its init: whoever is left can end the rest.
        score.write(cell.OOM_SCORE)
    with layer("limits"):
        cell.Ceilings(child.limits, counted=bool(child.groups), beside=place.beside).begin()
    with layer("landlock"):
        shut_in(file_rules(child, ground, place))
    os.close(link)
    run(child, place)


def shut_in(rules: list[tuple[str, int]]) -> None:
    """Confine this process with Landlock. Raises OSError; Broken where this kernel's is too early."""
    version = landlock.abi()
    if version < LANDLOCK_NEEDED:
        raise Broken("landlock", f"its version is {version}, and without namespaces {LANDLOCK_NEEDED} is needed")
    landlock.restrict(rules, version=version)


def file_rules(child: Cell, ground: Ground, place: Yard) -> list[tuple[str, int]]:
    """Return all that a job may do with files: read its profile and its mounts, change its own folders."""
    everything = landlock.file_rights(landlock.abi())
    rules = own_rules(place)
    rules += [(path, landlock.READ) for path in (ground.root, *place.mounts)]
    rules += [(device, everything) for device in child.devices]
    rules += [(program, landlock.READ_FILE | landlock.EXECUTE) for program in child.programs]
    return rules


def own_rules(place: Yard) -> list[tuple[str, int]]:
    """Return the rules that every job has: its folders, harmless devices, its own process."""
    everything = landlock.file_rights(landlock.abi())
    changeable = everything & ~landlock.EXECUTE & ~landlock.IOCTL_DEV
    rules = [(os.path.join(place.path, name), changeable) for name in yard.FOLDERS.values()]
    rules += [(os.path.join(place.path, yard.IN), landlock.READ_DIR)]
    rules += [(node, landlock.READ_FILE | landlock.WRITE_FILE) for node in _NODES]
    own = f"/proc/{os.getpid()}"
    readable = (*_NODES_READ, *_MACHINE, *(f"{own}/{name}" for name in _OWN_PROCESS))
    rules += [(path, landlock.READ) for path in readable if os.path.exists(path)]
    return rules


def main() -> None:
    """Be a zygote without namespaces. The control socket is descriptor 3."""
    serve(BareZygote)

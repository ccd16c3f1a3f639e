"""A nest without namespaces: what a zygote lives in where the host gives none, raised by the launcher.

Two processes take part. The *keeper* gives up the launcher's identity, makes a folder of its own, starts the
zygote inside walls that its children's are built on, and ends everything that would be left without a parent.
The *zygote* is the profile's own interpreter, started by the profile's own loader from where it lies.
"""

import contextlib
import os
import select
import signal
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

from crank.domain.profile import Limits
from crank.sandbox import bare, fresh, guest_proof, kernel, landlock, layers, namespaces, programs, seccomp, tree, yard
from crank.sandbox.bare import END_SEC, Yard
from crank.sandbox.cell import Broken, Ceilings, end_after, environment, layer, lift, say
from crank.sandbox.cgroup import place_name, started_ticks
from crank.sandbox.guest_bare import WITNESS, BareProof
from crank.sandbox.namespaces import INSIDE_ID, Identity
from crank.sandbox.nest import KILL_ZYGOTE, RAISE_SEC, Nest, hear
from crank.sandbox.syscalls import native
from crank.sandbox.zygote import CONTROL_DESCRIPTOR

_TITLE = "crank-nest"
_LOOK_MS = 1_000
_TIDY_SEC = 0.1
# On disk where there is a choice: what a job writes should not fill the host's memory.
_GROUNDS = ("/var/tmp", "/tmp")
_CAP_SETGID, _CAP_SETUID = 1 << 6, 1 << 7
_BECOMING = _CAP_SETGID | _CAP_SETUID
_IDS_BEHIND_BASE = 999
_LIBRARY_FOLDERS = ("lib", "usr/lib", "lib64", "usr/lib64", "usr/local/lib")


@dataclass(frozen=True, slots=True)
class BareSite:
    """Everything a keeper needs, prepared before the fork.

    root      the profile's folder on the host; None in a rehearsal
    command   how the interpreter is started, without the script
    files     what lies in the zygote's own folder; `start` is the one that the interpreter is given
    writable  device nodes that jobs may drive
    programs  the file of each program, by name
    """

    root: str | None
    command: tuple[str, ...]
    files: Mapping[str, bytes]
    start: str
    identity: Identity
    argument_area: tuple[int, int]
    devices: tuple[str, ...] = ()
    programs: tuple[tuple[str, str], ...] = ()


class BareNest(Nest):
    """A nest whose end is its keeper's to bring about."""

    def raze(self) -> None:
        """Let the keeper end everything in it, and itself. Safe to call twice."""
        self.control.close()
        self.life.close()


def account() -> Identity:
    """Return who jobs are: with the right to change ids an account that owns nothing, else the caller's own.

    Raises SandboxError for root without that right.
    """
    if kernel.effective_capabilities() & _BECOMING == _BECOMING:
        with open("/proc/self/uid_map", encoding="ascii") as source:
            number = namespaces.slot_base(source.read()) + _IDS_BEHIND_BASE
        return Identity(number, number, number, privileged=True)
    if os.geteuid() == 0:
        raise layers.missing("capabilities", "jobs would run as root: this account may not take another id")
    return Identity(os.geteuid(), os.getegid(), INSIDE_ID, privileged=False)


def permissions(granted: seccomp.Permissions) -> seccomp.Permissions:
    """Return what a job's filter grants here, of what it would with namespaces."""
    return replace(granted, bare=True, scoped=landlock.abi() >= bare.LANDLOCK_SCOPED)


def raise_nest(site: BareSite) -> BareNest:
    """Start a keeper, and by it a zygote, whose word is to come on the control socket. Raises SandboxError."""
    life, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        # Out of the way of what a process is given to start with.
        theirs, inner = (socket.socket(fileno=lift(end.detach())) for end in (theirs, inner))
        end_after(theirs, lambda: _be_keeper(site, theirs, inner))
    theirs.close()
    inner.close()
    life.settimeout(RAISE_SEC)
    try:
        while "built" not in hear(life):
            pass
    except BaseException:
        life.close()
        control.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        raise
    life.settimeout(None)
    return BareNest(os.pidfd_open(pid), pid, life, control)


def rehearse(site: BareSite) -> None:
    """Raise every wall that needs no profile around a process, try them, and end it. Raises SandboxError."""
    nest = raise_nest(site)
    nest.raze()
    nest.bury()


# --- the keeper -------------------------------------------------------------------------------


def _be_keeper(site: BareSite, life: socket.socket, control: socket.socket) -> None:
    signal.set_wakeup_fd(-1)
    # It ends when the launcher lets go, having ended all the rest.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    kernel.close_all_but([life.fileno(), control.fileno()])
    for _ in range(3):
        # The launcher's own 0, 1 and 2 have no business in here.
        os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)
    launcher = os.getppid()
    _become(site.identity)
    kernel.overwrite_arguments(site.argument_area, _TITLE)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    with layer("mounts"):
        base = _make_base(launcher, site)
    try:
        zygote = _start(site, base, life, control)
        control.close()
        if site.root is not None:
            say(life, built=True)
            _keep(life, zygote, base)
    finally:
        while not tree.end_children(limit_sec=END_SEC):
            continue
        with contextlib.suppress(OSError):
            yard.remove(base)


def _become(identity: Identity) -> None:
    with contextlib.suppress(OSError):
        # Only who may give capabilities may give them up for good; to the others no_new_privs brings none.
        kernel.drop_bounding_set()
    with layer("identity"):
        if identity.privileged:
            os.setgroups([])
            os.setresgid(identity.gid, identity.gid, identity.gid)
            os.setresuid(identity.uid, identity.uid, identity.uid)
    with layer("capabilities"):
        kernel.drop_capabilities()
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        os.umask(0o022)


def _make_base(launcher: int, site: BareSite) -> str:
    """Make the zygote's own folder, with the code in it; remove those of launchers that are gone."""
    ground = next((place for place in _GROUNDS if os.access(place, os.W_OK | os.X_OK)), None)
    if ground is None:
        raise Broken("mounts", f"none of {', '.join(_GROUNDS)} can be written")
    _sweep(ground)
    base = tempfile.mkdtemp(prefix=f"{place_name(launcher)}-", dir=ground)
    for name in ("code", "bin"):
        os.mkdir(os.path.join(base, name), 0o700)
    for name, content in {**site.files, f"../{WITNESS}": b"nobody inside reads this\n"}.items():
        path = os.path.join(base, "code", name)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        with open(path, "xb") as target:
            target.write(content)
    for name, target_path in site.programs:
        os.symlink(target_path, os.path.join(base, "bin", name))
    return base


def _sweep(ground: str) -> None:
    for name in os.listdir(ground):
        word, _, rest = name.partition("-")
        pid, ticks = [*rest.split("-"), "", ""][:2]
        if word != "crank" or not pid.isdigit() or not ticks.isdigit():
            continue
        path = os.path.join(ground, name)
        if os.lstat(path).st_uid == os.getuid() and started_ticks(int(pid)) != ticks:
            with contextlib.suppress(OSError):
                yard.remove(path)


def _start(site: BareSite, base: str, life: socket.socket, control: socket.socket) -> int:
    zygote = os.fork()
    if zygote == 0:
        link = life if site.root is None else control
        end_after(link, lambda: _rehearse(site, base, life) if site.root is None else _be_zygote(site, base, control))
    if site.root is None:
        os.waitpid(zygote, 0)
    return zygote


def _keep(life: socket.socket, zygote: int, base: str) -> None:
    """Stay until the launcher lets go, or the zygote is gone with all its children.

    What is adopted here lost its parent. An init whose zygote died goes on with its job; what a job left whose
    init the host killed may not live on.
    """
    woken, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    waiting = select.poll()
    waiting.register(woken, select.POLLIN)
    waiting.register(life.fileno(), select.POLLIN)
    alive, tidy = zygote, True
    while True:
        for descriptor, _ in waiting.poll(_LOOK_MS if tidy else 0):
            if descriptor != life.fileno():
                os.read(woken, 512)
            elif life.recv(64) != KILL_ZYGOTE:
                return
            elif alive:
                os.kill(alive, signal.SIGKILL)
        try:
            while ended := os.waitpid(-1, os.WNOHANG)[0]:
                # Its number may belong to another soon.
                alive = 0 if ended == alive else alive
        except ChildProcessError:
            return
        ours = {pid for pid in tree.children(os.getpid()) if pid == alive or _is_init(pid)}
        tree.end_children(limit_sec=END_SEC, spare=ours)
        with contextlib.suppress(OSError):
            tidy = yard.remove_let_go(base, limit_sec=_TIDY_SEC)


def _is_init(pid: int) -> bool:
    """Tell an init from what a job left: nobody of its account may look into it, which no job can say of itself."""
    try:
        return os.stat(f"/proc/{pid}").st_uid != os.getuid()
    except OSError:
        return False


# --- the zygote, and the rehearsal --------------------------------------------------------------


def _be_zygote(site: BareSite, base: str, control: socket.socket) -> None:
    for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    with layer("landlock"):
        bare.shut_in(_zygote_rules(base, site.devices))
    with layer("seccomp"):
        granted = seccomp.Permissions(
            processes=True, programs=True, devices=bool(site.devices), raising=True
        )
        call = native().numbers["seccomp"]
        guest_proof.install(seccomp.program(native(), granted), number=call, notify=False)
    os.dup2(control.fileno(), CONTROL_DESCRIPTOR, inheritable=True)
    # The other end of it stays until the exec closes it: it tells when there is none.
    kernel.close_all_but([0, 1, 2, CONTROL_DESCRIPTOR, control.fileno()])
    os.chdir("/")
    # Numeric libraries start threads when they are imported, and threads do not survive a fork.
    variables = {**environment(Limits()), "HOME": base, "TMPDIR": f"{base}/bench", "MPLCONFIGDIR": f"{base}/bench"}
    # Otherwise the C library shows every process the host's own tables.
    variables |= {"GCONV_PATH": f"{base}/none", "LC_ALL": "C"}
    variables |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        os.execve(site.command[0], [*site.command, os.path.join(base, "code", site.start)], variables)  # noqa: S606
    except OSError as fault:
        denied = isinstance(fault, PermissionError)
        cause = f"the profile may not be read by the account of jobs (user id {os.getuid()})" if denied else str(fault)
        raise Broken("permissions" if denied else "interpreter", cause) from fault


def _zygote_rules(base: str, devices: tuple[str, ...]) -> list[tuple[str, int]]:
    """Let a zygote read what its account may, and change its own folder; its children are granted less."""
    everything = landlock.file_rights(landlock.abi())
    nodes = ("/dev/null", "/dev/zero", "/dev/full")
    rules = [("/", landlock.READ | landlock.EXECUTE), (base, everything & ~landlock.IOCTL_DEV)]
    rules += [(node, landlock.READ_FILE | landlock.WRITE_FILE) for node in nodes]
    # A guest writes there how dear it is to the host, and an init reads who descends from it.
    rules += [("/proc", landlock.READ | landlock.WRITE_FILE), *((device, everything) for device in devices)]
    return rules


def _rehearse(site: BareSite, base: str, life: socket.socket) -> NoReturn:
    """Be what a guest would be, without an interpreter of its own: shut in, and try the walls."""
    place = Yard(yard.make(base, {}), ())
    parent = os.getppid()
    os.chdir(place.scratch)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    fresh.begin({}, threads=1)
    with layer("limits"):
        Ceilings(Limits(), counted=False, beside=tree.tasks_of(os.getuid())).begin()
    with layer("landlock"):
        bare.shut_in(bare.own_rules(place))
    open_now = frozenset(name for name in os.listdir("/proc/self/fd"))
    proof = BareProof(base, root=None, scratch=place.scratch, parent=parent, descriptors=open_now)
    with layer("seccomp"):
        proof.install(seccomp.program(native(), permissions(seccomp.Permissions())), number=native().numbers["seccomp"], notify=False)
    missing, _ = proof.examine(landlock=True, environment=[])
    if missing:
        name, cause = next(iter(missing.items()))
        raise Broken(name, cause)
    say(life, built=True)
    os._exit(0)


# --- where things are in a profile --------------------------------------------------------------


def within(root: str, path: str) -> str:
    """Return the host's path of a path inside a root, with every link followed as from inside.

    Raises OSError when a link leads in a circle.
    """
    parts, found, hops = [part for part in path.split("/") if part], root, 0
    while parts:
        part = parts.pop(0)
        if part == "..":
            found = found if found == root else os.path.dirname(found)
            continue
        step = os.path.join(found, part)
        if os.path.islink(step):
            hops += 1
            if hops > 40:
                raise OSError(f"too many links in {path}")
            target = os.readlink(step)
            found = root if target.startswith("/") else found
            parts[:0] = [each for each in target.split("/") if each and each != "."]
        elif part != ".":
            found = step
    return found


def folders_of_libraries(root: str) -> tuple[str, ...]:
    """Return the folders of a profile that hold shared libraries, on the host."""
    found: list[str] = []
    for name in _LIBRARY_FOLDERS:
        folder = within(root, name)
        with contextlib.suppress(OSError):
            inner = [entry.path for entry in os.scandir(folder) if entry.name.endswith("-linux-gnu") and entry.is_dir()]
            found += [*inner, folder]
    for folder, folders, names in os.walk(root):
        # An interpreter with a library of its own may name it by where it was built.
        folders[:] = [name for name in folders if name not in ("site", "site-packages", "share")]
        if any(name.startswith("libpython") for name in names):
            found.append(folder)
    return tuple(dict.fromkeys(found))


def loader_of(root: str, path: str) -> str | None:
    """Return the profile's copy of the loader that a program names, None for one that needs none. Raises OSError."""
    named = programs.loader(within(root, path))
    return None if named is None else within(root, named)


def command(root: str, python: str) -> tuple[str, ...]:
    """Return how a profile's interpreter is started from where it lies, with none of the host's libraries.

    Raises SandboxError when it cannot be.
    """
    try:
        interpreter = within(root, python)
        loader = loader_of(root, python)
    except OSError as fault:
        raise layers.missing("interpreter", str(fault)) from fault
    # UTF-8 by its own choice: the C library would map the host's tables for it.
    options = ("-I", "-S", "-B", "-u", "-X", "utf8")
    if loader is None:
        return (interpreter, *options)
    libraries = ":".join(folders_of_libraries(root))
    how = ("--inhibit-cache", "--argv0", interpreter, "--library-path", libraries)
    return (loader, *how, interpreter, *options)


def find_programs(root: str, names: tuple[str, ...]) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Return (name, file) of each program, and every file that must be executable for them.

    The kernel starts a program with the host's loader, which serves only where it is the profile's own, byte
    for byte. Raises SandboxError.
    """
    found: list[tuple[str, str]] = []
    files: list[str] = []
    for name in names:
        places = [within(root, f"{folder}/{name}") for folder in ("usr/local/bin", "usr/bin", "bin")]
        path = next((place for place in places if os.path.isfile(place)), None)
        if path is None:
            raise layers.missing("programs", f"the program {name} is not there")
        found.append((name, path))
        files.append(path)
        files += _host_loader(root, path)
    return tuple(found), tuple(dict.fromkeys(files))


def _host_loader(root: str, path: str) -> list[str]:
    named = programs.loader(path)
    if named is None:
        return []
    host = os.path.realpath(named)
    try:
        with open(host, "rb") as theirs, open(within(root, named), "rb") as ours:
            same = theirs.read() == ours.read()
    except OSError:
        same = False
    if not same:
        raise layers.missing(
            "programs", "without namespaces programs start with the host's loader, which is not the profile's; build it here"
        )
    return [host]

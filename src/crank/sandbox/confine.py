"""The worker's own walls: what a process that talks to the network may still see, be and ask for.

A sandbox keeps a job in. This keeps the worker in, should somebody take it over through what it reads from
the network: it builds a file system that shows the interpreter and the worker's own folders alone, becomes an
account that owns nothing else, gives up every capability, and lets Landlock and a system call filter say the
same again. Call `confine` in a single thread and before the first connection; there is no way back.

Which layers a machine can have is tried, not guessed (`abilities`). One that it can have and that does not
stand is a fault; one that it cannot have is told.
"""

import contextlib
import os
import resource
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crank.errors import SandboxError
from crank.sandbox import confine_filter, kernel, landlock, layers, namespaces
from crank.sandbox.namespaces import Identity

# Shared libraries and what the C library reads of the machine; each is shown where it exists.
SYSTEM = (
    *("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/share/zoneinfo"),
    *("/etc/ld.so.cache", "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/localtime"),
    *("/etc/ssl/openssl.cnf", "/etc/host.conf", "/etc/gai.conf"),
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
# Readable by its mode, granted by no rule: whoever can open it has no Landlock around them.
WITNESS = "/.witness"

# The range of ids that jobs and zygotes take theirs from.
_SLOT_IDS = 1_000

_PLAIN = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV
_READ_ONLY = kernel.MOUNT_ATTR_RDONLY
_INERT = _PLAIN | kernel.MOUNT_ATTR_NOEXEC
_TEMPORARY = "/tmp"
_TEMPORARY_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class View:
    """What a confined process may see and reach. Paths are absolute.

    readable   files and folders; what of them only their owner may read is shown as the account's own
    listed     folders of which no more than the names in them may be read
    writable   the account's own folders, from which nothing can be started
    hidden     folders inside a readable one that must not show
    ports      TCP ports that it may connect to
    network    whether it keeps the host's network; else its own is empty, where it can have one
    programs   whether it may start programs of the readable folders
    temporary  whether it gets an empty /tmp of its own, where it can have a view of its own
    """

    readable: tuple[Path, ...]
    listed: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    ports: tuple[int, ...] = ()
    network: bool = False
    programs: bool = False
    temporary: bool = False


@dataclass(frozen=True, slots=True)
class Abilities:
    """What this process, on this machine, can raise.

    account     the id it can become, None when it must stay who it is
    namespaces  whether it can have a file system of its own
    landlock    the kernel's version, 0 for none
    """

    account: int | None
    namespaces: bool
    landlock: int


@dataclass(frozen=True, slots=True)
class Layer:
    """One wall: whether it stands here, what it keeps out or why it is missing, and then what to do about it."""

    name: str
    holds: bool
    text: str
    fix: str = ""


def account_id(uid_map: str, gid_map: str) -> int:
    """Return the id, of user and group alike, that workers run as: beside the slots of jobs, never one of them.

    Takes the texts of /proc/self/uid_map and gid_map. Raises SandboxError when there is none.
    """
    base = namespaces.slot_base(uid_map)
    for wanted in (base - 1, base + _SLOT_IDS):
        if all(_is_mapped(wanted, text) for text in (uid_map, gid_map)):
            return wanted
    raise layers.missing("identity", "there is no user id left for the worker itself")


def _is_mapped(number: int, id_map: str) -> bool:
    spans = [tuple(map(int, line.split())) for line in id_map.splitlines()]
    return number > 0 and any(inside <= number < inside + count for inside, _, count in spans)


def abilities() -> Abilities:
    """Try what can be had here; a short-lived child tries what cannot be undone. Raises SandboxError."""
    version = landlock.abi()
    if namespaces.is_privileged():
        maps = [Path(f"/proc/self/{name}").read_text("ascii") for name in ("uid_map", "gid_map")]
        return Abilities(account_id(*maps), namespaces=True, landlock=version)
    return Abilities(None, namespaces=_can_have_namespaces(), landlock=version)


def _can_have_namespaces() -> bool:
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(OSError):
            _enter_namespaces(privileged=False, network=False)
            # Some systems allow the namespace and then refuse everything inside it.
            kernel.new_filesystem("tmpfs", [], _INERT)
            kernel.clone_tree("/usr")
            code = 0
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    return status == 0


def _enter_namespaces(*, privileged: bool, network: bool) -> None:
    uid, gid = os.geteuid(), os.getegid()
    own = kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | (0 if network else kernel.CLONE_NEWNET)
    kernel.unshare(own if privileged else own | kernel.CLONE_NEWUSER)
    if not privileged:
        # Its own id and no other, so that files keep the owner that they have.
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    kernel.make_mounts_private()


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def confine(view: View, able: Abilities) -> tuple[Layer, ...]:
    """Raise every wall that this machine can have around this process and all it starts; tell of each.

    Raises SandboxError that names the one that does not stand.
    """
    where = os.getcwd()
    if able.namespaces:
        with _raising("mounts"):
            _enter_namespaces(privileged=able.account is not None, network=view.network)
            _build(view, able.account)
            with contextlib.suppress(OSError):
                os.chdir(where)
    with _raising("capabilities"):
        _give_up(able)
    with _raising("landlock"):
        if able.landlock:
            landlock.restrict(_rules(view, able), version=able.landlock, ports=view.ports)
    with _raising("seccomp"):
        confine_filter.apply()
    return told(view, able)


@contextlib.contextmanager
def _raising(layer: str) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise SandboxError(
            f"The worker cannot confine itself: the layer '{layer}' could not be raised: {fault}",
            code=f"confinement_{layer}",
            fix=layers.FIXES[layer],
            detail=repr(fault),
        ) from fault


def _give_up(able: Abilities) -> None:
    """Become the account and give up everything that could lead back. The order matters."""
    account = able.account
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if able.namespaces:
        # Whoever holds nothing cannot drop this either; no_new_privs says the same.
        kernel.drop_bounding_set()
    if account is not None:
        os.setgroups([])
        os.setresgid(account, account, account)
        os.setresuid(account, account, account)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


# --- the view --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tree:
    place: Path
    descriptor: int
    is_folder: bool


def _build(view: View, account: int | None) -> None:
    """Build the file system and move into it. Needs a mount namespace of its own."""
    trees = [*_show(view, account), *(_clone(path, _INERT) for path in view.writable)]
    trees += [_clone(Path(node), kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NOEXEC) for node in _DEVICES]
    trees.append(_own_processes(privileged=account is not None))
    covers = [_Tree(path, _tmpfs(), is_folder=True) for path in view.hidden]
    if view.temporary:
        options = [("mode", "1777"), ("size", str(_TEMPORARY_BYTES))]
        trees.append(_Tree(Path(_TEMPORARY), kernel.new_filesystem("tmpfs", options, _INERT), is_folder=True))
    root = _tmpfs()
    # Any folder serves as the place of change; /proc exists wherever this can.
    kernel.attach(root, "/proc")
    os.fchdir(root)
    kernel.pivot_root_here()
    kernel.unmount(".")
    os.chdir("/")
    before = os.umask(0o022)
    try:
        for tree in sorted([*trees, *covers], key=lambda tree: len(tree.place.parts)):
            _attach(tree)
        Path(WITNESS).write_bytes(b"")
        Path(WITNESS).chmod(0o644)
        if account is None:
            Path("/proc/self").symlink_to(str(os.getpid()))
    finally:
        os.umask(before)
    for cover in (root, *(cover.descriptor for cover in covers)):
        kernel.change_tree(cover, _READ_ONLY, recursive=False)
    for descriptor in (root, *(tree.descriptor for tree in (*trees, *covers))):
        os.close(descriptor)


def _tmpfs() -> int:
    return kernel.new_filesystem("tmpfs", [("mode", "0755"), ("size", "1m"), ("nr_inodes", "1024")], _INERT)


def _clone(path: Path, attributes: int) -> _Tree:
    tree = kernel.clone_tree(str(path))
    kernel.change_tree(tree, attributes)
    return _Tree(path, tree, path.is_dir())


def _show(view: View, account: int | None) -> list[_Tree]:
    """Copy what is readable, each folder once: one that lies in another comes with it."""
    paths = sorted({*view.readable, *(Path(path) for path in SYSTEM if os.path.exists(path))})
    trees = []
    for path in paths:
        around = [other for other in paths if other in path.parents]
        covered = any(cover == path or cover in path.parents for cover in view.hidden)
        if around and not covered:
            continue
        tree = _clone(path, _PLAIN | _READ_ONLY)
        if account is not None and path in view.readable and _is_private(path, account):
            _give_to(tree, account)
        trees.append(tree)
    return trees


def _is_private(path: Path, account: int) -> bool:
    """Tell whether something that the worker needs of a folder is its owner's alone: looked at where it counts."""
    return any(not _may_read(each, account) for each in (path, *(path.iterdir() if path.is_dir() else ())))


def _may_read(path: Path, account: int) -> bool:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_uid == account:
        return True
    needed = 0o5 if stat.S_ISDIR(found.st_mode) else 0o4
    shift = 3 if found.st_gid == account else 0
    return found.st_mode >> shift & needed == needed


def _give_to(tree: _Tree, account: int) -> None:
    owner = os.fstat(tree.descriptor)
    identity = Identity(account, account, namespaces.INSIDE_ID, privileged=True)
    namespace = namespaces.owner_map(owner.st_uid, owner.st_gid, identity)
    try:
        # A file system without id-mapped mounts leaves what the "other" permission bits allow.
        with contextlib.suppress(OSError):
            kernel.change_tree(tree.descriptor, 0, user_namespace=namespace)
    finally:
        os.close(namespace)


def _own_processes(*, privileged: bool) -> _Tree:
    """Return a /proc of this account's own processes; without privilege, of this one process."""
    if privileged:
        options: list[tuple[str, str | None]] = [("hidepid", "invisible"), ("subset", "pid")]
        return _Tree(Path("/proc"), kernel.new_filesystem("proc", options, _INERT), is_folder=True)
    return _clone(Path(f"/proc/{os.getpid()}"), _INERT)


def _attach(tree: _Tree) -> None:
    """Put a tree in its place; the way there is made where it is missing, with nothing beside it."""
    if tree.is_folder:
        tree.place.mkdir(mode=0o755, parents=True, exist_ok=True)
    else:
        tree.place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not tree.place.exists():
            tree.place.touch()
    kernel.attach(tree.descriptor, str(tree.place))


# --- the second wall -------------------------------------------------------------------------


def _rules(view: View, able: Abilities) -> Iterator[tuple[str, int]]:
    everything = landlock.file_rights(able.landlock)
    changeable = everything & ~landlock.EXECUTE & ~landlock.IOCTL_DEV & ~landlock.MAKE_NODES
    reading = landlock.READ | (landlock.EXECUTE if view.programs else 0)
    for path in view.readable:
        yield from ((str(each), reading) for each in _around(path, view.hidden))
    # A module is found by listing the folder that it lies in, even where not all of that may be read.
    for path in (*view.readable, *view.listed):
        if path.is_dir():
            yield str(path), landlock.READ_DIR
    yield from ((system, reading) for system in filter(os.path.exists, SYSTEM))
    yield from ((str(path), changeable) for path in view.writable)
    yield from ((node, landlock.READ_FILE | landlock.WRITE_FILE) for node in _DEVICES)
    if able.namespaces:
        yield "/proc", landlock.READ
        if view.temporary:
            yield _TEMPORARY, changeable
    else:
        yield f"/proc/{os.getpid()}", landlock.READ


def _around(path: Path, hidden: Sequence[Path]) -> Iterator[Path]:
    """Yield what of a path may be read: itself, or what lies in it beside the hidden."""
    if path in hidden:
        return
    if not any(path in each.parents for each in hidden):
        yield path
        return
    for child in path.iterdir():
        yield from _around(child, hidden)


# --- what is told ----------------------------------------------------------------------------


def told(view: View, able: Abilities) -> tuple[Layer, ...]:
    """Return every layer with what it means here, in the order in which they are raised."""
    ports = ", ".join(str(port) for port in view.ports) or "none"
    return (
        _namespaces(able, "view", "Sees the interpreter, its own files and nothing else of the host."),
        _namespaces(able, "network", "Has an empty network; connections to the controller are handed to it."),
        _account(able.account),
        Layer("capabilities", True, "Holds none and can gain none."),
        _landlock(able, 1, "landlock_files", "Landlock grants the same files once more, and no other."),
        _landlock(able, 4, "landlock_tcp", f"TCP ports that it can reach: {ports}. It can open none."),
        _landlock(able, 6, "landlock_scopes", "No signal and no abstract socket leaves it."),
        Layer("syscalls", True, "No socket but TCP, no listener, no namespaces, mounts or tracing."),
    )


def _namespaces(able: Abilities, name: str, text: str) -> Layer:
    if able.namespaces:
        return Layer(name, True, text)
    return Layer(name, False, "This account may not make namespaces.", layers.FIXES["user_namespace"])


def _account(account: int | None) -> Layer:
    if account is not None:
        return Layer("account", True, f"Runs as user id {account}, which owns nothing else and is in no group.")
    fix = "Start the node as root: then the worker gets an account of its own."
    return Layer("account", False, "It is the account of whoever started the node.", fix)


def _landlock(able: Abilities, since: int, name: str, text: str) -> Layer:
    if able.landlock >= since:
        return Layer(name, True, text)
    if not able.landlock:
        return Layer(name, False, "This kernel has no Landlock.", layers.FIXES["landlock"])
    return Layer(name, False, f"Landlock version {able.landlock} does not know this.", "Use a newer kernel.")

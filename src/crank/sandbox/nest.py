"""A nest: the cell that a zygote lives in, raised from outside by the launcher.

Three processes take part. The *builder* gives up the launcher's identity, makes the namespaces and ends.
Its child, the nest's *init*, is process 1 there: it builds the file system, starts the zygote, and stays
after it, so that a zygote can die or be replaced while the jobs that it forked go on. The *zygote* is the
profile's own interpreter.
"""

import contextlib
import json
import os
import select
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from crank.domain.json import JsonObject, loads_strict
from crank.domain.profile import Limits
from crank.errors import CrankError
from crank.sandbox import kernel, layers, mounts, namespaces
from crank.sandbox.cell import LINK_BYTES_MAX, Broken, default_signals, end_after, environment, layer, lift, say
from crank.sandbox.namespaces import Identity
from crank.sandbox.zygote import CONTROL_DESCRIPTOR

RAISE_SEC = 20.0
_INIT_TITLE = "crank-nest"
KILL_ZYGOTE = b"zygote"
# What a zygote needs to make its children's namespaces, inside its own user namespace only.
_ZYGOTE_CAPABILITIES = (
    kernel.CAP_SETGID,
    kernel.CAP_SETUID,
    kernel.CAP_SETPCAP,
    kernel.CAP_SYS_CHROOT,
    kernel.CAP_SYS_ADMIN,
)


@dataclass(frozen=True, slots=True)
class Site:
    """Everything a builder needs, prepared before the fork.

    root    descriptor of the profile's folder, None where there is none
    files   what lies in /.crank inside; `start` is the one that the interpreter is given
    python  the interpreter, a path inside; None in a rehearsal
    layers  descriptor of each file or folder that is shown beside the root, by its place
    private the places of those that not everybody may read
    links   links of the root beside its own
    """

    root: int | None
    devices: tuple[str, ...]
    python: str | None
    files: Mapping[str, bytes]
    start: str
    identity: Identity
    argument_area: tuple[int, int]
    layers: Mapping[str, int] = field(default_factory=dict)
    private: frozenset[str] = frozenset()
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def folders(self) -> list[int]:
        """Return every descriptor that was opened for it."""
        return [*([] if self.root is None else [self.root]), *self.layers.values()]

    def detach(self) -> tuple[list[mounts.Tree], dict[str, str]]:
        """Copy what it shows of the host; see `mounts.detach`. Raises OSError."""
        trees, links = mounts.detach(self.root, self.devices, rootless=not self.identity.privileged)
        for place, opened in self.layers.items():
            tree = mounts.detach_layer(opened, self.identity, private=place in self.private)
            trees.append(mounts.Tree(place.lstrip("/"), tree, mounts.is_folder(opened)))
        return trees, {**links, **self.links}


@dataclass(slots=True)
class Nest:
    """A nest that stands, as the launcher holds it.

    init     pidfd of its process 1; readable when the nest is gone
    life     while it is open, the nest lives
    control  the zygote's socket
    """

    init: int
    init_pid: int
    life: socket.socket
    control: socket.socket

    def order(self, message: JsonObject, descriptors: Sequence[int] = ()) -> None:
        """Send the zygote one order. Raises OSError when it is gone or does not take it."""
        socket.send_fds(self.control, [json.dumps(message).encode()], list(descriptors))

    def retire(self) -> None:
        """Let the zygote go; its children stay until they are done, and the nest until they are gone."""
        self.control.close()

    def kill_zygote(self) -> None:
        """End a zygote that does not answer; what it forked goes on."""
        with contextlib.suppress(OSError):
            self.life.send(KILL_ZYGOTE)

    def raze(self) -> None:
        """Kill the nest with everything in it. Safe to call twice."""
        self.control.close()
        self.life.close()
        with contextlib.suppress(ProcessLookupError, OSError):
            kernel.send_signal(self.init, signal.SIGKILL)

    def bury(self) -> None:
        """Reap a nest that is gone."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.init_pid, 0)
        os.close(self.init)
        self.control.close()
        self.life.close()


def raise_nest(site: Site) -> Nest:
    """Raise a nest and start its zygote, whose word is to come on the control socket.

    The caller must be a subreaper: the nest's init becomes its child. Raises SandboxError that names the
    first wall that did not stand, with nothing left behind.
    """
    life, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    builder = os.fork()
    if builder == 0:
        _be_builder(site, theirs, inner)
    theirs.close()
    inner.close()
    life.settimeout(RAISE_SEC)
    pid = 0
    try:
        while True:
            message = hear(life)
            if "map" in message:
                _map_ids(site.identity, builder)
                life.send(b"mapped")
            elif "init" in message:
                pid = message["init"]
                life.send(b"adopted")
            elif "built" in message:
                life.settimeout(None)
                return Nest(os.pidfd_open(pid), pid, life, control)
    except BaseException:
        life.close()
        control.close()
        for process in filter(None, (pid, builder)):
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
        raise
    finally:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(builder, 0)


def hear(life: socket.socket) -> JsonObject:
    """Read one word of whoever builds a nest. Raises SandboxError, also for one that tells of a failure."""
    try:
        raw = life.recv(LINK_BYTES_MAX)
    except TimeoutError as fault:
        raise layers.missing("sandbox", f"it was not built within {RAISE_SEC:g} s") from fault
    if not raw:
        raise layers.missing("sandbox", "its builder died without a word")
    message: JsonObject = loads_strict(raw)
    if "failed" in message:
        raise layers.missing(message["failed"]["layer"], message["failed"]["cause"])
    return message


def _map_ids(identity: Identity, pid: int) -> None:
    try:
        namespaces.write_maps(pid, identity)
    except OSError as fault:
        raise layers.missing("user_namespace", f"ids cannot be mapped: {fault}") from fault


# --- inside -----------------------------------------------------------------------------------


def _await(link: socket.socket, word: bytes) -> None:
    if link.recv(64) != word:
        raise OSError("the launcher went away")


def _be_builder(site: Site, life: socket.socket, control: socket.socket) -> NoReturn:
    # Out of the way of what a process is given to start with; here, so that a failure can still be told.
    life, control = (socket.socket(fileno=lift(end.detach())) for end in (life, control))
    end_after(life, lambda: _build(site, life, control))


def _build(site: Site, life: socket.socket, control: socket.socket) -> None:
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    kernel.close_all_but([life.fileno(), control.fileno(), *site.folders])
    for _ in range(3):
        # The launcher's own 0, 1 and 2 have no business in here.
        os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)
    trees: list[mounts.Tree] = []
    links: dict[str, str] = {}
    identity = site.identity
    if identity.privileged:
        with layer("mounts"):
            trees, links = site.detach()
        with layer("identity"):
            os.setgroups([])
            os.setresgid(identity.gid, identity.gid, identity.gid)
            os.setresuid(identity.uid, identity.uid, identity.uid)
            # The launcher writes our map by our files in /proc, which a change of identity gives to root.
            kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    with layer("user_namespace"):
        kernel.unshare(kernel.CLONE_NEWUSER)
        say(life, map=True)
        _await(life, b"mapped")
        os.setresgid(identity.inside, identity.inside, identity.inside)
        os.setresuid(identity.inside, identity.inside, identity.inside)
    with layer("namespaces"):
        kernel.unshare(namespaces.NEST)
        pid = os.fork()
    if pid == 0:
        end_after(life, lambda: _be_init(site, life, control, trees, links))
    say(life, init=pid)
    os._exit(0)


def _be_init(
    site: Site, life: socket.socket, control: socket.socket, trees: list[mounts.Tree], links: dict[str, str]
) -> None:
    _await(life, b"adopted")
    kernel.overwrite_arguments(site.argument_area, _INIT_TITLE)
    with layer("mounts"):
        socket.sethostname(namespaces.HOST_NAME)
        if not site.identity.privileged:
            trees, links = site.detach()
        mounts.raise_root(trees, links, site.files)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    woken, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    zygote = 0
    if (python := site.python) is not None:
        zygote = os.fork()
        if zygote == 0:
            end_after(control, lambda: _be_zygote(python, site.start, control))
    control.close()
    say(life, built=True)
    _reap(life, woken, zygote)


def _be_zygote(python: str, start: str, control: socket.socket) -> None:
    default_signals()
    with layer("capabilities"):
        kernel.keep_capabilities(_ZYGOTE_CAPABILITIES)
    os.dup2(control.fileno(), CONTROL_DESCRIPTOR, inheritable=True)
    # The other end of it stays until the exec closes it: it tells when there is none.
    kernel.close_all_but([0, 1, 2, CONTROL_DESCRIPTOR, control.fileno()])
    argv = [python, "-I", "-S", "-B", "-u", f"/.crank/{start}"]
    # Numeric libraries start threads when they are imported, and threads do not survive a fork.
    variables = environment(Limits()) | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        os.execve(python, argv, variables)  # noqa: S606 - a fixed program of the profile's root
    except OSError as fault:
        raise Broken("interpreter", str(fault)) from fault


def _reap(life: socket.socket, woken: int, zygote: int) -> NoReturn:
    """Reap orphans until the launcher goes away, or the zygote and all its children are gone."""
    waiting = select.poll()
    waiting.register(woken, select.POLLIN)
    waiting.register(life.fileno(), select.POLLIN)
    alive = zygote
    while True:
        for descriptor, _ in waiting.poll():
            if descriptor != life.fileno():
                os.read(woken, 512)
            elif life.recv(64) != KILL_ZYGOTE:
                os._exit(0)
            elif alive:
                os.kill(alive, signal.SIGKILL)
        try:
            while (ended := os.waitpid(-1, os.WNOHANG)[0]):
                # Its number may belong to another soon.
                alive = 0 if ended == alive else alive
        except ChildProcessError:
            if zygote:
                os._exit(0)


def rehearse(site: Site) -> None:
    """Raise every wall that needs no profile and take them down again. Raises SandboxError."""
    nest = raise_nest(site)
    nest.raze()
    nest.bury()


def first_word(nest: Nest) -> CrankError | None:
    """Read what the zygote says when its imports are done: None when it is ready, else why it is not."""
    try:
        raw = nest.control.recv(LINK_BYTES_MAX)
    except OSError:
        raw = b""
    if not raw:
        return layers.missing("interpreter", "the profile's interpreter died while it started")
    try:
        word = loads_strict(raw)
        if "failed" in word:
            return layers.missing(str(word["failed"]["layer"])[:40], str(word["failed"]["cause"])[:500])
        word["ready"]["modules"]
    except (CrankError, TypeError, KeyError):
        # An author's module is imported in there, and may write to whatever is open.
        return layers.missing("interpreter", "what was imported spoke in the zygote's place")
    return None

"""The launcher: the one part that may hold privilege, and the smallest process that can use it.

The worker, which talks to the network, starts it once. It is single-threaded and takes two kinds of request
from a closed list over a Unix socket: try the walls, and open a session. It keeps one nest with a zygote for
each ground that sessions stand on, and forks a supervisor for each session. It runs nothing of a job and
reads nothing that a job wrote. When the worker goes, it ends every session, every nest and itself.

Run as: python -I -S -c "...; main(descriptor, ...)", see `crank.sandbox.link`.
"""

import contextlib
import gc
import itertools
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from crank.domain.json import JsonObject, dumps, loads_strict
from crank.domain.quantity import KIB
from crank.errors import CrankError, ProtocolError, SandboxError
from crank.sandbox import (
    assembly,
    cgroup,
    folders,
    ground,
    kernel,
    layers,
    mounts,
    namespaces,
    nest,
    notify,
    post,
    seccomp,
)
from crank.sandbox.bundle import inner_files
from crank.sandbox.folders import Allowed
from crank.sandbox.home import Home, Session, Wish
from crank.sandbox.namespaces import Identity, Slots
from crank.sandbox.nest import Nest, Site
from crank.sandbox.plan import Ground, Plan, from_json
from crank.sandbox.syscalls import native

REQUEST_BYTES_MAX = 64 * KIB
# Forks of one zygote share its hash seed and memory layout; after so many, another takes its place.
CHILDREN_MAX = 1_000
# Importing torch on a busy machine takes a while; a zygote that takes longer than this never comes.
_READY_SEC = 180.0

_TITLE = "crank-launcher"
_LAST_WORDS_SEC = 15.0
_SWEEP_SEC = 0.2


class Launcher:
    """Serves one worker until it goes away.

    bare  whether sandboxes stand without namespaces, see `crank.sandbox.bare_launcher`
    """

    bare = False

    def __init__(self, link: socket.socket, allowed: Allowed, *, children_max: int = CHILDREN_MAX) -> None:
        self._link = link
        self._children_max = children_max
        self._allowed = allowed
        self._privileged = namespaces.is_privileged()
        self._slots = Slots(privileged=self._privileged)
        self._groups = cgroup.detect(os.getpid())
        self._notify = notify.works()
        self._sessions: dict[int, Session] = {}
        self._homes: dict[Ground, Home] = {}
        # Not for new sessions any more: dead, replaced, or still importing in place of one that serves.
        self._others: list[Home] = []
        self._uncleared: set[str] = set()
        self._files: dict[str, tuple[Mapping[str, bytes], str]] = {}
        self._area = kernel.argument_area()
        self._numbers = itertools.count(1)
        self._handlers: dict[int, Callable[[], bool]] = {link.fileno(): self._serve}
        self._waiting = select.poll()
        self._waiting.register(link.fileno(), select.POLLIN)

    def run(self) -> None:
        """Serve requests until the worker closes its end, then end every session."""
        kernel.overwrite_arguments(self._area, _TITLE)
        # A nest's first process becomes ours when its builder ends.
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        swept = self._groups.sweep() if self._groups is not None else []
        greeting = {
            "privileged": self._privileged,
            "cgroup": self._groups.flavour if self._groups is not None else None,
            "swept": swept[:100],
        }
        self._link.send(dumps(greeting).encode())
        # Forked children share these pages; a collection would copy them for nothing.
        gc.freeze()
        try:
            while True:
                for descriptor, _ in self._waiting.poll(self._patience_ms()):
                    # One event may have ended what another was about.
                    handler = self._handlers.get(descriptor)
                    if handler is not None and not handler():
                        return
                self._look_after()
        finally:
            self._end_all()

    def _patience_ms(self) -> float | None:
        if self._uncleared:
            return _SWEEP_SEC * 1000
        return 5_000.0 if any(not home.ready for home in self._homes.values()) else None

    def _look_after(self) -> None:
        """Do what no event tells of: late zygotes, control groups that were still busy."""
        for home in [home for home in (*self._homes.values(), *self._others) if not home.ready]:
            if time.monotonic() - home.since > _READY_SEC:
                self._lose(home, layers.missing("interpreter", f"it was not ready within {_READY_SEC:g} s"))
        for name in [*self._uncleared]:
            if self._groups is None or _cleared(self._groups, name):
                self._uncleared.discard(name)

    def _watch(self, descriptor: int, handler: Callable[[], bool]) -> None:
        self._handlers[descriptor] = handler
        self._waiting.register(descriptor, select.POLLIN)

    def _forget(self, descriptor: int) -> None:
        if self._handlers.pop(descriptor, None) is not None:
            self._waiting.unregister(descriptor)

    # --- requests ---

    def _serve(self) -> bool:
        raw, descriptors, _, _ = socket.recv_fds(self._link, REQUEST_BYTES_MAX, 4, socket.MSG_CMSG_CLOEXEC)
        if not raw:
            return False
        try:
            request = loads_strict(raw)
            if not isinstance(request, dict) or len(descriptors) != 1:
                raise ProtocolError("A request is an object with one descriptor.", code="request_shape")
            channel = socket.socket(fileno=descriptors[0])
            descriptors.clear()
            self._dispatch(request, channel)
        except (CrankError, OSError) as fault:
            print(f"crank launcher: request refused: {fault}", file=sys.stderr)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _dispatch(self, request: dict[str, Any], channel: socket.socket) -> None:
        """Choose from the closed list of requests. A refusal is told to the session's own channel."""
        try:
            kind = request.pop("kind", None)
            if kind == "open" and set(request) == {"plan"}:
                self._open(Wish(from_json(request["plan"]), channel, time.monotonic()))
            elif kind == "rehearse" and not request:
                self._rehearse(channel)
            else:
                raise ProtocolError("The request is not one of those agreed.", code="request_kind")
        except (CrankError, OSError) as fault:
            _refuse(channel, fault)

    def _rehearse(self, channel: socket.socket) -> None:
        began = time.monotonic()
        self._try_nest()
        self._try_group()
        with contextlib.closing(channel), contextlib.suppress(OSError):
            channel.sendall(post.ready_frame({"setup_sec": time.monotonic() - began}))

    def _try_nest(self) -> None:
        files, start = self._inner_files("3.11")
        nest.rehearse(Site(None, (), None, files, start, self._slots.nest, self._area))

    def _stand(self, wanted: Ground, site: Site) -> Nest:
        return nest.raise_nest(site)

    def _permissions(self, wanted: Ground) -> seccomp.Permissions:
        return seccomp.Permissions(
            processes=wanted.processes,
            programs=bool(wanted.programs),
            devices=bool(wanted.devices),
            counted=self._groups is not None,
            notify=self._notify,
        )

    def _told(self, wanted: Ground) -> JsonObject:
        """Return what a zygote is told of its ground beside what every one is."""
        return {}

    def _detach(self, opened: list[int], home: Home, identity: Identity) -> list[int]:
        return _detached(opened, home, identity)

    def _try_group(self) -> None:
        if self._groups is None:
            return
        name = f"try-{next(self._numbers)}"
        try:
            self._groups.make(name, memory_bytes=64 << 20, processes=8)
        except OSError as fault:
            raise layers.missing("cgroup", str(fault)) from fault
        self._clear(name)

    def _inner_files(self, version: str) -> tuple[Mapping[str, bytes], str]:
        if version not in self._files:
            self._files[version] = inner_files(version)
        return self._files[version]

    # --- nests ---

    def _open(self, wish: Wish) -> None:
        if any(session.name == wish.plan.session for session in self._sessions.values()):
            raise ProtocolError("A session of this name is running.", code="session_name")
        home = self._homes.get(wish.plan.ground)
        if home is None:
            home = self._homes[wish.plan.ground] = self._raise(wish.plan.ground)
        if home.ready:
            self._start(wish, home)
            self._renew(home)
        else:
            home.wishes.append(wish)

    def _raise(self, wanted: Ground) -> Home:
        inner = self._inner_files(wanted.version)
        site = ground.open_site(
            wanted, self._allowed, inner=inner, identity=self._slots.nest, argument_area=self._area
        )
        private: dict[str, int] = {}
        try:
            private.update((place, os.dup(site.layers[place])) for place in site.private)
            standing = self._stand(wanted, site)
        except BaseException:
            ground.close(private.values())
            raise
        finally:
            ground.close(site.folders)
        home = Home(wanted, standing, time.monotonic(), private)
        standing.control.settimeout(5.0)
        order = {
            "site": wanted.site,
            "paths": wanted.paths,
            "preimports": wanted.preimports,
            "programs": wanted.programs,
            "processes": wanted.processes,
            "devices": wanted.devices,
            "filter": seccomp.program(native(), self._permissions(wanted)).hex(),
            "notify": self._notify,
            **self._told(wanted),
        }
        with contextlib.suppress(OSError):
            # When it is already dead, its socket says why.
            standing.order(order)
        self._watch(standing.control.fileno(), lambda: self._on_zygote(home))
        self._watch(standing.init, lambda: self._on_nest_gone(home))
        return home

    def _on_zygote(self, home: Home) -> bool:
        """Read the zygote's first word, or its end: it never says anything else."""
        if home.ready:
            self._lose(home, None)
            return True
        fault = nest.first_word(home.nest)
        if fault is not None:
            self._lose(home, fault)
            return True
        home.ready = True
        before = self._homes.get(home.ground)
        if before is not None and before is not home:
            self._others.append(before)
            self._forget(before.nest.control.fileno())
            before.nest.retire()
        if home in self._others:
            self._others.remove(home)
        self._homes[home.ground] = home
        wishes, home.wishes = home.wishes, []
        for wish in wishes:
            try:
                self._start(wish, home)
            except (CrankError, OSError) as refusal:
                _refuse(wish.channel, refusal)
        return True

    def _renew(self, home: Home) -> None:
        """Start the successor of a zygote that has had its number of children; it takes over when it is ready."""
        coming = any(other.ground == home.ground and not other.ready for other in self._others)
        if home.children >= home.replaced_at + self._children_max and not coming:
            # If that fails, it is tried again after as many more.
            home.replaced_at = home.children
            with contextlib.suppress(CrankError, OSError):
                self._others.append(self._raise(home.ground))

    def _lose(self, home: Home, fault: CrankError | None) -> None:
        """Let go of a zygote that died or never came. What it forked goes on; what waits is refused."""
        if self._homes.get(home.ground) is home:
            del self._homes[home.ground]
            self._others.append(home)
        self._forget(home.nest.control.fileno())
        home.nest.retire()
        if fault is not None:
            home.nest.raze()
        for wish in home.wishes:
            _refuse(wish.channel, fault or SandboxError("The zygote died.", code="zygote_lost"))
        home.wishes.clear()

    def _on_nest_gone(self, home: Home) -> bool:
        self._lose(home, layers.missing("interpreter", "the nest of its zygote died"))
        self._forget(home.nest.init)
        home.nest.bury()
        ground.close(home.private.values())
        self._others = [other for other in self._others if other is not home]
        return True

    # --- sessions ---

    def _start(self, wish: Wish, home: Home) -> None:
        """Fork a supervisor, and let the zygote fork what it supervises."""
        plan = wish.plan
        # Whatever this machine refuses on the way (processes, descriptors, memory) is one session's loss.
        with contextlib.ExitStack() as opened, contextlib.ExitStack() as undo:
            identity = self._slots.claim()
            undo.callback(self._slots.release, identity)
            folders = self._open_mounts(plan, opened)
            trees = self._detach(folders, home, identity)
            opened.callback(ground.close, trees)
            group, doors = self._group(plan, identity)
            opened.callback(ground.close, doors)
            undo.callback(self._clear, plan.session)
            lines, theirs = assembly.lay_lines()
            opened.callback(lines.close)
            opened.callback(ground.close, theirs)
            network = home.take_network()
            undo.callback(home.networks.append, network)
            order = assembly.Order(plan, identity, lines, group, self._privileged, self._notify, self._area, self.bare)
            pid, pidfd = self._fork(order, wish)
            undo.pop_all()
            self._sessions[pidfd] = Session(plan.session, pid, identity, home, network)
            self._watch(pidfd, lambda: self._bury(pidfd))
            home.children += 1
            message = {
                "inside": identity.inside,
                "groups": len(doors),
                "mounts": [*(name for name, _ in plan.mounts), *home.private],
                "network": network,
                "limits": asdict(plan.limits),
            }
            with contextlib.suppress(OSError):
                # When the zygote is gone, the supervisor sees the end of its line and says so.
                home.nest.order(message, [*theirs, *doors, *trees])
        wish.channel.close()

    def _open_mounts(self, plan: Plan, opened: contextlib.ExitStack) -> list[int]:
        folders = []
        for name, path in plan.mounts:
            folders.append(self._allowed.open_mount(name, path))
            opened.callback(os.close, folders[-1])
        return folders

    def _fork(self, order: assembly.Order, wish: Wish) -> tuple[int, int]:
        """Fork a supervisor; return its number and a descriptor of it."""
        launcher = os.getpid()
        pid = os.fork()
        if pid == 0:
            post.take(launcher, order, wish.channel, wish.began, self._groups)
        try:
            return pid, os.pidfd_open(pid)
        except OSError:
            # It waits for a cell that nobody was told to make.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise

    def _group(self, plan: Plan, identity: Identity) -> tuple[cgroup.Group | None, list[int]]:
        if self._groups is None:
            return None, []
        owner = identity.uid if identity.privileged else None
        try:
            # One more for the init, which is in the group too.
            group = self._groups.make(
                plan.session,
                memory_bytes=plan.limits.memory_bytes,
                processes=plan.limits.processes + 1,
                owner=owner,
            )
            return group, group.doors()
        except OSError as fault:
            raise layers.missing("cgroup", str(fault)) from fault

    def _bury(self, pidfd: int) -> bool:
        """Reap a supervisor and clear its group; its slot and network are used again only if nothing was left."""
        session = self._sessions.pop(pidfd)
        self._forget(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(session.pid, 0)
        self._clear(session.name)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == post.EXIT_STUCK:
            print("crank launcher: a zygote does not answer and is replaced", file=sys.stderr)
            session.nest.nest.kill_zygote()
            self._lose(session.nest, None)
        if status == 0:
            self._slots.release(session.identity)
            session.nest.networks.append(session.network)
            return True
        with contextlib.suppress(OSError):
            session.nest.nest.order({"burn": session.network})
        if session.identity.privileged:
            print(f"crank launcher: slot {session.identity.uid} is burnt (status {status})", file=sys.stderr)
        return True

    def _clear(self, name: str) -> None:
        if self._groups is not None and not _cleared(self._groups, name):
            self._uncleared.add(name)

    def _end_all(self) -> None:
        """End every session: asked first, so that each cleans up; killed after that."""
        deadline = time.monotonic() + _LAST_WORDS_SEC
        for session in self._sessions.values():
            os.kill(session.pid, signal.SIGTERM)
        for pidfd, session in list(self._sessions.items()):
            waiting = select.poll()
            waiting.register(pidfd, select.POLLIN)
            if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
                os.kill(session.pid, signal.SIGKILL)
            self._bury(pidfd)
        for home in (*self._homes.values(), *self._others):
            home.nest.raze()
            home.nest.bury()
        if self._groups is not None:
            for name in self._uncleared:
                self._groups.clear(name)
            self._groups.close()


def _detached(opened: list[int], home: Home, identity: Identity) -> list[int]:
    """Copy a child's mounts, and the layers that it is shown as its own."""
    trees: list[int] = []
    try:
        trees += folders.detach(opened, home.nest, identity)
        for layer in home.private.values():
            # One by one, so that those before a failure are closed again.
            trees.append(mounts.detach_layer(layer, identity, private=True))
    except OSError as fault:
        ground.close(trees)
        raise layers.missing("mounts", str(fault)) from fault
    return trees


def _cleared(groups: cgroup.Groups, name: str) -> bool:
    try:
        return groups.clear(name, patience_sec=0)
    except OSError:
        # Tried again a little later.
        return False


def _refuse(channel: socket.socket, fault: CrankError | OSError) -> None:
    if isinstance(fault, OSError):
        fault = layers.missing("sandbox", f"this machine has no more to give: {fault}")
    with contextlib.closing(channel), contextlib.suppress(OSError):
        post.refuse(channel, fault)


def main(
    descriptor: int,
    roots: list[str] | None,
    register: str | None,
    children_max: int = CHILDREN_MAX,
    *,
    kind: type[Launcher] = Launcher,
) -> None:
    """Serve the worker at the other end of this descriptor (a Unix socket of type SOCK_SEQPACKET).

    roots, register  where folders may come from, see `crank.sandbox.folders.Allowed`
    children_max     after so many children a zygote is replaced
    """
    # Ctrl-C in the worker's terminal is the worker's to handle; it then closes the link.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = socket.socket(fileno=descriptor)
    link.set_inheritable(False)
    allowed = Allowed(None if roots is None else tuple(os.path.realpath(root) for root in roots), register)
    with contextlib.closing(link):
        kind(link, allowed, children_max=children_max).run()



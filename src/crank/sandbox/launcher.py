"""The launcher: the one part that may hold privilege, and the smallest process that can use it.

The worker, which talks to the network, starts it once. It is single-threaded, takes two kinds of request
from a closed list over a Unix socket, and forks a supervisor for each. Folders come as open descriptors,
so it opens no path for its caller. When the worker goes, it ends every session and itself.

Run as: python -I -S -c "...; main(descriptor)", see `crank.sandbox.link`.
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
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crank.domain.json import dumps, loads_strict
from crank.domain.profile import Limits
from crank.domain.quantity import KIB, MOUNTS_MAX
from crank.errors import CrankError, ProtocolError
from crank.sandbox import assembly, cgroup, kernel, mounts, namespaces, supervisor
from crank.sandbox.bundle import guest_files
from crank.sandbox.namespaces import Identity, Slots
from crank.sandbox.plan import Plan, from_json

REQUEST_BYTES_MAX = 64 * KIB
DESCRIPTORS_MAX = 2 + MOUNTS_MAX

_TITLE = "crank-launcher"
_SUPERVISOR_TITLE = "crank-supervisor"
_LAST_WORDS_SEC = 15.0


@dataclass(frozen=True, slots=True)
class _Session:
    """A running supervisor."""

    name: str
    pid: int
    identity: Identity


class Launcher:
    """Serves one worker until it goes away."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._privileged = namespaces.is_privileged()
        self._slots = Slots(privileged=self._privileged)
        self._groups = cgroup.detect(os.getpid())
        self._sessions: dict[int, _Session] = {}
        self._bundles: dict[str, tuple[Mapping[str, bytes], str]] = {}
        self._rehearsals = itertools.count(1)
        self._area = kernel.argument_area()

    def run(self) -> None:
        """Serve requests until the worker closes its end, then end every session."""
        kernel.overwrite_arguments(self._area, _TITLE)
        swept = self._groups.sweep() if self._groups is not None else []
        greeting = {
            "privileged": self._privileged,
            "cgroup": self._groups.flavour if self._groups is not None else None,
            "swept": swept[:100],
        }
        self._link.send(dumps(greeting).encode())
        # Forked children share these pages; a collection would copy them for nothing.
        gc.freeze()
        waiting = select.poll()
        waiting.register(self._link, select.POLLIN)
        try:
            while True:
                for pidfd in self._sessions:
                    waiting.register(pidfd, select.POLLIN)
                for descriptor, _ in waiting.poll():
                    if descriptor != self._link.fileno():
                        waiting.unregister(descriptor)
                        self._bury(descriptor)
                    elif not self._serve():
                        return
        finally:
            self._end_all()

    def _serve(self) -> bool:
        raw, descriptors, _, _ = socket.recv_fds(
            self._link, REQUEST_BYTES_MAX, DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
        )
        if not raw:
            return False
        try:
            request = loads_strict(raw)
            if not isinstance(request, dict) or not descriptors:
                raise ProtocolError("A request is an object with at least one descriptor.", code="request_shape")
            channel = socket.socket(fileno=os.dup(descriptors[0]))
            with contextlib.closing(channel):
                self._dispatch(request, channel, descriptors[1:])
        except CrankError as fault:
            print(f"crank launcher: request refused: {fault.message}", file=sys.stderr)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _dispatch(self, request: dict[str, Any], channel: socket.socket, folders: list[int]) -> None:
        """Choose from the closed list of requests. A refusal is told to the session's own channel."""
        try:
            kind = request.pop("kind", None)
            if kind == "open":
                plan = from_json(request.pop("plan", {}))
                if request or len(folders) != 1 + len(plan.mounts):
                    raise ProtocolError("A session needs its root and one folder for each mount.", code="request_shape")
                sources = mounts.Sources(folders[0], tuple(zip(plan.mounts, folders[1:], strict=True)))
                self._start(plan, sources, channel, supervisor.serve)
            elif kind == "rehearse" and not request and not folders:
                self._start(_rehearsal(next(self._rehearsals)), mounts.Sources(None, ()), channel, supervisor.rehearse)
            else:
                raise ProtocolError("The request is not one of those agreed.", code="request_kind")
        except CrankError as fault:
            with contextlib.suppress(OSError):
                supervisor.refuse(channel, fault)

    def _start(self, plan: Plan, sources: mounts.Sources, channel: socket.socket, work: supervisor.Work) -> None:
        began = time.monotonic()
        if plan.version not in self._bundles:
            self._bundles[plan.version] = guest_files(plan.version)
        files, start = self._bundles[plan.version]
        if any(session.name == plan.session for session in self._sessions.values()):
            raise ProtocolError("A session of this name is running.", code="session_name")
        identity = self._slots.claim()
        order = assembly.Order(
            plan=plan,
            identity=identity,
            sources=sources,
            groups=self._groups,
            files=files,
            start=start,
            argument_area=self._area,
        )
        launcher = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become_supervisor(launcher, order, channel, work, began)
        self._sessions[os.pidfd_open(pid)] = _Session(plan.session, pid, identity)

    def _bury(self, pidfd: int) -> None:
        """Reap a supervisor; clean up after one that did not end by itself."""
        session = self._sessions.pop(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(session.pid, 0)
        if status != 0 and self._groups is not None:
            self._groups.clear(session.name)
        self._slots.release(session.identity)

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
        if self._groups is not None:
            self._groups.close()


def _rehearsal(number: int) -> Plan:
    return Plan(
        session=f"rehearsal-{number}",
        python="/opt/python/bin/python3.11",
        version="3.11",
        site="/opt/site",
        processes=False,
        preimports=(),
        mounts=(),
        devices=(),
        limits=Limits(),
    )


def _become_supervisor(
    launcher: int, order: assembly.Order, channel: socket.socket, work: supervisor.Work, began: float
) -> None:
    """Run in the forked child. Never returns, and lets nothing pass back into the launcher's code."""
    code = 1
    try:
        woken, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        folders = [] if order.sources.root is None else [order.sources.root]
        folders += [descriptor for _, descriptor in order.sources.mounts]
        kernel.close_all_but([0, 1, 2, channel.fileno(), woken, waker, *folders])
        kernel.overwrite_arguments(order.argument_area, _SUPERVISOR_TITLE)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGTERM)
        # The cell's first process becomes ours when its builder ends.
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        if os.getppid() == launcher:
            work(order, channel, woken, began)
            code = 0
    except BaseException:  # noqa: BLE001 - the border of a forked process: it is logged, then the process ends
        traceback.print_exc()
    finally:
        os._exit(code)


def main(descriptor: int) -> None:
    """Serve the worker at the other end of this descriptor (a Unix socket of type SOCK_SEQPACKET)."""
    # Ctrl-C in the worker's terminal is the worker's to handle; it then closes the link.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = socket.socket(fileno=descriptor)
    link.set_inheritable(False)
    with contextlib.closing(link):
        Launcher(link).run()

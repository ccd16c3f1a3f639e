"""The zygote: a profile's own interpreter with its imports done, which forks a job's process when asked.

Starting Python and importing torch takes seconds; forking a process that has done both takes milliseconds.
A zygote runs no line of any job and reads nothing that a job wrote: its orders come from the launcher alone,
and what it forks shares no descriptor with it. It has one thread, an empty environment and no secret.

Children of one zygote share its hash seed and the layout of its memory, as all forks do; every source of
chance is seeded anew in each, and zygotes are replaced after a number of children.
"""

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from crank.domain.profile import Limits
from crank.sandbox import (
    cell,
    fresh,
    guest,
    guest_proof,
    guest_result,
    guest_torch,
    kernel,
    landlock,
    mounts,
    own_root,
    programs,
)
from crank.sandbox.cell import Cell, Ends
from crank.sandbox.guest_watch import Walls
from crank.sandbox.own_root import Shown
from crank.sandbox.syscalls import native

ORDER_BYTES_MAX = 60 * 1024
DESCRIPTORS_MAX = 100
CONTROL_DESCRIPTOR = 3

# What most jobs import first, beside what the guest needs itself: the time is spent here, once.
_COMMON = (
    *("_strptime", "base64", "collections.abc", "copy", "csv", "dataclasses", "datetime", "decimal", "enum"),
    *("functools", "hashlib", "inspect", "io", "itertools", "json", "linecache", "logging", "math", "operator"),
    *("pathlib", "random", "re", "shutil", "site", "statistics", "string", "struct", "subprocess", "tempfile"),
    *("textwrap", "threading", "time", "traceback", "typing", "unicodedata", "urllib.parse", "uuid", "zipfile"),
)


@dataclass(frozen=True, slots=True)
class Order:
    """What a zygote is told at its start.

    site        folder of the profile's packages
    paths       where else modules are looked for; only an author's own module needs more than one place
    preimports  the profile's own modules to import ahead
    programs    names of the programs that a job may start
    processes   whether a job may fork
    devices     device nodes that a job may drive
    filter      the system call filter of this profile's jobs
    notify      whether that filter asks the supervisor about what it refuses
    """

    site: str
    paths: tuple[str, ...]
    preimports: tuple[str, ...]
    programs: tuple[str, ...]
    processes: bool
    devices: tuple[str, ...]
    filter: bytes
    notify: bool


class Zygote:
    """Serves its launcher until that closes the control socket."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._area = kernel.argument_area()
        self._own_processes = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._networks: dict[int, int] = {}
        self._order = self._receive_order()
        self._programs: tuple[str, ...] = ()
        self._shown: tuple[Shown, ...] = ()

    def _receive(self) -> tuple[dict[str, Any], list[int]]:
        raw, descriptors, _, _ = socket.recv_fds(
            self._control, ORDER_BYTES_MAX, DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
        )
        if not raw:
            self._leave()
        return json.loads(raw), descriptors

    # What depends on whether there are namespaces.

    @contextlib.contextmanager
    def _workbench(self) -> Iterator[None]:
        with mounts.workbench():
            yield
        # Without the bench the cell is as every child finds it.
        try:
            own_root.name_libraries()
            self._shown = mounts.shown()
        except OSError as fault:
            self._fail("mounts", str(fault))

    def _find_programs(self) -> tuple[str, ...]:
        return programs.find(self._order.programs)

    def _leave(self) -> NoReturn:
        os._exit(0)

    def _receive_order(self) -> Order:
        message, _ = self._receive()
        self._message = message
        return Order(
            site=message["site"],
            paths=tuple(message["paths"]),
            preimports=tuple(message["preimports"]),
            programs=tuple(message["programs"]),
            processes=message["processes"],
            devices=tuple(message["devices"]),
            filter=bytes.fromhex(message["filter"]),
            notify=message["notify"],
        )

    def prepare(self) -> None:
        """Import everything, check that this process may be forked, tell the launcher."""
        kernel.overwrite_arguments(self._area, "crank-zygote")
        own = [path for path in sys.path if path != "/.crank"]
        sys.path[:] = dict.fromkeys([*own, self._order.site, *self._order.paths])
        with self._workbench():
            for name in _COMMON:
                self._import(name, "preimports")
            fresh.forget_crank()
            for name in self._order.preimports:
                self._import(name, "module" if self._order.paths else "preimports")
        guest_torch.share_by_value()
        fresh.check_one_thread(self._fail)
        try:
            self._programs = self._find_programs()
        except OSError as fault:
            self._fail("programs", str(fault))
        # Process 1 of a cell, forked from here, is spared every signal from inside that it has no handler for;
        # Python brings one for SIGINT, and what was imported may have brought more.
        cell.default_signals()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        guest.rehearse(guest_result)
        gc.collect()
        kernel.collapse_heap()
        # A collection in a child would otherwise write to every page that it shares with us.
        gc.freeze()
        self._control.send(json.dumps({"ready": {"modules": len(sys.modules)}}).encode())

    def _import(self, name: str, blamed: str) -> None:
        try:
            importlib.import_module(name)
        except BaseException as fault:  # noqa: BLE001 - whatever a package raises, it is the package's fault
            self._fail(blamed, f"import {name}: {type(fault).__name__}: {fault}"[:500])
        if self._order.paths:
            fresh.check_one_thread(self._fail, blamed, f"import {name}")

    def _fail(self, layer: str, cause: str) -> None:
        self._control.send(json.dumps({"failed": {"layer": layer, "cause": cause}}).encode())
        os._exit(1)

    def serve(self) -> None:
        """Fork a child for each order. Never returns: it ends when the launcher closes the socket."""
        while True:
            message, descriptors = self._receive()
            try:
                if "burn" in message:
                    self._burn(message["burn"])
                else:
                    self._spawn(message, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _burn(self, number: int) -> None:
        """Let a network go that something of a job may still be in."""
        network = self._networks.pop(number, None)
        if network is not None:
            os.close(network)

    def _spawn(self, message: dict[str, Any], descriptors: list[int]) -> None:
        link, request, result, stdout, stderr, *others = descriptors
        groups, folders = others[: message["groups"]], others[message["groups"] :]
        child = Cell(
            inside=message["inside"],
            limits=Limits(**message["limits"]),
            groups=tuple(groups),
            folders=dict(zip(message["mounts"], folders, strict=True)),
            shown=self._shown,
            programs=self._programs,
            devices=self._order.devices,
            ends=Ends(request=request, result=result, stdout=stdout, stderr=stderr),
            link=socket.socket(fileno=os.dup(link)),
            argument_area=self._area,
        )
        try:
            self._fork(child, message)
        except OSError as fault:
            cell.say(child.link, failed={"layer": "namespaces", "cause": str(fault)[:500]})
        finally:
            child.link.close()

    def _fork(self, child: Cell, message: dict[str, Any]) -> None:
        self._enter_network(message["network"])
        kernel.unshare(kernel.CLONE_NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                cell.end_after(child.link, lambda: cell.be_init(child, self._run_guest))
        finally:
            # The next child needs a process namespace of its own, and one is made only from our own.
            kernel.enter(self._own_processes, kernel.CLONE_NEWPID)

    def _enter_network(self, number: int) -> None:
        """Go where the child shall be: a network namespace that is empty, and whose last user is dead."""
        if number in self._networks:
            kernel.enter(self._networks[number], kernel.CLONE_NEWNET)
            return
        kernel.unshare(kernel.CLONE_NEWNET)
        self._networks[number] = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def _run_guest(self, child: Cell) -> None:
        fresh.begin(cell.environment(child.limits), threads=cell.threads(child.limits))
        guest.main(
            guest_proof,
            guest_result,
            self._walls(),
            cell.Ceilings(child.limits, counted=bool(child.groups)),
        )

    def _walls(self) -> Walls:
        order = self._order
        return Walls(
            order.filter,
            native().numbers["seccomp"],
            order.notify,
            landlock.abi() > 0,
            order.processes,
            bool(order.programs),
        )


def serve(kind: type[Zygote]) -> None:
    """Be a zygote of this kind. The control socket is descriptor 3."""
    control = socket.socket(fileno=CONTROL_DESCRIPTOR)
    control.set_inheritable(False)
    with contextlib.closing(control):
        zygote = kind(control)
        zygote.prepare()
        zygote.serve()


def main() -> None:
    """Be a zygote that has namespaces."""
    serve(Zygote)

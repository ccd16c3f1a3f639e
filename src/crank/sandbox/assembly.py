"""Raising a cell from outside: fork the builder, answer its questions, wait for the guest's proof.

This runs in the supervisor, outside every namespace of the job. It returns either a cell whose walls
the guest has tried from inside, or a fault that names the first wall that did not stand.
"""

import contextlib
import json
import os
import secrets
import select
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crank.domain.json import loads_strict
from crank.domain.quantity import KIB
from crank.errors import InvalidRequest, ProtocolError
from crank.sandbox import kernel, landlock, layers, mounts, namespaces, seccomp
from crank.sandbox.bundle import order_bytes
from crank.sandbox.cell import LINK_BYTES_MAX, Cell, GuestPipes, build, environment, lift
from crank.sandbox.cgroup import Group, Groups
from crank.sandbox.frames import FrameReader, encode
from crank.sandbox.namespaces import Identity
from crank.sandbox.plan import Plan
from crank.sandbox.syscalls import native

SETUP_SEC = 60.0
REAP_SEC = 10.0
_PROOF_BYTES_MAX = 16 * KIB
_STDERR_SHOWN_BYTES = 2 * KIB
_TOKEN_BYTES = 16


@dataclass(frozen=True, slots=True)
class Order:
    """What the launcher hands to the supervisor that it forked.

    files, start   what lies in /.crank, and which of it the interpreter is given
    argument_area  where this process's title is
    """

    plan: Plan
    identity: Identity
    sources: mounts.Sources
    groups: Groups | None
    files: Mapping[str, bytes]
    start: str
    argument_area: tuple[int, int]


@dataclass(slots=True)
class Standing:
    """A cell that stands: its first process, our ends of its pipes, and doors to its private folders.

    folders  descriptors of /scratch, /out, /tmp, /dev/shm and /proc, in this order
    """

    link: socket.socket
    request: int
    result: int
    stdout: int
    stderr: int
    group: Group | None
    token: bytes
    builder_pid: int
    init: int = -1
    init_pid: int = 0
    folders: tuple[int, ...] = ()
    proof: dict[str, Any] = field(default_factory=dict)


def assemble(order: Order) -> Standing:
    """Raise the cell and return it proven. Raises SandboxError, with nothing left behind."""
    standing = _fork_builder(order, _group(order))
    try:
        _shake_hands(order, standing)
        _prove(order, standing)
    except BaseException:
        take_down(standing)
        raise
    return standing


def rehearse(order: Order) -> None:
    """Raise every wall that needs no profile and take them down again. Raises SandboxError."""
    standing = _fork_builder(order, _group(order))
    try:
        _shake_hands(order, standing)
    finally:
        take_down(standing)


def _group(order: Order) -> Group | None:
    if order.groups is None:
        return None
    limits = order.plan.limits
    try:
        # One more for the init, which is in the group too.
        return order.groups.make(order.plan.session, memory_bytes=limits.memory_bytes, processes=limits.processes + 1)
    except OSError as fault:
        raise layers.missing("cgroup", str(fault)) from fault


def _fork_builder(order: Order, group: Group | None) -> Standing:
    request, result, stdout, stderr = (os.pipe2(os.O_CLOEXEC) for _ in range(4))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pipes = GuestPipes(request=request[0], result=result[1], stdout=stdout[1], stderr=stderr[1])
    link = socket.socket(fileno=lift(theirs.fileno()))
    theirs.close()
    cell = Cell(
        plan=order.plan,
        identity=order.identity,
        sources=order.sources,
        group=group,
        pipes=pipes,
        link=link,
        files=order.files,
        start=order.start,
        argument_area=order.argument_area,
    )
    builder_pid = os.fork()
    if builder_pid == 0:
        build(cell)
    link.close()
    for descriptor in (pipes.request, pipes.result, pipes.stdout, pipes.stderr):
        os.close(descriptor)
    return Standing(
        link=ours,
        request=request[1],
        result=result[0],
        stdout=stdout[0],
        stderr=stderr[0],
        group=group,
        token=secrets.token_bytes(_TOKEN_BYTES),
        builder_pid=builder_pid,
    )


def _receive(standing: Standing) -> tuple[dict[str, Any], list[int]]:
    raw, descriptors, _, _ = socket.recv_fds(standing.link, LINK_BYTES_MAX, 8, socket.MSG_CMSG_CLOEXEC)
    message = json.loads(raw) if raw else {"failed": {"layer": "sandbox", "cause": "a builder process died"}}
    if "failed" in message:
        raise layers.missing(message["failed"]["layer"], message["failed"]["cause"])
    return message, descriptors


def _shake_hands(order: Order, standing: Standing) -> None:
    """Answer the builder and the init until the file system is built and the guest started."""
    link = standing.link
    link.settimeout(SETUP_SEC)
    while True:
        try:
            message, descriptors = _receive(standing)
        except TimeoutError as fault:
            raise layers.missing("sandbox", f"it was not built within {SETUP_SEC:g} s") from fault
        if "init" in message:
            standing.init_pid = message["init"]
            standing.init = os.pidfd_open(standing.init_pid)
            os.waitpid(standing.builder_pid, 0)
            link.send(b"adopted")
        elif "map" in message:
            # Rootless, the builder asks before there is an init; with privilege, the init asks.
            _map_ids(order.identity, standing.init_pid or standing.builder_pid)
            link.send(b"mapped")
        elif "built" in message:
            standing.folders = tuple(descriptors)
            _spare_from_oom(standing.init_pid, order.identity)
            link.send(b"start")
            return


def _map_ids(identity: Identity, pid: int) -> None:
    try:
        namespaces.write_maps(pid, identity)
    except OSError as fault:
        raise layers.missing("user_namespace", f"ids cannot be mapped: {fault}") from fault


def _spare_from_oom(pid: int, identity: Identity) -> None:
    """Let the kernel choose the job, not its init, when memory runs out. Needs privilege."""
    if identity.privileged:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w", encoding="ascii") as score:
            score.write("0")


def _prove(order: Order, standing: Standing) -> None:
    """Give the guest its filter, and read from it which walls it found standing."""
    plan = order.plan
    granted = seccomp.Permissions(
        processes=plan.processes, devices=bool(plan.devices), memory_files=standing.group is not None
    )
    setup = {
        "token": standing.token.hex(),
        "site": plan.site,
        "preimports": list(plan.preimports),
        "processes": plan.processes,
        "result_bytes": plan.limits.result_bytes,
        "environment": sorted(environment(plan.limits)),
        "landlock": landlock.abi() > 0,
    }
    with contextlib.suppress(BrokenPipeError):
        os.write(standing.request, encode("f", seccomp.program(native(), granted)) + encode("s", order_bytes(setup)))
    payload = _read_proof(standing)
    try:
        proof = loads_strict(payload)
    except InvalidRequest as fault:
        raise layers.missing("sandbox", "the guest's proof is not JSON") from fault
    for layer, cause in proof["missing"].items():
        raise layers.missing(layer, cause)
    standing.proof = proof["seen"]


def _read_proof(standing: Standing) -> bytes:
    reader = FrameReader({"p": _PROOF_BYTES_MAX}, prefix=standing.token)
    waiting = select.poll()
    waiting.register(standing.result, select.POLLIN)
    waiting.register(standing.link, select.POLLIN)
    deadline = time.monotonic() + SETUP_SEC
    while (left := deadline - time.monotonic()) > 0:
        for descriptor, _ in waiting.poll(left * 1000):
            if descriptor == standing.link.fileno():
                raise _died_early(standing)
            chunk = os.read(standing.result, 64 * KIB)
            if not chunk:
                waiting.unregister(standing.result)
                continue
            try:
                frames = reader.feed(chunk)
            except ProtocolError as fault:
                raise layers.missing("sandbox", f"the guest's proof is broken: {fault.message}") from fault
            if frames:
                return frames[0].payload
    raise layers.missing("interpreter", f"it was not ready within {SETUP_SEC:g} s")


def _died_early(standing: Standing) -> BaseException:
    message, _ = _receive(standing)
    if standing.group is not None and standing.group.read().memory_kills:
        return layers.missing("memory", "the interpreter and its modules need more than the limit")
    os.set_blocking(standing.stderr, False)
    shown = b""
    with contextlib.suppress(BlockingIOError):
        shown = os.read(standing.stderr, _STDERR_SHOWN_BYTES)
    cause = shown.decode("utf-8", "replace").strip() or f"it ended with wait status {message.get('guest')}"
    return layers.missing("interpreter", cause)


def take_down(standing: Standing) -> bool:
    """Kill the cell, reap it, remove its group, close our ends; tell whether nothing is left."""
    clean = True
    if standing.init >= 0:
        kill(standing)
        clean = reap(standing)
    elif standing.group is not None:
        standing.group.kill()
    standing.link.close()
    for descriptor in (standing.request, standing.result, standing.stdout, standing.stderr, *standing.folders):
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _reap_strays()
    if standing.group is not None:
        if standing.group.members():
            standing.group.kill()
        clean = standing.group.remove() and clean
    return clean


def kill(standing: Standing) -> None:
    """Kill the init: the kernel kills everything in its process namespace with it, whatever it ignores."""
    if standing.init >= 0:
        with contextlib.suppress(ProcessLookupError):
            kernel.send_signal(standing.init, signal.SIGKILL)


def reap(standing: Standing) -> bool:
    """Wait until the init is gone. The kernel lets it go only when everything in its namespace is."""
    if standing.init < 0:
        return True
    waiting = select.poll()
    waiting.register(standing.init, select.POLLIN)
    if not waiting.poll(REAP_SEC * 1000):
        return False
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, standing.init, os.WEXITED)
    os.close(standing.init)
    standing.init = -1
    return True


def _reap_strays() -> None:
    """Reap a builder that ended before it could tell; it is the only other child there can be."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass

"""Meeting a cell: the supervisor's lines to it, its proof, and how it is taken down.

This runs in the supervisor, outside every namespace of the job. It returns either a cell whose walls
the guest has tried from inside, or a fault that names the first wall that did not stand.
"""

import contextlib
import os
import secrets
import select
import signal
import socket
import time
from dataclasses import dataclass, field
from typing import Any

from crank.domain.json import loads_strict
from crank.domain.quantity import KIB
from crank.errors import InvalidRequest, ProtocolError, SandboxError
from crank.sandbox import kernel, layers, yard
from crank.sandbox.bare_watch import BareTree
from crank.sandbox.bundle import order_bytes
from crank.sandbox.cell import LINK_BYTES_MAX, environment
from crank.sandbox.cgroup import Group
from crank.sandbox.frames import FrameReader, encode
from crank.sandbox.namespaces import Identity
from crank.sandbox.notify import Refusals
from crank.sandbox.plan import Plan
from crank.sandbox.watch import SpaceTree

# A fork and its walls take milliseconds; on a machine that is drowning, a hundred times that.
SETUP_SEC = 10.0
_PROOF_SEC = 30.0
# The zygote did not do what it was ordered to, so nobody should wait for it again.
ZYGOTE_STUCK = "zygote_stuck"
REAP_SEC = 10.0
_PROOF_BYTES_MAX = 16 * KIB
_STDERR_SHOWN_BYTES = 2 * KIB
_TOKEN_BYTES = 16
_DESCRIPTORS_MAX = 8


@dataclass(frozen=True, slots=True)
class Lines:
    """Our ends of the lines to a cell: the init's link, the guest's orders and word, and its output."""

    link: socket.socket
    request: socket.socket
    result: int
    stdout: int
    stderr: int

    @property
    def descriptors(self) -> list[int]:
        """Return every end as a number."""
        return [self.link.fileno(), self.request.fileno(), self.result, self.stdout, self.stderr]

    def close(self) -> None:
        """Close every end."""
        self.link.close()
        self.request.close()
        for descriptor in (self.result, self.stdout, self.stderr):
            os.close(descriptor)


def lay_lines() -> tuple[Lines, list[int]]:
    """Make the lines; return our ends and theirs, in the order that a zygote expects."""
    link, their_link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    request, their_request = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    pipes: list[tuple[int, int]] = []
    try:
        while len(pipes) < 3:
            pipes.append(os.pipe2(os.O_CLOEXEC))
    except OSError:
        for end in (end for pipe in pipes for end in pipe):
            os.close(end)
        raise
    result, stdout, stderr = pipes
    lines = Lines(link, request, result[0], stdout[0], stderr[0])
    return lines, [their_link.detach(), their_request.detach(), result[1], stdout[1], stderr[1]]


@dataclass(frozen=True, slots=True)
class Order:
    """What the launcher hands to the supervisor that it forked.

    notify         the guest's filter asks us about what it refuses
    argument_area  where this process's title is
    bare           the cell stands without namespaces
    """

    plan: Plan
    identity: Identity
    lines: Lines
    group: Group | None
    privileged: bool
    notify: bool
    argument_area: tuple[int, int]
    bare: bool = False


@dataclass(slots=True)
class Standing:
    """A cell that stands: its first process, the guest, and doors to its private folders.

    init, guest  pidfds
    folders      descriptors of /scratch, /out, /tmp, /dev/shm, in this order, and of a /proc of its own
    tree         its processes and what its folders hold
    """

    lines: Lines
    group: Group | None
    token: bytes
    init: int = -1
    guest: int = -1
    folders: tuple[int, ...] = ()
    tree: SpaceTree | BareTree = field(default_factory=lambda: SpaceTree(-1, ()))
    refusals: Refusals | None = None
    proof: dict[str, Any] = field(default_factory=dict)


def meet(order: Order) -> Standing:
    """Wait for the cell and return it proven. Raises SandboxError, with nothing left behind."""
    standing = Standing(order.lines, order.group, secrets.token_bytes(_TOKEN_BYTES))
    try:
        _shake_hands(standing)
        _prove(order, standing)
    except BaseException:
        take_down(standing)
        raise
    return standing


def _receive(standing: Standing) -> tuple[dict[str, Any], list[int]]:
    raw, descriptors, _, _ = socket.recv_fds(
        standing.lines.link, LINK_BYTES_MAX, _DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
    )
    if not raw:
        raise layers.missing("sandbox", "its first process died without a word")
    message = loads_strict(raw)
    if "failed" in message:
        raise layers.missing(message["failed"]["layer"], message["failed"]["cause"])
    return message, descriptors


def _shake_hands(standing: Standing) -> None:
    standing.lines.link.settimeout(SETUP_SEC)
    try:
        message, descriptors = _receive(standing)
    except TimeoutError as fault:
        raise SandboxError(
            f"The sandbox was not made within {SETUP_SEC:g} s.",
            code=ZYGOTE_STUCK,
            fix="Try again; a fresh zygote takes over.",
        ) from fault
    if "built" not in message:
        raise _died_early(standing, message)
    standing.init, standing.guest, *folders = descriptors
    standing.folders = tuple(folders)
    if "yard" in message:
        standing.tree = BareTree(message["init"], standing.folders, message["yard"])
    else:
        standing.tree = SpaceTree(folders[-1], tuple(folders[:-1]))


def _prove(order: Order, standing: Standing) -> None:
    """Give the guest its secret, and read from it which walls it found standing."""
    setup: dict[str, object] = {
        "token": standing.token.hex(),
        "environment": [*environment(order.plan.limits), *(yard.VARIABLES if order.bare else ())],
    }
    with contextlib.suppress(OSError):
        standing.lines.request.sendall(encode("s", order_bytes(setup)))
    if order.notify:
        standing.refusals = _listen(standing)
    payload = _read_proof(standing)
    try:
        proof = loads_strict(payload)
    except InvalidRequest as fault:
        raise layers.missing("sandbox", "the guest's proof is not JSON") from fault
    for layer, cause in proof["missing"].items():
        raise layers.missing(layer, cause)
    standing.proof = proof["seen"]


def _listen(standing: Standing) -> Refusals | None:
    """Take the listener of the guest's filter; None when the guest ended before it had one."""
    request = standing.lines.request
    request.settimeout(SETUP_SEC)
    try:
        _, descriptors, _, _ = socket.recv_fds(request, 1, 1, socket.MSG_CMSG_CLOEXEC)
    except TimeoutError as fault:
        raise layers.missing("seccomp", "the filter was not installed in time") from fault
    except OSError:
        # It ended; its link or its proof says why.
        return None
    return Refusals(descriptors[0]) if descriptors else None


def _read_proof(standing: Standing) -> bytes:
    reader = FrameReader({"p": _PROOF_BYTES_MAX}, prefix=standing.token)
    lines = standing.lines
    waiting = select.poll()
    waiting.register(lines.result, select.POLLIN)
    waiting.register(lines.link, select.POLLIN)
    if standing.refusals is not None:
        waiting.register(standing.refusals.listener, select.POLLIN)
    deadline = time.monotonic() + _PROOF_SEC
    while (left := deadline - time.monotonic()) > 0:
        for descriptor, _ in waiting.poll(left * 1000):
            if standing.refusals is not None and descriptor == standing.refusals.listener:
                # The guest tries its walls.
                standing.refusals.answer()
                continue
            if descriptor == lines.link.fileno():
                message, _ = _receive(standing)
                raise _died_early(standing, message)
            chunk = os.read(lines.result, 64 * KIB)
            if not chunk:
                waiting.unregister(lines.result)
                continue
            try:
                frames = reader.feed(chunk)
            except ProtocolError as fault:
                raise layers.missing("sandbox", f"the guest's proof is broken: {fault.message}") from fault
            if frames:
                return frames[0].payload
    raise layers.missing("interpreter", f"it was not ready within {_PROOF_SEC:g} s")


def _died_early(standing: Standing, message: dict[str, Any]) -> SandboxError:
    if standing.group is not None and standing.group.read().memory_kills:
        return layers.missing("memory", "the interpreter and its modules need more than the limit")
    os.set_blocking(standing.lines.stderr, False)
    shown = b""
    with contextlib.suppress(BlockingIOError):
        shown = os.read(standing.lines.stderr, _STDERR_SHOWN_BYTES)
    cause = shown.decode("utf-8", "replace").strip() or f"it ended with wait status {message.get('guest')}"
    return layers.missing("interpreter", cause)


def take_down(standing: Standing) -> bool:
    """Kill the cell, wait until it is gone, close our ends; tell whether nothing of it is left."""
    kill(standing)
    gone = wait_gone(standing)
    standing.lines.close()
    if standing.refusals is not None:
        standing.refusals.close()
    for descriptor in (standing.init, standing.guest, *standing.folders):
        if descriptor >= 0:
            os.close(descriptor)
    clear(standing)
    return gone


def clear(standing: Standing) -> None:
    """Remove from disk what a cell without mounts left there."""
    if isinstance(standing.tree, BareTree):
        standing.tree.clear()


def kill(standing: Standing) -> None:
    """Kill the init: the kernel kills everything in its process namespace with it, whatever it ignores.

    Without such a namespace the init kills, and goes last.
    """
    if isinstance(standing.tree, BareTree):
        standing.tree.end(standing.lines.link)
    elif standing.init >= 0:
        with contextlib.suppress(ProcessLookupError):
            kernel.send_signal(standing.init, signal.SIGKILL)


def wait_gone(standing: Standing) -> bool:
    """Wait until the init is gone, which the kernel lets happen only when everything in its namespace is."""
    if standing.init < 0:
        return True
    waiting = select.poll()
    waiting.register(standing.init, select.POLLIN)
    if not waiting.poll(REAP_SEC * 1000):
        return False
    group = standing.group
    return group is None or (not group.members() and group.is_bare())

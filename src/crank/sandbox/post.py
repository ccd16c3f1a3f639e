"""What the process of a supervisor does from first to last, and what the launcher says in its place."""

import contextlib
import gc
import os
import signal
import socket
import time
import traceback
from typing import Any

from crank.domain.json import JsonObject, dumps
from crank.errors import CrankError, SandboxError
from crank.sandbox import assembly, cgroup, kernel
from crank.sandbox.assembly import Order, Standing
from crank.sandbox.frames import encode
from crank.sandbox.namespaces import Identity
from crank.sandbox.supervisor import Supervisor

# How a supervisor ends: nothing left, something left, and a zygote that does not answer.
EXIT_CLEAN, EXIT_DIRTY, EXIT_STUCK = 0, 2, 4
_TITLE = "crank-supervisor"
_NICE = -5


def ready_frame(facts: JsonObject) -> bytes:
    """Return the frame that says that a session stands."""
    return encode("R", dumps(facts).encode())


def refuse(channel: socket.socket, fault: CrankError) -> None:
    """Tell the runner why there is no session. Raises OSError when the runner is gone."""
    refusal = {"code": fault.error_code, "message": fault.message, "fix": fault.fix, "detail": fault.detail}
    channel.sendall(encode("F", dumps(refusal).encode()))


def _used_bytes(standing: Standing) -> int:
    """Return what a cell takes before its job begins, for whoever decides how many to keep ready."""
    if standing.group is not None:
        return standing.group.used_bytes()
    return standing.tree.read(tasks_max=1_000).memory_bytes


def serve(order: Order, channel: socket.socket, wake: int, *, began: float, flavour: str | None) -> int:
    """Be the supervisor: meet the cell, tell the runner, serve the session. Return the exit code to end with."""
    try:
        standing = assembly.meet(order)
    except SandboxError as fault:
        with contextlib.suppress(OSError):
            refuse(channel, fault)
        return EXIT_STUCK if fault.error_code == assembly.ZYGOTE_STUCK else EXIT_CLEAN
    facts: dict[str, Any] = {
        "privileged": order.privileged,
        "cgroup": flavour,
        "proof": standing.proof,
        "setup_sec": time.monotonic() - began,
        "memory_bytes": _used_bytes(standing),
    }
    supervisor = Supervisor(order, channel, wake, standing)
    supervisor.rehearse()
    try:
        channel.sendall(ready_frame(facts))
    except OSError:
        return EXIT_CLEAN if assembly.take_down(standing) else EXIT_DIRTY
    supervisor.run()
    assembly.clear(standing)
    return EXIT_CLEAN if supervisor.clean else EXIT_DIRTY


def take(
    launcher: int, order: assembly.Order, channel: socket.socket, began: float, groups: cgroup.Groups | None
) -> None:
    """Be the supervisor, in the process that the launcher forked. Never returns: nothing passes back into its code."""
    code = 1
    try:
        woken, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        kernel.close_all_but([0, 1, 2, channel.fileno(), woken, waker, *order.lines.descriptors])
        kernel.overwrite_arguments(order.argument_area, _TITLE)
        gc.disable()
        with contextlib.suppress(PermissionError):
            # Its clocks go before whatever the job does. An ordinary user may not ask for this.
            os.nice(_NICE)
        # Where the kernel shares processors out by session (sched(7), autogroup), a bomb whose members all leave theirs
        # would leave what all supervisors and the launcher have in common next to nothing.
        os.setsid()
        with contextlib.suppress(OSError):
            kernel.ask_for_short_turns()
        _drop(order.identity)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == launcher:
            code = serve(
                order, channel, woken, began=began, flavour=groups.flavour if groups is not None else None
            )
    except BaseException:  # noqa: BLE001 - the border of a forked process: it is logged, then the process ends
        traceback.print_exc()
    finally:
        os._exit(code)


def _drop(identity: Identity) -> None:
    """Become the job's own id, which owns the job's files and may end its processes, and no more than that."""
    if identity.privileged:
        os.setgroups([])
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)

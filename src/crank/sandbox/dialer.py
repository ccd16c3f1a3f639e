"""The dialer: a small process that connects to the controller, and to nothing else, for a worker without network.

Landlock knows ports, not addresses: a worker that may connect to its controller's port could reach that port
of every host. So the worker gets a network namespace that is empty, and each connection is handed to it by this
process, which has no other input than "one more", no file of its own, and the same walls around it.
"""

import contextlib
import os
import signal
import socket
import threading
import traceback
from pathlib import Path

from crank.errors import CrankError, SandboxError, Unavailable
from crank.sandbox import confine, confine_proof, kernel
from crank.sandbox.confine import Abilities, View

CONNECT_SEC = 10.0
# Longer than the dialer waits for the controller.
_ANSWER_SEC = CONNECT_SEC + 5.0
_ONE_MORE, _HERE = b"c", b"h"
_REASON_BYTES_MAX = 1024


class Dialer:
    """The worker's end. It is started before the worker shuts itself in, and ends with it."""

    def __init__(self, pid: int, end: socket.socket) -> None:
        self.pid = pid
        self._end = end
        self._gate = threading.Lock()
        self._ended = False

    @property
    def alive(self) -> bool:
        """Tell whether the process still runs."""
        if not self._ended:
            with contextlib.suppress(ChildProcessError):
                self._ended = os.waitpid(self.pid, os.WNOHANG)[0] == self.pid
        return not self._ended

    def dial(self) -> socket.socket:
        """Return a new TCP connection to the controller. Blocking; safe in threads. Raises Unavailable."""
        with self._gate:
            try:
                self._end.send(_ONE_MORE)
                raw, descriptors, _, _ = socket.recv_fds(self._end, _REASON_BYTES_MAX, 1, socket.MSG_CMSG_CLOEXEC)
            except OSError as fault:
                raise Unavailable("The process that connects to the controller is gone.", detail=str(fault)) from fault
        if len(descriptors) != 1:
            raise Unavailable("The controller does not answer.", detail=raw.decode("utf-8", "replace"))
        return socket.socket(fileno=descriptors[0])

    def close(self) -> None:
        """Let the process end. Safe to call twice."""
        self._end.close()
        if self.alive:
            os.waitpid(self.pid, 0)
            self._ended = True


def start_dialer(host: str, port: int, code: tuple[Path, ...], able: Abilities) -> Dialer:
    """Start the process and wait until its walls stand. Call it in a single thread. Raises SandboxError.

    host, port  where the controller listens for workers
    code        the interpreter's and the package's folders: all that it may read
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    worker = os.getpid()
    pid = os.fork()
    if pid == 0:
        _be_dialer(worker, theirs, (host, port), View(readable=code, ports=(port,), network=True), able)
    theirs.close()
    ours.settimeout(_ANSWER_SEC)
    dialer = Dialer(pid, ours)
    try:
        word = ours.recv(_REASON_BYTES_MAX)
    except OSError as fault:
        word = str(fault).encode()
    if word != _HERE:
        dialer.close()
        raise SandboxError(
            f"The process that connects to the controller did not start: {word.decode('utf-8', 'replace') or 'it ended'}",
            code="dialer_lost",
        )
    return dialer


def _be_dialer(worker: int, end: socket.socket, address: tuple[str, int], view: View, able: Abilities) -> None:
    """Run in the forked child. Never returns."""
    try:
        kernel.close_all_but([0, 1, 2, end.fileno()])
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Those are for the worker, which may need connections to its last word.
            signal.signal(number, signal.SIG_IGN)
        with confine_proof.witnesses(()) as seen:
            confine.confine(view, able)
            confine_proof.prove(view, able, seen)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == worker:
            end.send(_HERE)
            _serve(end, address)
    except CrankError as fault:
        end.send(fault.message.encode()[:_REASON_BYTES_MAX])
    except BaseException:  # noqa: BLE001 - the border of a forked process: it is logged, then the process ends
        traceback.print_exc()
    finally:
        os._exit(0)


def _serve(end: socket.socket, address: tuple[str, int]) -> None:
    while end.recv(len(_ONE_MORE)):
        try:
            with socket.create_connection(address, timeout=CONNECT_SEC) as connection:
                connection.settimeout(None)
                socket.send_fds(end, [_HERE], [connection.fileno()])
        except OSError as fault:
            end.send((str(fault) or type(fault).__name__).encode()[:_REASON_BYTES_MAX])

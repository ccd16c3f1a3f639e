"""Who is at the other end of a local socket: told by the kernel, looked up while the process cannot be replaced.

What a process says of itself counts for nothing here. The kernel noted account and process when it connected
(SO_PEERCRED); it holds on to that very process for us (SO_PEERPIDFD), so that another one that was given the same number
later is never taken for it; and it marks every octet with the process that sent it (SO_PASSCRED), so that a
connection cannot be handed on to somebody who asks in its maker's name.
"""

import contextlib
import errno
import hashlib
import os
import select
import socket
import stat
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crank.domain.rules.workload import unit_of
from crank.domain.workload import Selector, SelectorKind, is_plain_path
from crank.errors import ConfigurationError, NotAllowed, Unavailable
from crank.ports import Caller, Clock

# Linux 6.5, asm-generic/socket.h; before it, nothing but the account can be told for certain.
_SO_PEERPIDFD = 77
_CREDENTIALS = struct.Struct("=3i")
# Room for one credential, and for nothing else that a stranger might send along.
_ANCILLARY_BYTES = socket.CMSG_SPACE(_CREDENTIALS.size)
# sun_path, with its closing zero.
SOCKET_PATH_BYTES_MAX = 107
_BACKLOG = 512
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_PROGRAM_BYTES_MAX = 1 << 30
_DIGESTS_MAX = 256
_PIECE_BYTES = 1 << 20
# A file that changed a moment ago may change again without its times telling.
_SETTLED_US = 2_000_000
_PROC_BYTES_MAX = 64 * 1024


class CallerSocket(socket.socket):
    """An accepted connection that ends when any other process than its maker speaks through it."""

    maker_pid: int = 0

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Receive, and compare the sender that the kernel noted. Raises ConnectionAbortedError for another process."""
        octets, ancillary, _, _ = self.recvmsg(size, _ANCILLARY_BYTES, flags)
        sender = None
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                sender = _CREDENTIALS.unpack(content[: _CREDENTIALS.size])[0]
            elif level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                _close_all(content)
        if octets and sender != self.maker_pid:
            raise ConnectionAbortedError(errno.ECONNABORTED, "another process than its maker uses the connection")
        return octets


def _close_all(content: bytes) -> None:
    for (descriptor,) in struct.iter_unpack("=i", content[: len(content) // 4 * 4]):
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _Program:
    """Which program a process runs: the file itself, however it is called."""

    device: int
    inode: int


class KernelWitness:
    """The CallerWitness port on Linux."""

    def __init__(self, clock: Clock) -> None:
        self._digests = _Digests(clock)
        self._nobody = _overflow_ids()
        self._own_space = os.readlink("/proc/self/ns/user")

    def listen(self, path: str, *, shared: bool) -> socket.socket:
        """Make the socket in place of one that an earlier run left. Raises ConfigurationError."""
        try:
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISSOCK(os.lstat(path).st_mode):
                    raise OSError(errno.EEXIST, "a file is there that is no socket")
                if _answers(path):
                    raise OSError(errno.EADDRINUSE, "another program listens there")
                os.unlink(path)
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                # Before anybody can connect: accepted connections inherit it.
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                _bind(listening, path, mode=0o666 if shared else 0o600)
                listening.listen(_BACKLOG)
            except BaseException:
                listening.close()
                raise
        except OSError as fault:
            raise ConfigurationError(
                f"The socket {path} cannot be made: {fault.strerror or fault}.",
                code="spiffe_socket_failed",
                field="spiffe_socket",
                fix=f"Set CRANK_SPIFFE_SOCKET to a path of at most {SOCKET_PATH_BYTES_MAX} bytes in a folder of this account.",
            ) from fault
        return listening

    def receive(self, connection: socket.socket) -> tuple[socket.socket, Caller]:
        """Return an accepted connection, tied to the process that made it, and that process. Blocking.

        Raises NotAllowed (`caller_unknown`); the connection is closed then.
        """
        tied = CallerSocket(fileno=connection.detach())
        try:
            pid, uid, gid = _CREDENTIALS.unpack(tied.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
            tied.maker_pid = pid
            tied.setblocking(False)
            caller = _KernelCaller(tied, (pid, uid, gid), self._digests, self._nobody, self._own_space)
            caller.note_program()
        except (OSError, struct.error) as fault:
            tied.close()
            raise NotAllowed("The kernel does not tell who connected.", code="caller_unknown") from fault
        return tied, caller


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as trial:
        try:
            trial.connect(path)
        except OSError:
            return False
    return True


def _bind(listening: socket.socket, path: str, *, mode: int) -> None:
    # Never open to others, not even for a moment.
    before = os.umask(0o177)
    try:
        listening.bind(path)
    finally:
        os.umask(before)
    os.chmod(path, mode)


class _KernelCaller:
    """The Caller port: one process, by what the kernel holds about it."""

    def __init__(
        self,
        tied: socket.socket,
        noted: tuple[int, int, int],
        digests: "_Digests",
        nobody: tuple[int, int],
        own_space: str,
    ) -> None:
        self._tied = tied
        self._pid, self._uid, self._gid = noted
        self._digests = digests
        self._nobody = nobody
        self._own_space = own_space
        self._program: _Program | None = None

    @property
    def uid(self) -> int:
        """Return the account that connected."""
        return self._uid

    def note_program(self) -> None:
        """Remember which program it was that connected. Raises OSError where there is no such process any more."""
        with self._held() as folder:
            if folder is not None:
                self._program = _program(folder)

    def marks(self, *, digest: bool) -> frozenset[Selector]:
        """Return what is true of the process now. Blocking. Raises NotAllowed (`caller_changed`), Unavailable (`machine_short`)."""
        found = set()
        if self._uid != self._nobody[0]:
            # The number that stands for every account which has none here stands for nobody.
            found.add(Selector(SelectorKind.UID, str(self._uid)))
        if self._gid != self._nobody[1]:
            found.add(Selector(SelectorKind.GID, str(self._gid)))
        try:
            with self._held() as folder:
                if folder is not None:
                    found |= self._look(folder, digest=digest)
        except OSError as fault:
            # That we are short of something says nothing of the caller.
            raise (_short() if fault.errno in _SHORT else _changed()) from fault
        return frozenset(found)

    def _look(self, folder: str, *, digest: bool) -> set[Selector]:
        program = _program(folder)
        if program != self._program:
            raise _changed()
        if program is None:
            if self._uid == os.geteuid():
                # It is of our own account and yet hides, as what runs in a sandbox does.
                raise _changed()
            return set()
        if os.readlink(f"{folder}/ns/user") != self._own_space:
            # What its account numbers and its paths mean is not for us to say; a job's sandbox is such a place.
            raise _changed()
        found = _places(folder)
        path = _path_of(folder, program)
        if path is not None:
            found.add(Selector(SelectorKind.PATH, path))
        if digest and (value := self._digests.of(f"{folder}/exe")) is not None:
            found.add(Selector(SelectorKind.SHA256, value))
        return found

    @contextlib.contextmanager
    def _held(self) -> Iterator[str | None]:
        """Give the process's folder below /proc while it certainly is the caller's; None where that is not to be had.

        Raises OSError (ESRCH) when the process had ended before the block did: what was read may be another's.
        """
        try:
            descriptor = struct.unpack("=i", self._tied.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4))[0]
        except OSError as fault:
            if fault.errno != errno.ENOPROTOOPT:
                raise
            yield None
            return
        try:
            _still_there(descriptor)
            yield f"/proc/{self._pid}" if self._pid > 0 else None
            _still_there(descriptor)
        finally:
            os.close(descriptor)


def _still_there(descriptor: int) -> None:
    """Raise OSError when the process behind a pidfd has ended: its number may be another's by now."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    if waiting.poll(0):
        raise ProcessLookupError(errno.ESRCH, "the process has ended")


def _short() -> Unavailable:
    return Unavailable(
        "The node is short of descriptors or memory, and cannot look at the process.",
        code="machine_short",
        fix="Try again; if it lasts, give the node more open files (LimitNOFILE= of its unit, or 'ulimit -n').",
    )


def _changed() -> NotAllowed:
    return NotAllowed("This process is not the one that connected, or cannot be looked at.", code="caller_changed")


def _program(folder: str) -> _Program | None:
    """Return the program of a process; None where this account may not look."""
    try:
        found = os.stat(f"{folder}/exe")
    except PermissionError:
        return None
    return _Program(found.st_dev, found.st_ino)


def _path_of(folder: str, program: _Program) -> str | None:
    """Return the path of a program, where that path leads to it in our own view: another's view may be of its making."""
    path = os.readlink(f"{folder}/exe")
    try:
        here = os.stat(path)
    except OSError:
        return None
    same = _Program(here.st_dev, here.st_ino) == program
    return path if same and is_plain_path(path) else None


def _places(folder: str) -> set[Selector]:
    found = set()
    with open(f"{folder}/cgroup", encoding="utf-8", errors="replace") as source:
        lines = source.read(_PROC_BYTES_MAX).splitlines()
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        if not is_plain_path(place):
            continue
        found.add(Selector(SelectorKind.CGROUP, place))
        # Where systemd keeps its units: the one hierarchy of version 2, or its own of version 1.
        unit = unit_of(place) if controllers in ("", "name=systemd") else None
        if unit is not None:
            found.add(Selector(SelectorKind.UNIT, unit))
    return found


def _overflow_ids() -> tuple[int, int]:
    texts = [Path(f"/proc/sys/kernel/overflow{kind}").read_text("ascii") for kind in ("uid", "gid")]
    return int(texts[0]), int(texts[1])


class _Digests:
    """SHA-256 of programs, kept by what changes when a file does: its inode, size and both times."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: OrderedDict[tuple[int, ...], str] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, path: str) -> str | None:
        """Return the digest of a program, or None of one that cannot be read, is huge, or changed meanwhile."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except PermissionError:
            return None
        with os.fdopen(descriptor, "rb", buffering=0) as source:
            before = _stamp(descriptor)
            with self._lock:
                known = self._known.get(before)
            if known is not None:
                return known
            if not stat.S_ISREG(os.fstat(descriptor).st_mode) or before[2] > _PROGRAM_BYTES_MAX:
                return None
            digest = hashlib.sha256()
            while piece := source.read(_PIECE_BYTES):
                digest.update(piece)
            after = _stamp(descriptor)
        if after != before:
            return None
        if self._clock.now_us() - max(after[3:]) // 1_000 > _SETTLED_US:
            self._keep(after, digest.hexdigest())
        return digest.hexdigest()

    def _keep(self, stamp: tuple[int, ...], digest: str) -> None:
        with self._lock:
            self._known[stamp] = digest
            while len(self._known) > _DIGESTS_MAX:
                self._known.popitem(last=False)


def _stamp(descriptor: int) -> tuple[int, ...]:
    found = os.fstat(descriptor)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

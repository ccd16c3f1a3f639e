"""Tries, from inside, every wall that `confine` says it raised; believing it would prove nothing.

What is tried is prepared before the walls stand, so that no try can pass by accident: a file is only a
witness if it could be read until then, and the port that must not answer is one that listens.
"""

import contextlib
import errno
import os
import resource
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from crank.errors import SandboxError
from crank.sandbox import confine, kernel
from crank.sandbox.confine import Abilities, View

_PR_GET_DUMPABLE, _PR_GET_NO_NEW_PRIVS = 3, 39
_REFUSED = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.EROFS)
_CONNECT_SEC = 5.0
_NETWORK = "/proc/self/ns/net"
# Readable by everybody, everywhere; no worker needs it.
_COMMON_FILE = "/etc/passwd"
# Signal 0 only asks whether a signal could be sent; process 1 is nobody's that a worker starts.
_FIRST_PROCESS = 1


@dataclass(frozen=True, slots=True)
class Witnesses:
    """What could be reached before: files that could be read, a listener that answers, and which network."""

    files: tuple[Path, ...]
    listener: socket.socket
    network: str


@contextlib.contextmanager
def witnesses(candidates: Iterable[Path]) -> Iterator[Witnesses]:
    """Keep what of the candidates can be read now, and open a port; closes it afterwards."""
    files = tuple(path for path in candidates if path.is_file() and os.access(path, os.R_OK))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Witnesses(files, listener, os.readlink(_NETWORK))


def prove(view: View, able: Abilities, seen: Witnesses) -> None:
    """Try everything that must not work. Blocking, milliseconds. Raises SandboxError that names what did."""
    broken = [text for text in _attempts(view, able, seen) if text]
    if broken:
        raise SandboxError(
            f"The worker's confinement does not hold: {'; '.join(broken)}.",
            code="confinement_broken",
            fix="Run 'crank doctor' on this machine, and report this with its output.",
        )
    _check_own_code()


def _attempts(view: View, able: Abilities, seen: Witnesses) -> Iterator[str]:
    yield from _capabilities(able)
    yield from _account(able)
    if able.namespaces or able.landlock:
        yield from (_refused(f"it could read {path}", partial(_read, path)) for path in seen.files)
        folders = [path for path in view.readable if path.is_dir()]
        yield from (_refused(f"it could write to {path}", partial(_create, path)) for path in folders)
    if able.namespaces and not view.network and os.readlink(f"/proc/{os.getpid()}/ns/net") == seen.network:
        yield "it kept the network of the host"
    if able.landlock:
        # Without a view of its own there is no such file; then one that everybody may read serves.
        path = Path(confine.WITNESS if able.namespaces else _COMMON_FILE)
        yield _refused("Landlock let it read a file that no rule grants", partial(_read, path), (errno.EACCES,))
    if able.landlock >= 4:
        port = seen.listener.getsockname()[1]
        yield _refused("it could connect to another port", partial(_connect, port), (errno.EACCES,))
    if able.landlock >= 6:
        yield _refused("it could signal another process", partial(os.kill, os.getppid() or _FIRST_PROCESS, 0))
    yield from _calls()


def _capabilities(able: Abilities) -> Iterator[str]:
    held = {line.split(":")[0]: int(line.split()[1], 16) for line in _status() if line.startswith("Cap")}
    if len(held) < 5:
        yield "its capabilities could not be read"
    if not able.namespaces:
        # What could be gained stays listed for a process that never held any; it can gain nothing all the same.
        held.pop("CapBnd", None)
    yield from (f"the set {name} is {mask:x}" for name, mask in held.items() if mask)
    if kernel.prctl(_PR_GET_NO_NEW_PRIVS) != 1:
        yield "it could gain privileges"
    if kernel.prctl(_PR_GET_DUMPABLE) != 0:
        yield "others of its account could read its memory"
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):
        yield "it could leave a core dump"


def _status() -> Sequence[str]:
    return Path(f"/proc/{os.getpid()}/status").read_text("ascii", errors="replace").splitlines()


def _account(able: Abilities) -> Iterator[str]:
    if able.account is None:
        return
    if {*os.getresuid(), *os.getresgid()} != {able.account} or os.getgroups():
        yield "it kept an id of the account that started it"
    yield _refused("it could become root again", partial(os.setresuid, 0, 0, 0))


def _calls() -> Iterator[str]:
    families = ((socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_INET6, socket.SOCK_DGRAM))
    for family, kind in (*families, (socket.AF_UNIX, socket.SOCK_STREAM), (socket.AF_NETLINK, socket.SOCK_RAW)):
        yield _refused(f"it could open a socket of {family.name}", partial(_open_socket, family, kind))
    yield _refused("it could leave its namespaces", partial(kernel.unshare, kernel.CLONE_NEWUSER))
    yield _refused("it could make a mount", partial(kernel.syscall, "fsopen", b"tmpfs", 0))
    yield _refused("it could open a port", _listen)


def _refused(claim: str, attempt: Callable[[], object], codes: Sequence[int] = _REFUSED) -> str:
    """Return the claim when the attempt went through, or failed for another reason; empty when it was refused."""
    try:
        attempt()
    except OSError as fault:
        return "" if fault.errno in codes else f"{claim}, or so it seems: {fault}"
    return claim


def _read(path: Path) -> None:
    with path.open("rb") as source:
        source.read(1)


def _create(folder: Path) -> None:
    beside = folder / ".crank-try"
    with beside.open("xb"):
        beside.unlink()


def _connect(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), timeout=_CONNECT_SEC).close()


def _open_socket(family: int, kind: int) -> None:
    socket.socket(family, kind).close()


def _listen() -> None:
    with socket.socket() as trying:
        trying.listen(1)


def _check_own_code() -> None:
    """Look whether what was loaded can still be read: what is loaded later lies beside it."""
    files = {module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)}
    lost = sorted(file for file in files if file and not os.access(file, os.R_OK))
    if lost:
        raise SandboxError(
            f"The confined worker cannot read its own code, such as {lost[0]}.",
            code="confinement_code",
            fix="Let other accounts read the interpreter and Crank's package, or install them where they may.",
        )

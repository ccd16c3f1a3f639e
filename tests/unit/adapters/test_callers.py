"""Who is at the other end of a local socket, told by real processes that lie in the ways that a process can."""

import contextlib
import hashlib
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crank.adapters import callers
from crank.adapters.callers import KernelWitness
from crank.adapters.clock import SystemClock
from crank.domain.workload import Selector, SelectorKind, parse_selector
from crank.errors import ConfigurationError, NotAllowed, Unavailable
from crank.ports import Caller
from tests.support.node import until

PYTHON = os.path.realpath(sys.executable)
# A program that connects, tells, and then does what it is told, one word a line.
PUPPET = """
import os, socket, sys
one = socket.socket(socket.AF_UNIX)
one.connect(sys.argv[1])
print("connected", flush=True)
for line in sys.stdin:
    word = line.strip()
    if word == "say":
        one.send(b"hello")
    elif word == "fork":
        if os.fork() == 0:
            one.send(b"hello")
            os._exit(0)
        os.wait()
    elif word == "exec":
        os.set_inheritable(one.fileno(), True)
        os.execv("/bin/cat", ["cat"])
    elif word == "leave a child":
        if os.fork() == 0:
            sys.stdin.readline()
            os._exit(0)
        os._exit(0)
    print("done", flush=True)
"""


class Puppet:
    """A process at the other end."""

    def __init__(self, path: str, *, python: str = PYTHON, account: int | None = None) -> None:
        self.process = subprocess.Popen(
            [python, "-I", "-c", PUPPET, path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, user=account, group=account,
            extra_groups=None if account is None else [],
        )  # fmt: skip
        assert self.hear() == "connected"

    def hear(self) -> str:
        """Return its next line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def do(self, word: str) -> None:
        """Let it do something, and wait until it is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


class Place:
    """A socket with somebody at it."""

    def __init__(self, folder: Path) -> None:
        self.witness = KernelWitness(SystemClock())
        self.path = str(folder / "s")
        self.listening = self.witness.listen(self.path, shared=True)
        self.listening.settimeout(10)
        self._puppets: list[Puppet] = []
        self._sockets: list[socket.socket] = []

    def puppet(self, *, python: str = PYTHON, account: int | None = None) -> tuple[Puppet, socket.socket, Caller]:
        """Start a process and receive it."""
        puppet = Puppet(self.path, python=python, account=account)
        self._puppets.append(puppet)
        tied, caller = self.witness.receive(self.listening.accept()[0])
        tied.settimeout(10)
        self._sockets.append(tied)
        return puppet, tied, caller

    def close(self) -> None:
        """End all."""
        for tied in (*self._sockets, self.listening):
            tied.close()
        for puppet in self._puppets:
            puppet.end()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Give a socket."""
    opened = Place(tmp_path)
    try:
        yield opened
    finally:
        opened.close()


def marked(caller: Caller, kind: SelectorKind, *, digest: bool = False) -> set[str]:
    """Return the values of one kind that are true of a caller."""
    return {mark.value for mark in caller.marks(digest=digest) if mark.kind is kind}


def test_a_node_without_descriptors_denies_nobody(place: Place) -> None:
    """Who cannot be looked at because the node is short of descriptors is told to try again, and then is who they are."""
    _, _, caller = place.puppet()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(Unavailable) as caught:
            caller.marks(digest=False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.error_code == "machine_short"
    assert marked(caller, SelectorKind.UID) == {str(os.geteuid())}


def test_what_is_true_of_a_process(place: Place) -> None:
    """Account, group, program, its digest and its control groups are told as /proc shows them."""
    puppet, _, caller = place.puppet()
    assert caller.uid == os.geteuid()
    assert marked(caller, SelectorKind.UID) == {str(os.geteuid())}
    assert marked(caller, SelectorKind.GID) == {str(os.getegid())}
    assert marked(caller, SelectorKind.PATH) == {PYTHON}
    assert marked(caller, SelectorKind.SHA256) == set()
    digest = hashlib.sha256(Path(PYTHON).read_bytes()).hexdigest()
    for _ in range(2):
        assert marked(caller, SelectorKind.SHA256, digest=True) == {digest}
    lines = Path(f"/proc/{puppet.process.pid}/cgroup").read_text().splitlines()
    assert marked(caller, SelectorKind.CGROUP) == {line.split(":", 2)[2] for line in lines}
    assert all(parse_selector(str(mark)) == mark for mark in caller.marks(digest=True))


def test_only_its_maker_speaks_through_a_connection(place: Place) -> None:
    """What the maker sends arrives; what its child sends over the same connection ends it."""
    puppet, tied, _ = place.puppet()
    puppet.do("say")
    assert tied.recv(100) == b"hello"
    puppet.do("fork")
    with pytest.raises(ConnectionAbortedError):
        tied.recv(100)


def test_what_was_sent_before_it_was_accepted_counts_as_well(place: Place) -> None:
    """A child cannot speak in the gap between connecting and being accepted."""
    puppet = Puppet(place.path)
    place._puppets.append(puppet)
    puppet.do("fork")
    assert puppet.hear() == "done"
    tied, _ = place.witness.receive(place.listening.accept()[0])
    with pytest.raises(ConnectionAbortedError):
        tied.recv(100)
    tied.close()


def test_another_program_in_the_same_process_is_another_caller(place: Place) -> None:
    """A process that connects and then becomes another program is refused: whose marks would these be?"""
    puppet, _, caller = place.puppet()
    assert marked(caller, SelectorKind.PATH) == {PYTHON}
    puppet.do("exec")
    until(lambda: os.readlink(f"/proc/{puppet.process.pid}/exe") != PYTHON, what="the other program", deadline_sec=10)
    with pytest.raises(NotAllowed) as caught:
        caller.marks(digest=True)
    assert caught.value.error_code == "caller_changed"


def test_a_process_that_ended_is_nobody(place: Place) -> None:
    """Once its maker ended, a connection that lives on in a child earns nothing, whoever has the number now."""
    puppet, _, caller = place.puppet()
    puppet.do("leave a child")
    puppet.process.wait(10)
    with pytest.raises(NotAllowed) as caught:
        caller.marks(digest=False)
    assert caught.value.error_code == "caller_changed"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another account")
def test_another_account_is_told_apart(place: Place, tmp_path: Path) -> None:
    """A process of another account bears that account's number, and none of ours."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    _, _, caller = place.puppet(python="/usr/bin/python3" if Path("/usr/bin/python3").exists() else PYTHON, account=54_321)
    assert (caller.uid, marked(caller, SelectorKind.UID)) == (54_321, {"54321"})
    assert marked(caller, SelectorKind.GID) == {"54321"}


def test_the_account_of_those_who_have_none_is_nobody(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number that the kernel shows for every account that has none here earns nothing."""
    monkeypatch.setattr(callers, "_overflow_ids", lambda: (os.geteuid(), os.getegid()))
    place.witness = KernelWitness(SystemClock())
    _, _, caller = place.puppet()
    assert marked(caller, SelectorKind.UID) | marked(caller, SelectorKind.GID) == set()


def test_a_copy_under_another_name_is_another_path_and_the_same_digest(place: Place, tmp_path: Path) -> None:
    """A program is known by where it lies, and by what it holds, each for itself; one that was removed has no path."""
    copy = tmp_path / "copy"
    shutil.copy("/bin/cat", copy)
    _, _, caller = place.puppet()
    digests = callers._Digests(SystemClock())
    assert digests.of(str(copy)) == digests.of("/bin/cat") == hashlib.sha256(copy.read_bytes()).hexdigest()
    assert marked(caller, SelectorKind.PATH) == {PYTHON}
    # A path that leads elsewhere in our own view is not believed.
    program = callers._Program(0, 0)
    assert callers._path_of("/proc/self", program) is None
    mine = callers._program("/proc/self")
    assert mine is not None
    assert callers._path_of("/proc/self", mine) == os.readlink("/proc/self/exe")


def test_a_digest_is_kept_only_of_what_rests(tmp_path: Path) -> None:
    """A file that changes is digested anew, at once; one that is huge, or no file, has none."""
    file = tmp_path / "program"
    file.write_bytes(b"one")
    digests = callers._Digests(SystemClock())
    assert digests.of(str(file)) == hashlib.sha256(b"one").hexdigest()
    file.write_bytes(b"two")
    assert digests.of(str(file)) == hashlib.sha256(b"two").hexdigest()
    os.truncate(file, callers._PROGRAM_BYTES_MAX + 1)
    assert digests.of(str(file)) is None
    os.mkfifo(tmp_path / "pipe")
    assert digests.of(str(tmp_path / "pipe")) is None


def test_the_socket_is_its_owners_unless_shared(tmp_path: Path) -> None:
    """The file's mode says who may connect; what an earlier run left is replaced, and nothing else is."""
    witness = KernelWitness(SystemClock())
    path = tmp_path / "s"
    for shared, mode in ((False, 0o600), (True, 0o666)):
        witness.listen(str(path), shared=shared).close()
        assert path.stat().st_mode & 0o777 == mode
    with witness.listen(str(path), shared=False), pytest.raises(ConfigurationError) as caught:
        witness.listen(str(path), shared=False)
    assert "another program listens" in caught.value.message
    path.unlink()
    path.write_text("precious")
    with pytest.raises(ConfigurationError):
        witness.listen(str(path), shared=False)
    assert path.read_text() == "precious"
    with pytest.raises(ConfigurationError):
        witness.listen(str(tmp_path / ("s" * 120)), shared=False)


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/usr/bin/python3").exists(), reason="only root can be another account, with a program of the system's"
)
def test_another_account_does_not_reach_a_socket_that_is_not_shared(tmp_path: Path) -> None:
    """The kernel itself keeps others away; a shared one lets them connect, which earns them nothing yet."""
    for folder in (tmp_path, *tmp_path.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    program = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    for shared in (False, True):
        with KernelWitness(SystemClock()).listen(str(tmp_path / "s"), shared=shared):
            done = subprocess.run(
                ["/usr/bin/python3", "-I", "-c", program, str(tmp_path / "s")],
                user=54_321, group=54_321, extra_groups=[], capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
            assert (done.returncode == 0) is shared, done.stderr
            assert shared or "PermissionError" in done.stderr


def test_descriptors_that_come_along_are_closed(tmp_path: Path) -> None:
    """What a caller passes beside its words does not stay open here."""
    witness = KernelWitness(SystemClock())
    listening = witness.listen(str(tmp_path / "s"), shared=False)
    with socket.socket(socket.AF_UNIX) as own, open("/dev/null", "rb") as passed:
        own.connect(str(tmp_path / "s"))
        tied, _ = witness.receive(listening.accept()[0])
        tied.settimeout(10)
        before = set(os.listdir("/proc/self/fd"))
        for _ in range(20):
            socket.send_fds(own, [b"x"], [passed.fileno()] * 8)
            assert tied.recv(10) == b"x"
        assert len(set(os.listdir("/proc/self/fd")) - before) <= 1
        tied.close()
    listening.close()


def test_a_stranger_without_an_old_kernels_help_is_known_by_account_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel cannot hold the process for us (before 6.5), nothing is told that a reused number could fake."""
    monkeypatch.setattr(callers, "_SO_PEERPIDFD", 30_000)
    _, _, caller = place.puppet()
    assert caller.marks(digest=True) == {
        Selector(SelectorKind.UID, str(os.geteuid())), Selector(SelectorKind.GID, str(os.getegid())),
    }  # fmt: skip

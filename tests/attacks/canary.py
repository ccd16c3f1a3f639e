"""The canary: what a job could harm or read on the host, put there to see that none does.

A file outside every sandbox, one in the host's shared memory, and a process with a secret in its environment
that listens on an abstract Unix socket, on TCP and on UDP. Whoever opens the files is noticed by inotify,
whoever calls the sockets is told by the process, and whoever signals, stops or slows it is seen in /proc.
"""

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PROGRAM = """
import json, selectors, socket, sys
name = sys.argv[1]
chosen = selectors.DefaultSelector()
abstract, stream, datagram = socket.socket(socket.AF_UNIX), socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
abstract.bind("\\0" + name), stream.bind(("127.0.0.1", 0)), datagram.bind(("127.0.0.1", stream.getsockname()[1]))
abstract.listen(), stream.listen()
for found in (abstract, stream, datagram, sys.stdin):
    chosen.register(found, selectors.EVENT_READ)
print(json.dumps(stream.getsockname()[1]), flush=True)
touched = 0
while True:
    for key, _ in chosen.select():
        if key.fileobj is sys.stdin:
            if not sys.stdin.readline():
                raise SystemExit
            print(touched, flush=True)
        else:
            touched += 1
            key.fileobj.recv(1) if key.fileobj is datagram else key.fileobj.accept()[0].close()
"""
_IN_ANY_TOUCH = 0x1 | 0x2 | 0x4 | 0x20 | 0x400 | 0x800
_EVENT = struct.Struct("iIII")


class Canary:
    """One canary. `wrongs` says what happened to it since it was last asked."""

    def __init__(self, folder: Path) -> None:
        self.marker = "CANARY-MARK" + secrets.token_hex(16)
        name = f"crank-canary-{secrets.token_hex(8)}"
        self._files = (folder / name, Path("/dev/shm") / name)
        for file in self._files:
            file.write_text(self.marker)
            file.chmod(0o666)
        libc = ctypes.CDLL(None, use_errno=True)
        self._watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for file in self._files:
            assert libc.inotify_add_watch(self._watch, os.fsencode(file), _IN_ANY_TOUCH) >= 0
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"CRANK_CANARY": self.marker},
        )
        self.facts: dict[str, Any] = {
            "file": str(self._files[0]),
            "shared": str(self._files[1]),
            "socket": name,
            "pid": self._process.pid,
            "keeper": os.getpid(),
            "port": json.loads(self._line()),
        }
        self._before = self._looks()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def _ask(self) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._line())

    def _looks(self) -> list[Any]:
        pid = self._process.pid
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        limits = Path(f"/proc/{pid}/limits").read_text()
        # Its state apart, which is R or S as it happens: nice, start, and everything that others could set.
        seen: list[Any] = [status[0] in "RS", status[16], status[19], limits, sorted(os.sched_getaffinity(pid))]
        seen.append(Path(f"/proc/{pid}/oom_score_adj").read_text())
        for file in self._files:
            found = file.stat()
            seen.append((found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
        return seen

    def wrongs(self, *told: str) -> list[str]:
        """Return what happened to it; `told` is everything that a job said, where its secret must not be."""
        wrong = []
        if self._process.poll() is not None:
            return ["the canary is dead"]
        if self._looks() != self._before:
            wrong.append(f"the canary looks different: {self._looks()} instead of {self._before}")
        if calls := self._ask():
            wrong.append(f"the canary's sockets were called {calls} time(s)")
        with contextlib.suppress(BlockingIOError):
            if os.read(self._watch, 4096):
                wrong.append("the canary's files were touched")
        if any(self.marker in text for text in told):
            wrong.append("the canary's secret was read")
        return wrong

    def close(self) -> None:
        """End the process and remove the files."""
        self._process.kill()
        self._process.communicate()
        os.close(self._watch)
        for file in self._files:
            file.unlink(missing_ok=True)


@contextlib.contextmanager
def canaries(count: int) -> Iterator[list[Canary]]:
    """Give so many canaries, each with files and sockets of its own."""
    folder = Path(tempfile.mkdtemp(prefix="canary-"))
    folder.chmod(0o755)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        made = [Canary(folder) for _ in range(count)]
        for canary in made:
            stack.callback(canary.close)
        yield made

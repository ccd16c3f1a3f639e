"""A job's private folders where no mount can make them: folders of the host's own disk, measured and removed.

The job owns everything in them, so names are a stranger's: each is opened beneath its folder, no link is
followed, and no path is longer than what one call takes, however deep the job went.
"""

import contextlib
import errno
import itertools
import os
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass

from crank.sandbox import kernel

# The promised place of each folder, and its name in the yard.
FOLDERS = {"/scratch": "scratch", "/out": "out", "/tmp": "tmp", "/dev/shm": "shm"}
IN = "in"
# Variables that tell a job of them, and of its profile, beside those of every job.
VARIABLES = ("CRANK_IN", "CRANK_OUT", "CRANK_SCRATCH", "LD_LIBRARY_PATH", "PYTHONTZPATH")
_HOP_BYTES = 2_000
_LET_GO, _LET_GO_SEC = "gone-", 0.5


@dataclass(frozen=True, slots=True)
class Usage:
    """What lies in one folder: bytes on disk, and how many files and folders."""

    size_bytes: int
    inodes: int


def make(base: str, mounts: dict[str, str]) -> str:
    """Make a yard beneath `base`, with a link to each mounted folder; return its path. Raises OSError."""
    path = os.path.join(base, f"job-{secrets.token_hex(8)}")
    os.mkdir(path, 0o700)
    for name in (*FOLDERS.values(), IN):
        os.mkdir(os.path.join(path, name), 0o700)
    for name, target in mounts.items():
        os.symlink(target, os.path.join(path, IN, name))
    return path


def places(path: str) -> dict[str, str]:
    """Return where each promised place really is."""
    return {**{place: os.path.join(path, name) for place, name in FOLDERS.items()}, "/in": os.path.join(path, IN)}


class Meter:
    """Adds up what lies in a folder, in small steps: how much there is to look at is the job's to say."""

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._waiting: list[bytes] = []
        self._now = Usage(0, 0)
        self._last = Usage(0, 0)

    @property
    def usage(self) -> Usage:
        """Return what was found last time, or is found already this time, whichever is more."""
        return Usage(max(self._last.size_bytes, self._now.size_bytes), max(self._last.inodes, self._now.inodes))

    def step(self, *, limit_sec: float, most: int) -> None:
        """Look on for a moment, at no more than `most` entries in one round."""
        deadline = time.monotonic() + limit_sec
        if not self._waiting:
            self._waiting, self._now = [b"."], Usage(0, 0)
        while self._waiting and self._now.inodes <= most and time.monotonic() < deadline:
            path = self._waiting.pop()
            with contextlib.suppress(OSError):
                self._look(path, most)
        if not self._waiting:
            self._last = self._now

    def _look(self, path: bytes, most: int) -> None:
        size, count = self._now.size_bytes, self._now.inodes
        descriptor = _open(self._folder, path)
        try:
            with os.scandir(descriptor) as entries:
                for entry in itertools.islice(entries, max(0, most - count) + 1):
                    count += 1
                    status = entry.stat(follow_symlinks=False)
                    size += status.st_blocks * 512
                    if stat.S_ISDIR(status.st_mode):
                        self._waiting.append(path + b"/" + os.fsencode(entry.name))
        finally:
            self._now = Usage(size, count)
            os.close(descriptor)


def _open(root: int, path: bytes) -> int:
    """Open a folder, in hops when its path is longer than one call takes."""
    folder = os.dup(root)
    for hop in _hops(path):
        try:
            deeper = _open_near(folder, hop)
        finally:
            os.close(folder)
        folder = deeper
    return folder


def _hops(path: bytes) -> Iterator[bytes]:
    while len(path) > _HOP_BYTES:
        cut = path.rfind(b"/", 0, _HOP_BYTES)
        yield path[:cut]
        path = path[cut + 1 :]
    yield path


def _open_near(folder: int, path: bytes) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY
    try:
        return kernel.open_beneath(folder, path, flags)
    except PermissionError:
        # Made without the right to read it, which its owner may still take.
        place = kernel.open_beneath(folder, path, os.O_PATH | os.O_NOFOLLOW)
        try:
            os.chmod(f"/proc/self/fd/{place}", 0o700)
        finally:
            os.close(place)
        return kernel.open_beneath(folder, path, flags)


def remove(path: str, *, limit_sec: float = 3600.0) -> bool:
    """Remove a yard with everything in it, however deep; tell whether it is gone, or the time was up. Raises OSError.

    Nobody may write to it any more. What lies in a folder within it is lifted to the top first, so that the
    depth is never more than two.
    """
    deadline = time.monotonic() + limit_sec
    try:
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        if not empty(top, deadline):
            return False
    finally:
        os.close(top)
    os.rmdir(path)
    return True


def empty(top: int, deadline: float) -> bool:
    """Remove what lies in an open folder, however deep; tell whether the time was enough. Raises OSError."""
    waiting = _empty(top, deadline)
    while waiting and time.monotonic() < deadline:
        waiting += _lift(top, waiting.pop(), deadline)
    return not waiting and time.monotonic() < deadline


def _empty(top: int, deadline: float) -> list[str]:
    """Remove what can be removed directly; return the folders that hold something."""
    left = []
    for name in os.listdir(top):
        if time.monotonic() >= deadline:
            left.append(name)
            continue
        try:
            os.unlink(name, dir_fd=top)
        except OSError as fault:
            if fault.errno not in (errno.EISDIR, errno.EPERM):
                raise
            try:
                os.rmdir(name, dir_fd=top)
            except OSError:
                left.append(name)
    return left


def _lift(top: int, name: str, deadline: float) -> list[str]:
    """Move the folders in a folder to the top and remove it; return what they are called there."""
    folder = _open_near(top, os.fsencode(name))
    lifted = []
    try:
        for inner in _empty(folder, deadline):
            # A folder that is moved has its link to the parent written anew, for which it must be writable.
            with contextlib.suppress(PermissionError):
                os.close(_open_near(folder, os.fsencode(inner)))
            lifted.append(f"lifted-{secrets.token_hex(8)}")
            os.rename(inner, lifted[-1], src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)
    return lifted


def let_go(path: str) -> None:
    """Remove a yard, or as much of it as a moment allows; what is left is the keeper's, see `remove_let_go`."""
    if not remove(path, limit_sec=_LET_GO_SEC):
        folder, name = os.path.split(path)
        os.rename(path, os.path.join(folder, f"{_LET_GO}{name}"))


def remove_let_go(base: str, *, limit_sec: float) -> bool:
    """Go on with removing what was let go; tell whether nothing of it is left."""
    names = (name for name in os.listdir(base) if name.startswith(_LET_GO))
    return all(remove(os.path.join(base, name), limit_sec=limit_sec) for name in names)

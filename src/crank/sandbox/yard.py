"""A job's private folders where no mount can make them: folders of the host's own disk, measured and removed.

The job owns everything in them, so names are a stranger's: each is opened beneath its folder, no link is
followed, and no path is longer than what one call takes, however deep the job went.
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from crank.sandbox import kernel

# The promised place of each folder, and its name in the yard.
FOLDERS = {"/scratch": "scratch", "/out": "out", "/tmp": "tmp", "/dev/shm": "shm"}
IN = "in"
# Variables that tell a job of them, and of its profile, beside those of every job.
VARIABLES = ("CRANK_IN", "CRANK_OUT", "CRANK_SCRATCH", "LD_LIBRARY_PATH", "PYTHONTZPATH")
# A file beside the yards that their account may read and no job may: whoever can has no Landlock around it.
WITNESS = "witness"
_HOP_BYTES = 2_000


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


def measure(folder: int, *, most: int) -> Usage:
    """Add up what lies in a folder, looking at no more than `most` entries. Raises OSError when it is gone."""
    size = count = 0
    folders = [b"."]
    while folders:
        path = folders.pop()
        try:
            descriptor = _open(folder, path)
        except OSError:
            if path == b".":
                raise
            continue
        try:
            for name in os.listdir(descriptor):
                count += 1
                if count > most:
                    return Usage(size, count)
                with contextlib.suppress(OSError):
                    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    size += status.st_blocks * 512
                    if stat.S_ISDIR(status.st_mode):
                        folders.append(path + b"/" + os.fsencode(name))
        finally:
            os.close(descriptor)
    return Usage(size, count)


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


def remove(path: str) -> None:
    """Remove a yard with everything in it, however deep. Nobody may write to it any more. Raises OSError.

    What lies in a folder within it is lifted to the top first, so that the depth is never more than two.
    """
    try:
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        while folders := _empty(top):
            for name in folders:
                _lift(top, name)
    finally:
        os.close(top)
    os.rmdir(path)


def _empty(top: int) -> list[str]:
    """Remove what can be removed directly; return the folders that hold something."""
    left = []
    for name in os.listdir(top):
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


def _lift(top: int, name: str) -> None:
    folder = _open_near(top, os.fsencode(name))
    try:
        for inner in _empty(folder):
            # A folder that is moved has its link to the parent written anew, for which it must be writable.
            with contextlib.suppress(PermissionError):
                os.close(_open_near(folder, os.fsencode(inner)))
            os.rename(inner, f"lifted-{secrets.token_hex(8)}", src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)

"""Files of a session, by descriptors that cannot leave its folders: put, open, list and remove.

The job owned these folders: every name in them is a stranger's. A path is opened beneath the folder,
following no link and crossing no mount (openat2), only plain files are read, and every loop is bounded.
"""

import errno
import itertools
import os
import stat
import time

from crank.domain.rules.request import parse_relative_path
from crank.errors import InvalidRequest, TooLarge
from crank.sandbox import kernel, yard

# The supervisor, which keeps clocks, does nothing else meanwhile.
_REMOVE_SEC = 2.0


def create_file(folder: int, path: str, *, replace: bool) -> int:
    """Make a file at a path beneath the folder, with the folders on its way; return it open for writing.

    replace  a file that is there already is emptied; otherwise it is in the way. Raises InvalidRequest for a path that is not plain or is taken,
    TooLarge when the folder is full.
    """
    path = parse_relative_path(path, field="path")
    try:
        _make_folders(folder, os.path.dirname(path))
        flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | (os.O_TRUNC if replace else os.O_EXCL)
        return _plain_file(kernel.open_beneath(folder, os.fsencode(path), flags, 0o644))
    except OSError as fault:
        raise _cannot_put(path, fault) from fault


def _plain_file(descriptor: int) -> int:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ENOTDIR, "not a regular file")
    return descriptor


def _cannot_put(path: str, fault: OSError) -> InvalidRequest | TooLarge:
    if fault.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return TooLarge("The files of this job do not fit its disk limit.", code="files_too_large", field="files")
    cause = {
        errno.EEXIST: "it is given twice, or is already there",
        errno.ENOTDIR: "a part of it is a file",
        errno.EISDIR: "a folder is there",
        errno.ELOOP: "a link is there",
    }.get(fault.errno or 0, fault.strerror)
    return InvalidRequest(f"The file {path[:80]!r} cannot be put there: {cause}.", code="invalid_path", field="path")


def _make_folders(root: int, path: str) -> None:
    made = ""
    for segment in path.split("/") if path else ():
        parent = kernel.open_beneath(root, os.fsencode(made or "."), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.mkdir(segment, 0o755, dir_fd=parent)
        except FileExistsError:
            # Made for an earlier file; if it is not a folder, the next step says so.
            pass
        finally:
            os.close(parent)
        made = f"{made}/{segment}" if made else segment


def open_file(folder: int, path: str) -> tuple[int, int]:
    """Open a regular file beneath the folder for reading; return its descriptor and size. Raises OSError."""
    descriptor = _open_with_permission(
        folder, os.fsencode(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, 0o600
    )
    return _plain_file(descriptor), os.fstat(descriptor).st_size


def list_folder(root: int, path: str, *, most: int) -> list[tuple[str, str, int, int]]:
    """Return (name, kind, size in bytes, modified in microseconds) of what lies in a folder, by name.

    Raises OSError.
    """
    folder = open_folder(root, os.fsencode(path) or b".")
    try:
        with os.scandir(folder) as entries:
            return sorted(_listed(entry) for entry in itertools.islice(entries, most))
    finally:
        os.close(folder)


def _listed(entry: "os.DirEntry[str]") -> tuple[str, str, int, int]:
    status = entry.stat(follow_symlinks=False)
    is_file, is_folder = stat.S_ISREG(status.st_mode), stat.S_ISDIR(status.st_mode)
    kind = "file" if is_file else "folder" if is_folder else "other"
    name = os.fsencode(entry.name).decode("utf-8", "backslashreplace")
    return name, kind, status.st_size if is_file else 0, status.st_mtime_ns // 1000


def remove(root: int, path: str) -> None:
    """Remove a file, or a folder with everything in it, following no link. Raises OSError, also when time is up."""
    parent = kernel.open_beneath(root, os.fsencode(os.path.dirname(path)) or b".", os.O_RDONLY | os.O_DIRECTORY)
    name = os.path.basename(path)
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            _remove_folder(parent, name)
        else:
            os.unlink(name, dir_fd=parent)
    finally:
        os.close(parent)


def _remove_folder(parent: int, name: str) -> None:
    folder = open_folder(parent, os.fsencode(name))
    try:
        done = yard.empty(folder, time.monotonic() + _REMOVE_SEC)
    finally:
        os.close(folder)
    if not done:
        raise OSError(errno.EBUSY, "it holds so much that only a part was removed; call it again")
    os.rmdir(name, dir_fd=parent)


def open_folder(root: int, path: bytes) -> int:
    """Open a folder beneath another, whatever permissions the job left it. Raises OSError."""
    return _open_with_permission(root, path, os.O_RDONLY | os.O_DIRECTORY, 0o700)


def _open_with_permission(root: int, path: bytes, flags: int, mode: int) -> int:
    """Open; where the job took the permission away, give it back to the owner through a descriptor first."""
    try:
        return kernel.open_beneath(root, path, flags)
    except PermissionError:
        place = kernel.open_beneath(root, path, os.O_PATH | os.O_NOFOLLOW)
        try:
            os.chmod(f"/proc/self/fd/{place}", mode)
        finally:
            os.close(place)
        return kernel.open_beneath(root, path, flags)

"""Files in and out of a sandbox, by descriptors that cannot leave its folders.

The job owned these folders: every name in them is a stranger's. A path is opened beneath the folder,
following no link and crossing no mount (openat2), only plain files are read, and every loop is bounded.
"""

import errno
import io
import itertools
import mimetypes
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from crank.domain.outcome import Skipped
from crank.domain.profile import Limits
from crank.domain.rules.request import parse_relative_path
from crank.errors import InvalidRequest, TooLarge
from crank.sandbox import kernel, yard

_VISITS_MAX = 200_000
# The supervisor, which keeps clocks, does nothing else meanwhile.
_REMOVE_SEC = 1.0
_SKIPPED_MAX = 200
_SHOWN_CHARS_MAX = 300

# The standard library's own table, never the machine's, and what it lacks.
_TYPES = mimetypes.MimeTypes()
for _ending, _media_type in (
    (".md", "text/markdown"),
    (".jsonl", "application/jsonl"),
    (".toml", "application/toml"),
    (".yaml", "application/yaml"),
    (".yml", "application/yaml"),
    (".parquet", "application/vnd.apache.parquet"),
):
    _TYPES.add_type(_media_type, _ending)

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


def media_type(path: str) -> str:
    """Guess a media type from a file's name alone."""
    kind, encoding = _TYPES.guess_type(path, strict=True)
    return kind if kind and not encoding else "application/octet-stream"


# --- in ---------------------------------------------------------------------------------------


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
    folder = _open_folder(root, os.fsencode(path) or b".")
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
    folder = _open_folder(parent, os.fsencode(name))
    try:
        done = yard.empty(folder, time.monotonic() + _REMOVE_SEC)
    finally:
        os.close(folder)
    if not done:
        raise OSError(errno.EBUSY, "it holds so much that only a part was removed; call it again")
    os.rmdir(name, dir_fd=parent)


# --- out --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    """Something found, with its path as bytes, and why it cannot be taken, if so."""

    path: bytes
    is_file: bool = False
    cause: str | None = None


def _shown(path: bytes) -> str:
    text = path.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)[:_SHOWN_CHARS_MAX]


def _plain(path: bytes) -> bool:
    try:
        parse_relative_path(path.decode("utf-8"), field="path")
    except (UnicodeDecodeError, InvalidRequest):
        return False
    return True


def _walk(root: int) -> Iterator[_Entry]:
    """Yield everything beneath the folder, breadth first, never deeper than a plain path is long."""
    folders: list[bytes] = [b""]
    visits = 0
    for folder in folders:
        try:
            descriptor = _open_folder(root, folder or b".")
        except OSError as fault:
            yield _Entry(folder, cause=f"it cannot be opened: {fault.strerror}")
            continue
        try:
            names = sorted(os.fsencode(entry.name) for entry in os.scandir(descriptor))
        finally:
            os.close(descriptor)
        for name in names:
            visits += 1
            if visits > _VISITS_MAX:
                yield _Entry(b".", cause=f"there are more than {_VISITS_MAX} files and folders")
                return
            found = _look(root, folder + b"/" + name if folder else name)
            if found is None:
                folders.append(folder + b"/" + name if folder else name)
            else:
                yield found


def _look(root: int, path: bytes) -> _Entry | None:
    """Return what stands at a path, or None for a folder to walk into."""
    if not _plain(path):
        return _Entry(path, cause="its path is not plain (characters, length or depth)")
    try:
        descriptor = kernel.open_beneath(root, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError as fault:
        # O_PATH on a link is refused by RESOLVE_NO_SYMLINKS with ELOOP.
        cause = _KINDS[stat.S_IFLNK] if fault.errno == errno.ELOOP else f"it cannot be opened: {fault.strerror}"
        return _Entry(path, cause=cause)
    try:
        mode = os.fstat(descriptor).st_mode
    finally:
        os.close(descriptor)
    if stat.S_ISDIR(mode):
        return None
    if stat.S_ISREG(mode):
        return _Entry(path, is_file=True)
    return _Entry(path, cause=_KINDS.get(stat.S_IFMT(mode), "not a file"))


def _open_folder(root: int, path: bytes) -> int:
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


class Bounded(io.RawIOBase):
    """A file of a stranger, read no further than it was promised to be long. Owns its descriptor."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self.passed_bytes = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, up to the bound."""
        room = min(len(buffer), self._size - self.passed_bytes)
        count = os.readv(self._descriptor, [memoryview(buffer)[:room]]) if room else 0
        self.passed_bytes += count
        return count

    def grew(self) -> bool:
        """Tell whether there is more than was promised."""
        return os.fstat(self._descriptor).st_size > self._size

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()


@dataclass(frozen=True, slots=True)
class Survey:
    """What lies in /out: (path, size in bytes) of each plain file within the limits, and what else is there."""

    files: tuple[tuple[str, int], ...]
    skipped: tuple[Skipped, ...]


class _Collection:
    """What may be taken and what not, within the limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bytes_left = limits.disk_bytes
        self.files: list[tuple[str, int]] = []
        self.skipped: list[Skipped] = []
        self._unnamed = 0

    def skip(self, path: bytes, cause: str) -> None:
        """Name something that is not taken; beyond a number of names, only count."""
        if len(self.skipped) < _SKIPPED_MAX:
            self.skipped.append(Skipped(_shown(path), cause))
        else:
            self._unnamed += 1

    def take(self, root: int, path: bytes) -> None:
        """List one file, or say why not."""
        if len(self.files) >= self._limits.artifacts:
            self.skip(path, f"there are more than {self._limits.artifacts} files")
            return
        try:
            place = kernel.open_beneath(root, path, os.O_PATH | os.O_NOFOLLOW)
        except OSError as fault:
            self.skip(path, f"it cannot be opened: {fault.strerror}")
            return
        size = os.fstat(place).st_size
        os.close(place)
        # A sparse file costs the job nothing and its reader everything.
        if size > self._bytes_left:
            self.skip(path, f"the files together are larger than {self._limits.disk_bytes} bytes")
            return
        self._bytes_left -= size
        self.files.append((path.decode("utf-8"), size))

    def finish(self) -> Survey:
        """Say how many more there were."""
        if self._unnamed:
            self.skipped.append(Skipped("…", f"{self._unnamed} more were not taken"))
        return Survey(tuple(self.files), tuple(self.skipped))


def survey(root: int, limits: Limits) -> Survey:
    """List the plain files beneath a folder, in order of their depth and name, and name the rest.

    Blocking, and bounded in count, bytes and depth.
    """
    collection = _Collection(limits)
    for entry in _walk(root):
        if entry.is_file:
            collection.take(root, entry.path)
        else:
            collection.skip(entry.path, entry.cause or "not a file")
    return collection.finish()

"""What a job leaves in /out, by descriptors that cannot leave the folder.

The job owned these folders: every name in them is a stranger's. A path is opened beneath the folder,
following no link and crossing no mount (openat2), only plain files are read, and every loop is bounded.
"""

import errno
import io
import mimetypes
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from crank.domain.outcome import Skipped
from crank.domain.profile import Limits
from crank.domain.rules.request import parse_relative_path
from crank.errors import InvalidRequest
from crank.sandbox import kernel
from crank.sandbox.session_files import open_folder

_VISITS_MAX = 200_000
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
            descriptor = open_folder(root, folder or b".")
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

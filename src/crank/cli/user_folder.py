"""A folder of the user into which a stranger's files may go: looked at and written without following any link.

Each step down is opened relative to the one above, so that a folder that is swapped for a link in between leads
nowhere. A file appears by one rename, and what it replaces is looked at again after the rename: when it is not
what the user was shown, it goes back.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from crank.domain.rules.apply import Found, sameness
from crank.errors import Conflict, InvalidRequest

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK_BYTES = 1 << 20
_RUNNABLE = 0o111
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


class UserFolder:
    """An open folder of the user. Use it as `with`."""

    def __init__(self, path: Path) -> None:
        try:
            # What the user named may be a link; from there on down nothing may.
            self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as fault:
            raise InvalidRequest(
                f"The folder {str(path)[:200]!r} cannot be opened: {fault.strerror}.",
                code="folder_unusable",
                field="to",
                fix="Name a folder that is there, or the name of a mount.",
            ) from fault
        self._names: dict[str, dict[str, list[str]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._root)

    def look(self, path: str) -> Found:
        """Return what stands at a path, and why nothing may be written there if so. Raises OSError."""
        steps = path.split("/")
        with contextlib.ExitStack() as opened:
            at = self._root
            for depth, step in enumerate(steps):
                twin = self._twin(at, "/".join(steps[:depth]), step)
                if twin is not None:
                    return Found(blocked=f"{twin!r} is there already, alike but for case")
                if depth == len(steps) - 1:
                    return _look_at(at, step)
                below = _open_folder(at, step)
                if below is None:
                    return Found()
                if below < 0:
                    return Found(blocked=f"{'/'.join(steps[: depth + 1])!r} is not a folder of its own")
                opened.callback(os.close, below)
                at = below
        raise AssertionError("a path has a last step")

    def _twin(self, at: int, folder: str, step: str) -> str | None:
        """Return a name in this folder that some file system takes for the same, when the very name is not there."""
        if folder not in self._names:
            names: dict[str, list[str]] = {}
            for name in os.listdir(at):
                names.setdefault(sameness(name), []).append(name)
            self._names[folder] = names
        alike = self._names[folder].get(sameness(step), [])
        return None if not alike or step in alike else alike[0]

    def read(self, path: str, bytes_max: int) -> bytes:
        """Return a file's first bytes. Raises OSError."""
        with contextlib.ExitStack() as opened:
            at, name = self._descend(path, opened, make=False)
            with _open_file(at, name) as source:
                return source.read(bytes_max)

    def _descend(self, path: str, opened: contextlib.ExitStack, *, make: bool) -> tuple[int, str]:
        *above, name = path.split("/")
        at = self._root
        for step in above:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(step, dir_fd=at)
            below = _open_folder(at, step)
            if below is None or below < 0:
                raise _changed(path)
            opened.callback(os.close, below)
            at = below
        return at, name

    def write(self, path: str, source: BinaryIO, *, shown: Found, keep: Callable[[str, BinaryIO], None]) -> None:
        """Write a file whole, in place of what the user was shown, which is handed to `keep` first.

        Raises Conflict when something else stands there now; then it is as it was. Raises OSError.
        """
        with contextlib.ExitStack() as opened:
            at, name = self._descend(path, opened, make=shown.sha256 is None)
            beside = f".{secrets.token_hex(8)}.part"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            scrap = beside
            try:
                with os.fdopen(os.open(beside, flags, 0o600, dir_fd=at), "wb") as target:
                    shutil.copyfileobj(source, target, _CHUNK_BYTES)
                    target.flush()
                    if shown.sha256 is None:
                        _settle_new(target.fileno(), at, beside, name, path)
                    else:
                        _settle_over(target.fileno(), at, (beside, name), shown.sha256, _keeping(path, keep))
            except _Stranded:
                scrap = ""
                raise
            finally:
                if scrap:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(scrap, dir_fd=at)
            os.fsync(at)


class _Stranded(Conflict):
    """What the user saved in the last moment lies under another name, and could not be put back."""


def _keeping(path: str, keep: Callable[[str, BinaryIO], None]) -> Callable[[BinaryIO], None]:
    def kept(original: BinaryIO) -> None:
        keep(path, original)

    return kept


def _open_folder(at: int, step: str) -> int | None:
    """Open a folder; None: nothing is there; -1: something else is, a link too."""
    try:
        return os.open(step, _FOLDER, dir_fd=at)
    except FileNotFoundError:
        return None
    except OSError as fault:
        if fault.errno in (errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENAMETOOLONG):
            return -1
        raise


def _open_file(at: int, name: str) -> BufferedReader:
    """Open a plain file. Raises OSError: ENXIO for what is none, ELOOP for a link."""
    descriptor = os.open(name, _FILE, dir_fd=at)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ENXIO, "not a plain file", name)
    return os.fdopen(descriptor, "rb")


def _look_at(at: int, name: str) -> Found:
    try:
        source = _open_file(at, name)
    except FileNotFoundError:
        return Found()
    except OSError as fault:
        if fault.errno in (errno.EACCES, errno.EPERM):
            return Found(blocked="it cannot be read")
        if fault.errno in (errno.ELOOP, errno.ENXIO, errno.ENOTDIR):
            return Found(blocked="something that is not a plain file stands there")
        raise
    with source:
        digest, found = _digest(source), os.fstat(source.fileno())
    return Found(digest, found.st_size, max(found.st_ctime_ns, found.st_mtime_ns) // 1_000)


def _digest(source: BufferedReader) -> str:
    source.seek(0)
    return hashlib.file_digest(source, "sha256").hexdigest()


def _settle_new(target: int, at: int, beside: str, name: str, path: str) -> None:
    umask = os.umask(0o077)
    os.umask(umask)
    os.fchmod(target, 0o666 & ~umask)
    os.fsync(target)
    try:
        if not _rename(at, beside, name, _RENAME_NOREPLACE):
            # File systems without that rename have links, which never replace either.
            os.link(beside, name, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
    except FileExistsError:
        raise _changed(path) from None


def _settle_over(
    target: int, at: int, names: tuple[str, str], shown_sha256: str, keep: Callable[[BinaryIO], None]
) -> None:
    beside, name = names
    try:
        original = _open_file(at, name)
    except OSError as fault:
        raise _changed(name) from fault
    with original:
        found = os.fstat(original.fileno())
        if _digest(original) != shown_sha256:
            raise _changed(name)
        original.seek(0)
        keep(original)
        if (found.st_uid, found.st_gid) != (os.fstat(target).st_uid, os.fstat(target).st_gid):
            os.fchown(target, found.st_uid, found.st_gid)
        # What a job wrote is never made runnable, whatever it replaces.
        os.fchmod(target, stat.S_IMODE(found.st_mode) & 0o777 & ~_RUNNABLE)
        os.fsync(target)
        if not _rename(at, beside, name, _RENAME_EXCHANGE):
            _rename_over(at, beside, name, shown_sha256)
            return
    # What was there a moment ago lies beside now: when it is not what the user was shown, it goes back.
    if _look_at(at, beside).sha256 != shown_sha256:
        _put_back(at, beside, name)
        raise _changed(name)


def _put_back(at: int, beside: str, name: str) -> None:
    with contextlib.suppress(OSError):
        if _rename(at, beside, name, _RENAME_EXCHANGE):
            return
    raise _Stranded(
        f"{name[:200]!r} changed in the last moment; what you saved lies beside it as {beside!r}.",
        code="target_stranded",
        fix="Compare the two files, and keep the one that you want.",
    )


def _rename_over(at: int, beside: str, name: str, shown_sha256: str) -> None:
    """Replace where names cannot be exchanged: looked at again in the last moment."""
    if _look_at(at, name).sha256 != shown_sha256:
        raise _changed(name)
    os.rename(beside, name, src_dir_fd=at, dst_dir_fd=at)


def _rename(at: int, source: str, target: str, flags: int) -> bool:
    """Rename by renameat2; tell whether this kernel and file system can. Raises OSError."""
    if _libc.renameat2(at, os.fsencode(source), at, os.fsencode(target), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), target)


def _changed(path: str) -> Conflict:
    return Conflict(
        f"{path[:200]!r} is not any more what you were shown; it was left as it is.",
        code="target_changed",
        fix="Run the command again and look at the new diff.",
    )

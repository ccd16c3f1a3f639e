"""Puts a job's files into a folder of the caller, and never anywhere else.

Names come from a job that nobody trusts, and the folder may hold links. So each step down is opened
relative to the one above with no link followed, and a file appears by a rename that replaces a link
instead of writing through it.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from crank.errors import Conflict, InvalidRequest

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def safe_parts(path: str) -> tuple[str, ...]:
    """Return the steps of an artifact's path. Raises InvalidRequest for one that could leave its folder."""
    parts = tuple(path.split("/"))
    if not path or any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise InvalidRequest(f"The artifact's name {path[:120]!r} leaves its folder.", code="unsafe_path", field="path")
    return parts


@contextlib.contextmanager
def new_file(folder: Path, path: str) -> Iterator[BinaryIO]:
    """Open `folder`/`path` to write; it appears, whole, when the block ends well.

    Raises InvalidRequest for a path that leaves the folder, Conflict when a link or a file stands where
    a folder must be, OSError for what the machine refuses.
    """
    *above, name = safe_parts(path)
    folder.mkdir(parents=True, exist_ok=True)
    # The caller's own folder may be a link; from there on down nothing may.
    with contextlib.ExitStack() as opened:
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.callback(os.close, at)
        for step in above:
            at = _descend(at, step, path)
            opened.callback(os.close, at)
        beside = f".{secrets.token_hex(8)}.part"
        descriptor = os.open(
            beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=at
        )
        try:
            with os.fdopen(descriptor, "wb") as target:
                yield target
            os.rename(beside, name, src_dir_fd=at, dst_dir_fd=at)
        except IsADirectoryError:
            os.unlink(beside, dir_fd=at)
            raise _in_the_way(path) from None
        except BaseException:
            os.unlink(beside, dir_fd=at)
            raise


def _descend(at: int, step: str, path: str) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(step, dir_fd=at)
    try:
        return os.open(step, _FOLDER, dir_fd=at)
    except (NotADirectoryError, OSError) as fault:
        raise _in_the_way(path) from fault


def _in_the_way(path: str) -> Conflict:
    return Conflict(
        f"Something that is not a folder of its own stands in the way of {path[:120]!r}.",
        code="out_in_the_way",
        fix="Use an empty folder for --out.",
    )

"""Where documents lie for a job: given files in /scratch, mounted folders in /in, results in /out."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from documents.faults import Failed, plain

SCRATCH, MOUNTS, OUT = Path("/scratch"), Path("/in"), Path("/out")
# Beneath this no name of a caller is taken: what Crank itself hands over lies there.
OWN = ".crank"
_DEPTH_MAX = 32


class Given(NamedTuple):
    """What the job was given: paths of files, and names of mounts."""

    files: Sequence[str]
    mounts: Sequence[str]


class Document(NamedTuple):
    """One file, and what it is called in answers."""

    name: str
    path: Path


def find(given: Given, source: str | None) -> Document:
    """Return the document that is meant: a given file, or `<mount>/<path>`. Raises Failed (`not_found`)."""
    if source is None:
        if len(given.files) == 1:
            return Document(given.files[0], SCRATCH / given.files[0])
        raise Failed("not_found", f"say which document is meant in source: {len(given.files)} files were given")
    if source in given.files:
        return Document(source, SCRATCH / source)
    mount, _, rest = source.partition("/")
    if mount in given.mounts and rest:
        path = _inside(MOUNTS / mount, rest)
        if path is not None and path.is_file():
            return Document(source, path)
    raise Failed("not_found", f"there is no document {plain(source)!r} among the given files and mounts")


def _inside(root: Path, relative: str) -> Path | None:
    try:
        real = (root / relative).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return None
    return real if real.is_relative_to(root.resolve()) else None


def walk(given: Given, source: str | None) -> Iterator[Document]:
    """Yield every file of a mount, or of all given files and mounts, in order. No link is followed.

    Raises Failed (`not_found`) when the mount is not there.
    """
    if source is not None and source not in given.mounts:
        raise Failed("not_found", f"there is no mount {plain(source)!r}; there are: {', '.join(given.mounts) or 'none'}")
    if source is None:
        yield from (Document(name, SCRATCH / name) for name in sorted(given.files))
    several = source is None and (len(given.mounts) > 1 or bool(given.files))
    for mount in given.mounts if source is None else [source]:
        root = MOUNTS / mount
        for path in _files(root, 0):
            relative = path.relative_to(root).as_posix()
            yield Document(f"{mount}/{relative}" if several else relative, path)


def _files(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if depth < _DEPTH_MAX:
                yield from _files(folder / entry.name, depth + 1)
        elif entry.is_file(follow_symlinks=False):
            yield folder / entry.name


def readable(name: str) -> str:
    """Return a file's name as text that JSON and a screen can carry."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

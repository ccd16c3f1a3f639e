"""What an earlier folder.process made, so that unchanged files need no second reading.

One tar file: for each document what was made of it, then a word on it under its key. It is read as far as it is whole, so
that a job that was cut off leaves what it had done. The key is a hash of the file's content, the operation, its options
and the version of everything that did it; nobody but the node says which earlier job's file this one is given.
"""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_WORD_BYTES_MAX = 1 << 18
_MEMBERS_MAX = 100_000
_WORD = "word"


class Made(NamedTuple):
    """What one document became: `entry` as told, and the files, each as (what its name adds, where its bytes begin, size)."""

    entry: dict[str, Any]
    files: Sequence[tuple[str, int, int]]


def key_of(content_sha256: str, operation: str, options: Mapping[str, Any], version: str) -> str:
    """Return the key under which a result is kept."""
    return hashlib.sha256(json.dumps([content_sha256, operation, options, version], sort_keys=True).encode()).hexdigest()


class Earlier:
    """Results of an earlier job."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made: dict[str, Made] = {}
        if path.is_file():
            # Cut short, or no tar at all: what was whole before the fault is used, the rest is done again.
            for key, made in _read(path):
                self._made[key] = made

    def __len__(self) -> int:
        return len(self._made)

    def find(self, key: str) -> Made | None:
        """Return what is kept under a key."""
        return self._made.get(key)

    def copy(self, start: int, size: int, target: Path) -> None:
        """Write one kept file. Raises OSError."""
        with self._path.open("rb") as source, target.open("xb") as made:
            source.seek(start)
            left = size
            while left:
                chunk = source.read(min(left, 1 << 20))
                if not chunk:
                    raise OSError("cut short")
                left -= made.write(chunk)


def _read(path: Path) -> Iterator[tuple[str, Made]]:
    files: list[tuple[str, int, int]] = []
    size_bytes = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as archive:
            for count, member in enumerate(archive):
                if count > _MEMBERS_MAX or not member.isreg() or member.offset_data + member.size > size_bytes:
                    return
                if member.name.partition("/")[0] != _WORD:
                    files.append((member.name, member.offset_data, member.size))
                    continue
                source = archive.extractfile(member)
                if source is None or member.size > _WORD_BYTES_MAX:
                    return
                word = json.loads(source.read())
                yield member.name.partition("/")[2], Made(word, tuple(files))
                files = []
    except (tarfile.TarError, ValueError, OSError, EOFError):
        return


class Keeper:
    """Writes what this job makes, for the next one; stops quietly when there is no more room for it."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._archive = tarfile.open(  # noqa: SIM115 - as above
            fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT
        )
        self._left = bytes_max

    def keep(self, key: str, entry: Mapping[str, Any], files: Sequence[tuple[str, Path]]) -> None:
        """Keep what one document became. `files`: what each adds to the document's name, and where it lies now."""
        word = json.dumps(entry).encode()
        needed = len(word) + sum(path.stat().st_size + 2048 for _, path in files) + 2048
        if needed > self._left or len(word) > _WORD_BYTES_MAX:
            return
        self._left -= needed
        for addition, path in files:
            member = tarfile.TarInfo(addition)
            member.size = path.stat().st_size
            with path.open("rb") as source:
                self._archive.addfile(member, source)
        member = tarfile.TarInfo(f"{_WORD}/{key}")
        member.size = len(word)
        self._archive.addfile(member, io.BytesIO(word))
        self._file.flush()

    def close(self) -> None:
        """Finish the file."""
        self._archive.close()
        self._file.close()


def place(earlier: Earlier, made: Made, base: Path) -> list[str]:
    """Write what was kept of a document beside `base`; return what each file adds to its name. Raises OSError."""
    added: list[str] = []
    try:
        for addition, start, size in made.files:
            target = base.parent / f"{base.name}{addition}"
            if ".." in addition or not target.is_relative_to(base.parent):
                raise OSError("not a name that was kept here")
            target.parent.mkdir(parents=True, exist_ok=True)
            earlier.copy(start, size, target)
            added.append(addition)
    except OSError:
        for addition in added:
            (base.parent / f"{base.name}{addition}").unlink(missing_ok=True)
        raise
    return added


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def clear(folder: Path) -> None:
    """Remove a work folder, whatever lies in it."""
    shutil.rmtree(folder, ignore_errors=True)

"""Inside the sandbox: the files of an E2B sandbox, as its client asks for them. All of it with the job's own rights."""

from __future__ import annotations

import base64
import contextlib
import grp
import json
import os
import pwd
import shutil
import stat
from typing import Any

# Bytes of one file that travel in a line; more goes by a folder that the session's files reach.
INLINE_BYTES = 192 * 1024
ENTRIES_MAX = 4_000
METADATA_BYTES_MAX = 4 * 1024
_DEPTH_MAX = 32
_KINDS = {stat.S_IFREG: "FILE_TYPE_FILE", stat.S_IFDIR: "FILE_TYPE_DIRECTORY", stat.S_IFLNK: "FILE_TYPE_SYMLINK"}
_ERRORS = {
    FileNotFoundError: ("not_found", "does not exist"),
    FileExistsError: ("already_exists", "exists already"),
    NotADirectoryError: ("invalid_argument", "is not a directory"),
    IsADirectoryError: ("invalid_argument", "is a directory"),
    PermissionError: ("permission_denied", "may not be changed or read here"),
}


def line_of(word: dict[str, Any]) -> str:
    """Write one line of JSON that a strict reader takes: no NaN, no half of a surrogate pair."""
    try:
        text = json.dumps(word, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str)
    except ValueError:
        word = json.loads(json.dumps(word, default=str), parse_constant=lambda _: None)
        text = json.dumps(word, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode()


class Refused(Exception):
    """What is told to the client: a code of the protocol and a sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def refusal(fault: OSError, path: str) -> Refused:
    """Return what a fault of the file system means to a client."""
    if fault.errno in (28, 122):
        return Refused("resource_exhausted", "no space is left in this sandbox")
    if fault.errno == 30:
        return Refused("permission_denied", f"path {path!r} is read-only in this sandbox")
    for kind, (code, what) in _ERRORS.items():
        if isinstance(fault, kind):
            return Refused(code, f"path {path!r} {what}")
    return Refused("failed_precondition", f"path {path!r}: {fault.strerror}")


class Shelf:
    """Files and folders, and what clients noted about them."""

    def __init__(self, home: str, staging: str) -> None:
        """Take where relative paths begin, and a folder by which large files come and go."""
        self._home = home
        self._staging = staging
        self._metadata: dict[str, dict[str, str]] = {}

    def place(self, path: Any) -> str:
        """Return the absolute path that a client means."""
        if not isinstance(path, str) or not path or "\0" in path or len(path) > 4096:
            raise Refused("invalid_argument", "a path is a text of 1 to 4096 characters")
        if path == "~" or path.startswith("~/"):
            path = self._home + path[1:]
        return os.path.normpath(os.path.join(self._home, path))

    def entry(self, path: str) -> dict[str, Any]:
        """Return what is known of one path."""
        found = os.lstat(path)
        linked = stat.S_ISLNK(found.st_mode)
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "FILE_TYPE_UNSPECIFIED")
        seconds, rest = divmod(found.st_mtime_ns, 1_000_000_000)
        entry: dict[str, Any] = {
            "name": os.path.basename(path) or "/",
            "type": kind,
            "path": path,
            "size": str(found.st_size),
            "mode": stat.S_IMODE(found.st_mode),
            "permissions": stat.filemode(found.st_mode),
            "owner": _name(found.st_uid, pwd.getpwuid),
            "group": _name(found.st_gid, grp.getgrgid),
            "modified": [seconds, rest],
            "metadata": self._metadata.get(path, {}),
        }
        if linked:
            entry["symlinkTarget"] = os.readlink(path)
            entry["isSymlink"] = True
            if os.path.isdir(path):
                entry["type"] = "FILE_TYPE_DIRECTORY"
            elif os.path.isfile(path):
                entry["type"] = "FILE_TYPE_FILE"
        return entry

    def stat(self, path: Any) -> dict[str, Any]:
        """Return an entry."""
        return {"entry": self.entry(self.place(path))}

    def folder(self, path: Any, depth: Any) -> dict[str, Any]:
        """Return what lies in a folder, down to a depth."""
        place = self.place(path)
        if not os.path.isdir(place):
            os.lstat(place)
            raise Refused("invalid_argument", f"path {place!r} is not a directory")
        levels = min(depth, _DEPTH_MAX) if isinstance(depth, int) and depth > 0 else 1
        entries: list[dict[str, Any]] = []
        self._walk(os.listdir(place), place, levels, entries)
        return {"entries": entries}

    def _walk(self, names: list[str], folder: str, levels: int, entries: list[dict[str, Any]]) -> None:
        for name in sorted(names):
            path = os.path.join(folder, name)
            if self._is_staging(path):
                continue
            if len(entries) >= ENTRIES_MAX:
                raise Refused("resource_exhausted", f"the folder holds more than {ENTRIES_MAX} entries; list less deep")
            try:
                entries.append(self.entry(path))
                inside = os.listdir(path) if levels > 1 and os.path.isdir(path) and not os.path.islink(path) else []
            except OSError:
                # It is gone, or may not be looked into: what can be read around it is told all the same.
                continue
            self._walk(inside, path, levels - 1, entries)

    def _is_staging(self, path: str) -> bool:
        return os.path.basename(path) == os.path.basename(self._staging)

    def make_folder(self, path: Any) -> dict[str, Any]:
        """Make a folder and those above it."""
        place = self.place(path)
        if os.path.isdir(place):
            raise Refused("already_exists", f"directory already exists: {place}")
        os.makedirs(place)
        return {"entry": self.entry(place)}

    def move(self, source: Any, target: Any) -> dict[str, Any]:
        """Rename; the folders above the target are made."""
        begin, end = self.place(source), self.place(target)
        os.lstat(begin)
        os.makedirs(os.path.dirname(end), exist_ok=True)
        shutil.move(begin, end)
        if begin in self._metadata:
            self._metadata[end] = self._metadata.pop(begin)
        return {"entry": self.entry(end)}

    def remove(self, path: Any) -> dict[str, Any]:
        """Remove a file, or a folder with everything in it; what is not there is no fault."""
        place = self.place(path)
        if place in ("/", self._home):
            raise Refused("permission_denied", f"path {place!r} stays")
        if os.path.isdir(place) and not os.path.islink(place):
            shutil.rmtree(place)
        elif os.path.lexists(place):
            os.remove(place)
        self._metadata = {
            kept: noted for kept, noted in self._metadata.items() if not f"{kept}/".startswith(f"{place}/")
        }
        return {}

    def read(self, path: Any, name: str) -> dict[str, Any]:
        """Return a file's bytes, or lay a copy of a large one into the staging folder and name it."""
        place = self.place(path)
        found = os.stat(place)
        if not stat.S_ISREG(found.st_mode):
            raise Refused("invalid_argument", f"path {place!r} is not a regular file")
        if found.st_size <= INLINE_BYTES:
            with open(place, "rb") as source:
                return {"base64": base64.b64encode(source.read(INLINE_BYTES)).decode()}
        os.makedirs(self._staging, exist_ok=True)
        target = os.path.join(self._staging, os.path.basename(name))
        real = os.path.realpath(place)
        try:
            os.link(real, target)
        except OSError:
            shutil.copyfile(real, target)
        return {"staged": True, "size": found.st_size}

    def write(self, path: Any, *, octets: str | None, staged: str | None, metadata: Any) -> dict[str, Any]:
        """Write a file, from bytes or from the staging folder; the folders above it are made."""
        place = self.place(path)
        noted = _metadata(metadata)
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            if os.path.isdir(place):
                raise Refused("invalid_argument", f"path {place!r} is a directory")
            if staged is None:
                with open(place, "wb") as target:
                    target.write(base64.b64decode(octets or ""))
            else:
                # Moved where that is possible: a copy would need the room of a large file twice.
                shutil.move(os.path.join(self._staging, os.path.basename(staged)), place)
        finally:
            if staged is not None:
                self.unstage(staged)
        if noted:
            self._metadata[place] = noted
        else:
            self._metadata.pop(place, None)
        return {"entry": self.entry(place)}

    def unstage(self, name: str) -> dict[str, Any]:
        """Remove a file of the staging folder, and the folder when it is empty."""
        # It may have been moved to where it belongs, and others may use the folder.
        with contextlib.suppress(OSError):
            os.remove(os.path.join(self._staging, os.path.basename(name)))
        with contextlib.suppress(OSError):
            os.rmdir(self._staging)
        return {}

    def picture(self, path: str, *, recursive: bool) -> dict[str, tuple[int, int, int]]:
        """Return what a folder looks like now, by relative path: time, size and mode. Bounded."""
        found: dict[str, tuple[int, int, int]] = {}
        for folder, folders, files in os.walk(path):
            for name in [*folders, *files]:
                full = os.path.join(folder, name)
                if self._is_staging(full) or len(found) >= ENTRIES_MAX:
                    continue
                try:
                    seen = os.lstat(full)
                except OSError:
                    continue
                size = 0 if stat.S_ISDIR(seen.st_mode) else seen.st_size
                written = 0 if stat.S_ISDIR(seen.st_mode) else seen.st_mtime_ns
                found[os.path.relpath(full, path)] = (written, size, seen.st_mode)
            if not recursive:
                break
        return found


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, str]]:
    """Return what happened between two pictures of a folder."""
    events = [{"name": name, "type": "EVENT_TYPE_REMOVE"} for name in before if name not in after]
    for name, seen in after.items():
        if name not in before:
            events.append({"name": name, "type": "EVENT_TYPE_CREATE"})
            if seen[1]:
                events.append({"name": name, "type": "EVENT_TYPE_WRITE"})
        elif seen[:2] != before[name][:2]:
            events.append({"name": name, "type": "EVENT_TYPE_WRITE"})
        elif seen[2] != before[name][2]:
            events.append({"name": name, "type": "EVENT_TYPE_CHMOD"})
    return events


def _metadata(given: Any) -> dict[str, str]:
    noted = {str(name).lower(): str(value) for name, value in (given or {}).items()}
    if sum(len(name) + len(value) for name, value in noted.items()) > METADATA_BYTES_MAX:
        raise Refused("invalid_argument", f"metadata is at most {METADATA_BYTES_MAX} bytes")
    return noted


def _name(number: int, look_up: Any) -> str:
    try:
        return str(look_up(number)[0])
    except (KeyError, OSError):
        return str(number)

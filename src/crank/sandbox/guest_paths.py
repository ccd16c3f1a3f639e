"""The promised paths where no mount can make them: Python's own file functions look behind /scratch, /out and /in.

A comfort, no wall: it changes what a name means in this interpreter, never what the process may do. Libraries
that open files below Python, and programs, do not know of it; for them the environment says where the places are.
Standard library only.
"""

from __future__ import annotations

import builtins
import functools
import io
import os
import sys
from typing import Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# How many of the first arguments are paths. A file descriptor in a path's place is left as it is.
_FUNCTIONS = {
    **dict.fromkeys(("access", "chdir", "getxattr", "listdir", "listxattr", "lstat", "mkdir", "mkfifo", "open"), 1),
    **dict.fromkeys(("pathconf", "readlink", "remove", "rmdir", "scandir", "stat", "statvfs", "truncate", "unlink"), 1),
    **dict.fromkeys(("rename", "replace", "link"), 2),
}
_QUIET = ("chmod", "utime")
_SUPPORTS = ("supports_dir_fd", "supports_effective_ids", "supports_fd", "supports_follow_symlinks")


class Places:
    """The promised places, and where each really is.

    known  host folders that may lie beneath a place of the same name, such as /tmp, and mean themselves
    """

    def __init__(self, real: Mapping[str, str], known: Sequence[str]) -> None:
        self._real = dict(real)
        self._known = tuple(known)

    def behind(self, path: Any) -> Any:
        """Return what a path means here; anything but a path beneath a promised place is returned as it is."""
        if isinstance(path, int):
            return path
        try:
            plain = os.fspath(path)
        except TypeError:
            return path
        text = os.fsdecode(plain)
        if not text.startswith("/"):
            return path
        # As the kernel does, many slashes count as one; `..` is for the kernel to follow.
        text = "/" + "/".join(part for part in text.split("/") if part not in ("", "."))
        if any(text == each or text.startswith(f"{each}/") for each in self._known):
            return path
        for place, real in self._real.items():
            if text == place or text.startswith(f"{place}/"):
                found = real + text[len(place) :]
                return os.fsencode(found) if isinstance(plain, bytes) else found
        return path


    def is_own(self, path: Any) -> bool:
        """Tell whether a path leads into one of the real places, or is a descriptor."""
        if isinstance(path, int):
            return True
        # A relative path is made absolute from the working folder's promised name.
        full = str(self.behind(os.path.realpath(os.fsdecode(os.fspath(path)))))
        return any(full == real or full.startswith(f"{real}/") for real in self._real.values())

    def named(self, path: str) -> str:
        """Return the promised name of a real path, or the path."""
        for place, real in self._real.items():
            if path == real or path.startswith(f"{real}/"):
                return place + path[len(real) :]
        return path


def install(places: Places) -> None:
    """Let Python's file functions know the places.

    A change of the mode or times of one of the job's own files, which the filter refuses here as any, is left out
    without a word: copying a file would fail with it.
    """
    unlink = os.unlink
    for name, count in _FUNCTIONS.items():
        _replace(name, functools.partial(_translate, places, count))
    for name in _QUIET:
        _replace(name, functools.partial(_quiet, places))
    where = os.getcwd
    os.getcwd = lambda: places.named(where())
    os.getcwdb = lambda: os.fsencode(os.getcwd())
    opened = _translate(places, 1, io.open)
    builtins.open = io.open = opened
    # `symlink` names its target as the link's reader will find it, and makes the second of its paths.
    _replace("symlink", functools.partial(_linking, places))
    _replace_start(places)
    closer: Any = getattr(sys.modules.get("tempfile"), "_TemporaryFileCloser", None)
    for function in vars(closer).values() if closer is not None else ():
        # It keeps the function that it was defined with.
        if unlink in (getattr(function, "__defaults__", None) or ()):
            function.__defaults__ = tuple(os.unlink if each is unlink else each for each in function.__defaults__)
    sqlite: Any = sys.modules.get("sqlite3")
    if sqlite is not None:
        sqlite.connect = _translate(places, 1, sqlite.connect)


def _replace(name: str, wrap: Callable[[Any], Any]) -> None:
    original = getattr(os, name)
    wrapped = wrap(original)
    setattr(os, name, wrapped)
    for supports in _SUPPORTS:
        known = getattr(os, supports)
        if original in known:
            known.add(wrapped)


def _replace_start(places: Places) -> None:
    """Let programs be given the promised places as arguments of their own, and as the folder to start in."""
    subprocess: Any = sys.modules.get("subprocess")
    if subprocess is None:
        return
    original = subprocess.Popen.__init__

    @functools.wraps(original)
    def start(self: Any, args: Any, *more: Any, **named: Any) -> None:
        if isinstance(args, list | tuple):
            args = [places.behind(each) for each in args]
        if named.get("cwd") is not None:
            named["cwd"] = places.behind(named["cwd"])
        original(self, args, *more, **named)

    subprocess.Popen.__init__ = start


def _translate(places: Places, count: int, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def translated(*args: Any, **named: Any) -> Any:
        if args:
            args = (*map(places.behind, args[:count]), *args[count:])
        for key in ("path", "src", "dst", "file"):
            if key in named:
                named[key] = places.behind(named[key])
        return original(*args, **named)

    return translated


def _linking(places: Places, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def linked(src: Any, dst: Any, *args: Any, **named: Any) -> Any:
        return original(places.behind(src), places.behind(dst), *args, **named)

    return linked


def _quiet(places: Places, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def quiet(path: Any, *args: Any, **named: Any) -> None:
        found = places.behind(path)
        try:
            original(found, *args, **named)
        except PermissionError:
            if not places.is_own(found):
                raise

    return quiet

"""Inside the sandbox: what a client of an E2B sandbox may ask about its files and folders, and the folders it watches."""

from __future__ import annotations

import os
import time
from typing import Any

from crank.sandbox import guest_shelf
from crank.sandbox.guest_shelf import Refused, Shelf

_WATCHES_MAX = 32
_LOOK_SEC = 0.3


class FileCalls:
    """The part of a steward that answers about files. Each `do_` method is one request."""

    def __init__(self, shelf: Shelf) -> None:
        """Take the files."""
        self._shelf = shelf
        self._watches: dict[str, dict[str, Any]] = {}
        self._made = 0
        self._next_look = 0.0

    def _say(self, request_id: int, **word: Any) -> None:
        raise NotImplementedError

    def do_stat(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return an entry."""
        return self._shelf.stat(request["path"])

    def do_folder(self, request: dict[str, Any]) -> dict[str, Any]:
        """List a folder."""
        return self._shelf.folder(request["path"], request.get("depth"))

    def do_make_folder(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make a folder."""
        return self._shelf.make_folder(request["path"])

    def do_move(self, request: dict[str, Any]) -> dict[str, Any]:
        """Rename."""
        return self._shelf.move(request["source"], request["target"])

    def do_remove(self, request: dict[str, Any]) -> dict[str, Any]:
        """Remove."""
        return self._shelf.remove(request["path"])

    def do_read(self, request: dict[str, Any]) -> dict[str, Any]:
        """Read a file, or stage it."""
        return self._shelf.read(request["path"], request["name"])

    def do_write(self, request: dict[str, Any]) -> dict[str, Any]:
        """Write a file, from the request or from what was staged."""
        staged, octets = request.get("staged"), request.get("base64")
        return self._shelf.write(request["path"], octets=octets, staged=staged, metadata=request.get("metadata"))

    def do_unstage(self, request: dict[str, Any]) -> dict[str, Any]:
        """Remove what was staged."""
        return self._shelf.unstage(request["name"])

    def do_watch(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Watch a folder: with a stream of events, or to be asked about later."""
        place = self._shelf.place(request["path"])
        if not os.path.isdir(place):
            os.lstat(place)
            raise Refused("invalid_argument", f"path {place!r} is not a directory")
        if len(self._watches) >= _WATCHES_MAX:
            raise Refused("resource_exhausted", f"at most {_WATCHES_MAX} folders are watched at once")
        self._made += 1
        recursive = bool(request.get("recursive"))
        streams = bool(request.get("stream"))
        watch = {"path": place, "recursive": recursive, "entries": bool(request.get("entries"))}
        watch |= {
            "listener": request["id"] if streams else None,
            "seen": self._shelf.picture(place, recursive=recursive),
        }
        self._watches[f"watch-{self._made}"] = watch
        if streams:
            self._say(request["id"], event={"start": {}})
            return None
        return {"watcherId": f"watch-{self._made}"}

    def do_watched(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return what happened in a watched folder since the last time."""
        watch = self._watches.get(request["watcher"])
        if watch is None or watch["listener"] is not None:
            raise Refused("not_found", f"watcher with id {str(request['watcher'])[:80]} not found")
        return {"events": self._changes(watch)}

    def do_unwatch(self, request: dict[str, Any]) -> dict[str, Any]:
        """Stop watching."""
        if self._watches.pop(request["watcher"], None) is None:
            raise Refused("not_found", f"watcher with id {str(request['watcher'])[:80]} not found")
        return {}

    def _changes(self, watch: dict[str, Any]) -> list[dict[str, Any]]:
        now = self._shelf.picture(watch["path"], recursive=watch["recursive"])
        events: list[dict[str, Any]] = [dict(event) for event in guest_shelf.changes(watch["seen"], now)]
        watch["seen"] = now
        for event in events if watch["entries"] else ():
            try:
                event["entry"] = self._shelf.entry(os.path.join(watch["path"], event["name"]))
            except OSError:
                continue
        return events

    def _look(self) -> None:
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_SEC
        for watch in self._watches.values():
            if watch["listener"] is not None:
                for event in self._changes(watch):
                    self._say(watch["listener"], event={"filesystem": event})

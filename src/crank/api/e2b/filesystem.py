"""`filesystem.Filesystem`: folders of a sandbox, over Connect."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from crank.api.e2b import connect
from crank.api.e2b.peer import Gate, check_user
from crank.controller.boxes import Box
from crank.domain.json import JsonObject
from crank.errors import InvalidRequest

# The first and the last second that RFC 3339 can write: the years 1 to 9999.
_EARLIEST_SEC = -62_135_596_800
_LATEST_SEC = 253_402_300_799


def routes(gate: Gate) -> list[Route]:
    """Return the routes of the service."""
    unary = {
        "Stat": _stat,
        "ListDir": _list,
        "MakeDir": _make,
        "Move": _move,
        "Remove": _remove,
        "CreateWatcher": _watch,
        "GetWatcherEvents": _watched,
        "RemoveWatcher": _unwatch,
    }
    found = [_unary(gate, f"/filesystem.Filesystem/{name}", answer) for name, answer in unary.items()]

    async def follow(request: Request) -> Response:
        try:
            box = await gate.box(request)
            check_user(request)
        except Exception as fault:  # noqa: BLE001 - told in the protocol's own words
            return connect.refuse_stream(fault)
        return await connect.stream(request, lambda word: _changes(box, word), alive={"keepalive": {}})

    return [*found, Route("/filesystem.Filesystem/WatchDir", follow, methods=["POST"])]


def _unary(gate: Gate, path: str, answer: Callable[[Box, JsonObject], Awaitable[JsonObject]]) -> Route:
    async def serve(request: Request) -> Response:
        async def call(word: JsonObject) -> JsonObject:
            check_user(request)
            return await answer(await gate.box(request), word)

        return await connect.unary(request, call)

    return Route(path, serve, methods=["POST"])


def _path(word: JsonObject, name: str = "path") -> str:
    path = word.get(name, "")
    if not isinstance(path, str) or len(path) > 4096 or "\0" in path:
        raise InvalidRequest(f"{name} is a path of at most 4096 characters.", code="invalid_field", field=name)
    return path or "."


def entry(found: JsonObject) -> JsonObject:
    """Return an entry as Connect writes it: its time in RFC 3339."""
    written = dict(found)
    seconds, nanoseconds = written.pop("modified", (0, 0))
    # A file may claim any time; one that no calendar has must not fail the listing that it is part of.
    within = min(max(int(seconds), _EARLIEST_SEC), _LATEST_SEC)
    moment = datetime.fromtimestamp(within, UTC).isoformat().removesuffix("+00:00")
    return {**written, "modifiedTime": f"{moment}.{int(nanoseconds):09d}Z"}


async def _stat(box: Box, word: JsonObject) -> JsonObject:
    return {"entry": entry((await box.line.ask("stat", path=_path(word)))["entry"])}


async def _list(box: Box, word: JsonObject) -> JsonObject:
    depth = word.get("depth", 1)
    if isinstance(depth, bool) or not isinstance(depth, int) or not 0 <= depth <= 64:
        raise InvalidRequest("depth is a number from 0 to 64.", code="invalid_field", field="depth")
    found = await box.line.ask("folder", path=_path(word), depth=depth)
    return {"entries": [entry(each) for each in found["entries"]]}


async def _make(box: Box, word: JsonObject) -> JsonObject:
    return {"entry": entry((await box.line.ask("make_folder", path=_path(word)))["entry"])}


async def _move(box: Box, word: JsonObject) -> JsonObject:
    found = await box.line.ask("move", source=_path(word, "source"), target=_path(word, "destination"))
    return {"entry": entry(found["entry"])}


async def _remove(box: Box, word: JsonObject) -> JsonObject:
    return await box.line.ask("remove", path=_path(word))


def _wanted(word: JsonObject) -> JsonObject:
    return {
        "path": _path(word),
        "recursive": word.get("recursive") is True,
        "entries": word.get("includeEntry") is True,
    }


async def _watch(box: Box, word: JsonObject) -> JsonObject:
    return await box.line.ask("watch", **_wanted(word))


async def _watched(box: Box, word: JsonObject) -> JsonObject:
    found = await box.line.ask("watched", watcher=str(word.get("watcherId", ""))[:80])
    return {"events": [_event(each) for each in found["events"]]}


async def _unwatch(box: Box, word: JsonObject) -> JsonObject:
    return await box.line.ask("unwatch", watcher=str(word.get("watcherId", ""))[:80])


async def _changes(box: Box, word: JsonObject) -> AsyncIterator[JsonObject]:
    async for event in box.line.stream("watch", stream=True, **_wanted(word)):
        yield {"filesystem": _event(event["filesystem"])} if "filesystem" in event else event


def _event(found: Any) -> JsonObject:
    return {**found, "entry": entry(found["entry"])} if isinstance(found.get("entry"), dict) else dict(found)

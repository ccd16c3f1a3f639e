"""`process.Process`: commands of a sandbox, over Connect."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from crank.api.e2b import connect
from crank.api.e2b.peer import Gate, check_user
from crank.controller.boxes import Box
from crank.domain.json import JsonObject
from crank.domain.rules import e2b as rules
from crank.errors import InvalidRequest, NotSupported

_ALIVE: JsonObject = {"event": {"keepalive": {}}}
_WORDS_MAX = 1_000


def routes(gate: Gate) -> list[Route]:
    """Return the routes of the service."""
    calls = _Calls(gate)
    unary: dict[str, Callable[[Box, JsonObject], Any]] = {
        "List": calls.list,
        "SendSignal": calls.signal,
        "SendInput": calls.input,
        "CloseStdin": calls.close_input,
        "Update": calls.update,
    }
    streams = {"Start": calls.start, "Connect": calls.connect}
    found = [_unary(gate, f"/process.Process/{name}", answer) for name, answer in unary.items()]
    found += [_stream(gate, f"/process.Process/{name}", events) for name, events in streams.items()]
    return [*found, Route("/process.Process/StreamInput", _stream_input(gate), methods=["POST"])]


def _unary(gate: Gate, path: str, answer: Callable[[Box, JsonObject], Any]) -> Route:
    async def serve(request: Request) -> Response:
        async def call(word: JsonObject) -> JsonObject:
            check_user(request)
            found: JsonObject = await answer(await gate.box(request), word)
            return found

        return await connect.unary(request, call)

    return Route(path, serve, methods=["POST"])


def _stream(gate: Gate, path: str, events: Callable[[Box, JsonObject], AsyncIterator[JsonObject]]) -> Route:
    async def serve(request: Request) -> Response:
        try:
            box = await gate.box(request)
            check_user(request)
        except Exception as fault:  # noqa: BLE001 - told in the protocol's own words
            return connect.refuse_stream(fault)
        return await connect.stream(request, lambda word: events(box, word), alive=_ALIVE)

    return Route(path, serve, methods=["POST"])


def _stream_input(gate: Gate) -> Callable[[Request], Any]:
    """Take several pieces of stdin in one request, which is read whole before any of it is written."""

    async def serve(request: Request) -> Response:
        try:
            box = await gate.box(request)
            words = await connect.read_frames(request)
            selector = _selector((words[0].get("start") or {}) if words else {})
            for word in words[1:]:
                if word.get("data") is not None:
                    await box.line.ask("input", process=selector, base64=_octets(word["data"]))
        except Exception as fault:  # noqa: BLE001 - told in the protocol's own words
            return connect.refuse_stream(fault)
        return Response(connect.frame({}) + connect.frame({}, last=True), media_type=connect.STREAM)

    return serve


class _Calls:
    """Each call as a request to the sandbox's steward."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def start(self, box: Box, word: JsonObject) -> AsyncIterator[JsonObject]:
        """Start a command and follow it."""
        if word.get("pty") is not None:
            raise NotSupported("Terminals (pty) are not offered by this node; run commands instead.", field="pty")
        process = _config(word.get("process"))
        tag = word.get("tag")
        if tag is not None and (not isinstance(tag, str) or len(tag) > 256):
            raise InvalidRequest("tag is a text of at most 256 characters.", code="invalid_field", field="tag")
        async for event in box.line.stream("start", process=process, tag=tag, stdin=word.get("stdin", True) is True):
            yield {"event": event}

    async def connect(self, box: Box, word: JsonObject) -> AsyncIterator[JsonObject]:
        """Follow a command that runs."""
        async for event in box.line.stream("connect", process=_selector(word)):
            yield {"event": event}

    async def list(self, box: Box, word: JsonObject) -> JsonObject:
        """Return the commands that run."""
        return await box.line.ask("list")

    async def signal(self, box: Box, word: JsonObject) -> JsonObject:
        """Send a signal."""
        return await box.line.ask("signal", process=_selector(word), signal=str(word.get("signal", ""))[:64])

    async def input(self, box: Box, word: JsonObject) -> JsonObject:
        """Write to stdin."""
        return await box.line.ask("input", process=_selector(word), base64=_octets(word.get("input")))

    async def close_input(self, box: Box, word: JsonObject) -> JsonObject:
        """End stdin."""
        return await box.line.ask("close_input", process=_selector(word))

    async def update(self, box: Box, word: JsonObject) -> JsonObject:
        """Refuse: only terminals have a size."""
        raise NotSupported("Terminals (pty) are not offered by this node; run commands instead.", field="pty")


def _config(given: Any) -> JsonObject:
    if not isinstance(given, dict) or not isinstance(given.get("cmd"), str) or not given["cmd"]:
        raise InvalidRequest("process.cmd is the program to start.", code="invalid_field", field="process.cmd")
    args = given.get("args") or []
    if not isinstance(args, list) or len(args) > _WORDS_MAX or not all(isinstance(each, str) for each in args):
        raise InvalidRequest(
            f"process.args is a list of at most {_WORDS_MAX} texts.", code="invalid_field", field="process.args"
        )
    if any("\0" in each for each in (given["cmd"], *args)):
        raise InvalidRequest("No word of a command holds a NUL.", code="invalid_field", field="process.args")
    cwd = given.get("cwd")
    if cwd is not None and not isinstance(cwd, str):
        raise InvalidRequest("process.cwd is a path.", code="invalid_field", field="process.cwd")
    envs = rules.parse_environment(given.get("envs"), "process.envs")
    return {"cmd": given["cmd"], "args": args, "envs": envs, "cwd": cwd}


def _selector(word: JsonObject) -> JsonObject:
    given = word.get("process")
    if isinstance(given, dict):
        pid, tag = given.get("pid"), given.get("tag")
        if isinstance(pid, int) and not isinstance(pid, bool) and 0 < pid < 2**31:
            return {"pid": pid}
        if isinstance(tag, str) and 0 < len(tag) <= 256:
            return {"tag": tag}
    raise InvalidRequest("process is selected by a pid or a tag.", code="invalid_field", field="process")


def _octets(given: Any) -> str:
    text = given.get("stdin") if isinstance(given, dict) else None
    if isinstance(given, dict) and given.get("pty") is not None:
        raise NotSupported("Terminals (pty) are not offered by this node; write to stdin.", field="input.pty")
    if not isinstance(text, str):
        raise InvalidRequest("input.stdin is bytes in base64.", code="invalid_field", field="input.stdin")
    return text

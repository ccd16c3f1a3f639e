"""The code interpreter: code in contexts, told as lines of JSON while it runs."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from crank.api.e2b import connect, replies
from crank.api.e2b.peer import Gate
from crank.controller.box_call import BoxGone, BoxRefused
from crank.controller.boxes import Box
from crank.domain.json import JsonObject
from crank.domain.quantity import CODE_BYTES_MAX
from crank.domain.rules import e2b as rules
from crank.domain.rules import e2b_result
from crank.errors import CrankError, InvalidRequest, TooLarge

KEEPALIVE_SEC = 5.0


def routes(gate: Gate) -> list[Route]:
    """Return the routes of the code interpreter."""
    calls = _Code(gate)
    return [
        Route("/execute", calls.execute, methods=["POST"]),
        Route("/contexts", calls.make, methods=["POST"]),
        Route("/contexts", calls.list, methods=["GET"]),
        Route("/contexts/{context_id}", calls.remove, methods=["DELETE"]),
        Route("/contexts/{context_id}/restart", calls.restart, methods=["POST"]),
    ]


class _Code:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def _opened(self, request: Request) -> tuple[Box, JsonObject]:
        box = await self._gate.box(request)
        return box, await connect.read_object(request)

    async def execute(self, request: Request) -> Response:
        """Run code. A client that closes the connection interrupts it."""
        try:
            box, fields = await self._opened(request)
            wanted = _wanted(fields)
            events = box.line.stream("execute", **wanted)
            # Waited for, so that a refusal is an answer of its own and not the middle of one.
            first = await anext(events, None)
        except Exception as fault:  # noqa: BLE001 - told in the protocol's own words
            return replies.plain_fault(fault)
        return StreamingResponse(self._lines(events, first), media_type="application/json")

    async def _lines(self, events: AsyncIterator[JsonObject], first: JsonObject | None) -> AsyncIterator[bytes]:
        waiting: asyncio.Future[JsonObject | None] | None = None
        word = first
        try:
            while word is not None:
                at_ns = self._gate.desk.clock.now_us() * 1000
                # A result may be megabytes; everything else is small.
                is_small = word.get("type") != "result"
                line = _told(word, at_ns) if is_small else await asyncio.to_thread(_told, word, at_ns)
                if line:
                    yield line
                waiting = asyncio.ensure_future(anext(events, None))
                while not (await asyncio.wait({waiting}, timeout=KEEPALIVE_SEC))[0]:
                    yield _line({"type": "keepalive"})
                word, waiting = waiting.result(), None
        except (BoxGone, BoxRefused, CrankError) as fault:
            said = replies.GONE if isinstance(fault, BoxGone) else getattr(fault, "message", "")
            yield _line({"type": "error", "name": "SandboxError", "value": said, "traceback": said})
        finally:
            if waiting is not None:
                waiting.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await waiting
            await events.aclose()  # type: ignore[attr-defined]
        yield _line({"type": "end_of_execution"})

    async def make(self, request: Request) -> Response:
        """Make a context."""
        try:
            box, fields = await self._opened(request)
            wanted = {name: _text(fields, name) for name in ("cwd", "language")}
            return JSONResponse(await box.line.ask("context_make", name=self._gate.desk.ids.uuid7(), **wanted))
        except Exception as fault:  # noqa: BLE001 - told in the protocol's own words
            return replies.plain_fault(fault)

    async def list(self, request: Request) -> Response:
        """Return every context."""
        try:
            box = await self._gate.box(request)
            return JSONResponse((await box.line.ask("context_list"))["contexts"])
        except Exception as fault:  # noqa: BLE001 - told in the protocol's own words
            return replies.plain_fault(fault)

    async def remove(self, request: Request) -> Response:
        """End a context."""
        try:
            box = await self._gate.box(request)
            await box.line.ask("context_remove", context=request.path_params["context_id"][:80])
            return Response(status_code=204)
        except Exception as fault:  # noqa: BLE001 - told in the protocol's own words
            return replies.plain_fault(fault)

    async def restart(self, request: Request) -> Response:
        """Give a context a fresh process."""
        try:
            box = await self._gate.box(request)
            return JSONResponse(await box.line.ask("context_restart", context=request.path_params["context_id"][:80]))
        except Exception as fault:  # noqa: BLE001 - told in the protocol's own words
            return replies.plain_fault(fault)


def _wanted(fields: JsonObject) -> JsonObject:
    code = fields.get("code")
    if not isinstance(code, str):
        raise InvalidRequest("code is a text.", code="invalid_field", field="code")
    if len(code.encode("utf-8", "replace")) > CODE_BYTES_MAX:
        raise TooLarge(f"code is at most {CODE_BYTES_MAX} bytes.", code="code_too_large")
    context, language = _text(fields, "context_id"), _text(fields, "language")
    if context is not None and language is not None:
        raise InvalidRequest("Only one of context_id and language is said.", code="invalid_field", field="language")
    environment = rules.parse_environment(fields.get("env_vars"), "env_vars")
    return {"code": code, "context": context, "language": language, "env": environment}


def _text(fields: JsonObject, name: str) -> str | None:
    value = fields.get(name)
    if value is not None and (not isinstance(value, str) or len(value) > 4096):
        raise InvalidRequest(f"{name} is a text.", code="invalid_field", field=name)
    return value


def _told(word: JsonObject, at_ns: int) -> bytes:
    line = e2b_result.event(word, at_ns)
    return b"" if line is None else _line(line)


def _line(word: JsonObject) -> bytes:
    return json.dumps(word, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"

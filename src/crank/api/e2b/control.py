"""Sandboxes: make, find, list, prolong and end them."""

import os
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from crank.api.e2b import connect, replies
from crank.api.e2b.peer import Gate
from crank.controller.box_call import BoxGone, BoxRefused
from crank.controller.boxes import BOX_DISK_BYTES, BOX_MEMORY_BYTES, Box, Owner
from crank.controller.views import moment
from crank.domain.json import JsonObject
from crank.domain.quantity import MIB
from crank.domain.rules import e2b as rules
from crank.errors import CrankError, InvalidRequest, NotFound, ProtocolError

_NEXT = "x-next-token"
_SAFE = re.compile(r"[\x20-\x7e]*")
Answer = Callable[[Request, Owner], Awaitable[Response]]


def routes(gate: Gate) -> list[Route]:
    """Return the routes of the control plane."""
    calls = _Control(gate)
    table: list[tuple[str, str, Answer]] = [
        ("POST", "/sandboxes", calls.create),
        ("POST", "/v2/sandboxes", calls.create),
        ("GET", "/sandboxes", calls.listing),
        ("GET", "/v2/sandboxes", calls.listing),
        ("GET", "/sandboxes/metrics", calls.all_metrics),
        ("GET", "/sandboxes/{sandbox_id}", calls.detail),
        ("DELETE", "/sandboxes/{sandbox_id}", calls.kill),
        ("POST", "/sandboxes/{sandbox_id}/timeout", calls.timeout),
        ("POST", "/sandboxes/{sandbox_id}/refreshes", calls.refresh),
        ("POST", "/sandboxes/{sandbox_id}/connect", calls.connect),
        ("POST", "/v2/sandboxes/{sandbox_id}/connect", calls.connect),
        ("POST", "/sandboxes/{sandbox_id}/resume", calls.connect),
        ("GET", "/sandboxes/{sandbox_id}/metrics", calls.metrics),
        ("GET", "/sandboxes/{sandbox_id}/logs", calls.logs),
        ("GET", "/v2/sandboxes/{sandbox_id}/logs", calls.logs),
        ("GET", "/templates", calls.templates),
    ]
    return [Route(path, _guarded(gate, answer), methods=[method]) for method, path, answer in table]


def not_offered(gate: Gate) -> list[Route]:
    """Return the routes that say, to whom is let in, that something is not offered."""
    every = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    table = [
        ("/sandboxes/{sandbox_id}/pause", "Pausing a sandbox"),
        ("/sandboxes/{sandbox_id}/snapshots", "A snapshot of a sandbox"),
        ("/sandboxes/{sandbox_id}/fork", "Forking a sandbox"),
        ("/sandboxes/{sandbox_id}/network", "A network for a sandbox"),
        ("/snapshots{rest:path}", "A snapshot of a sandbox"),
        ("/templates{rest:path}", "Building a template (this node's are fixed)"),
        ("/v2/templates{rest:path}", "Building a template (this node's are fixed)"),
        ("/v3/templates{rest:path}", "Building a template (this node's are fixed)"),
        ("/volumes{rest:path}", "A volume"),
        ("/secrets{rest:path}", "A store of secrets"),
        ("/teams{rest:path}", "A team"),
        ("/api-keys{rest:path}", "Making keys over this protocol ('crank key' makes them)"),
    ]

    def answer(what: str) -> Answer:
        async def refuse(_: Request, __: Owner) -> Response:
            return replies.plain(501, f"{what} is not offered by this node.")

        return refuse

    return [Route(path, _guarded(gate, answer(what)), methods=every) for path, what in table]


def _guarded(gate: Gate, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        try:
            return await answer(request, await gate.owner(request))
        except CrankError as fault:
            return replies.control_fault(fault)
        except (BoxGone, BoxRefused):
            # It ended while it was asked.
            return replies.control_fault(NotFound("The sandbox was not found.", code="sandbox_not_found"))

    return serve


class _Control:
    def __init__(self, gate: Gate) -> None:
        self._boxes = gate.boxes
        self._desk = gate.desk

    async def _found(self, request: Request, owner: Owner) -> Box:
        return await self._boxes.find(request.path_params["sandbox_id"], owner)

    async def create(self, request: Request, owner: Owner) -> Response:
        """Make a sandbox."""
        draft = rules.parse_sandbox(await connect.read_object(request))
        return JSONResponse(_opened(await self._boxes.open(owner, draft)), 201)

    async def listing(self, request: Request, owner: Owner) -> Response:
        """Return a page of the key's own sandboxes."""
        query = request.query_params
        limit, after = rules.parse_page(query.get("limit"), query.get("nextToken"))
        wanted = [(unquote(name), unquote(text)) for name, text in parse_qsl(query.get("metadata", ""))]
        states = [part for each in query.getlist("state") for part in each.split(",") if part]
        found = [box for box in await self._boxes.listing(owner) if rules.matches(box.metadata, wanted)]
        if states and "running" not in states:
            found = []
        if query.get("template"):
            found = [box for box in found if query["template"] in (box.template, rules.CAPABILITY)]
        if query.get("order", "desc") != "asc":
            found.reverse()
        page = found[after : after + limit]
        headers = {_NEXT: rules.page_token(after + limit)} if len(found) > after + limit else {}
        return JSONResponse([_detail(box) for box in page], headers=headers)

    async def detail(self, request: Request, owner: Owner) -> Response:
        """Return one sandbox."""
        box = await self._found(request, owner)
        return JSONResponse({**_detail(box), "envdAccessToken": box.token, "domain": None})

    async def kill(self, request: Request, owner: Owner) -> Response:
        """End a sandbox."""
        await self._boxes.kill(await self._found(request, owner))
        return Response(status_code=204)

    async def timeout(self, request: Request, owner: Owner) -> Response:
        """Let a sandbox live for so long from now."""
        box = await self._found(request, owner)
        fields = await connect.read_object(request)
        if fields.get("timeout") is None:
            raise InvalidRequest("timeout is missing.", code="invalid_field", field="timeout")
        await self._boxes.set_timeout(box, rules.parse_timeout(fields["timeout"]))
        return Response(status_code=204)

    async def refresh(self, request: Request, owner: Owner) -> Response:
        """Let a sandbox live for so long from now, and no shorter than it would have."""
        box = await self._found(request, owner)
        fields = await connect.read_object(request)
        await self._boxes.set_timeout(box, rules.parse_timeout(fields.get("duration"), 15.0), extend_only=True)
        return Response(status_code=204)

    async def connect(self, request: Request, owner: Owner) -> Response:
        """Return a running sandbox to a client that knows its id."""
        box = await self._found(request, owner)
        fields = await connect.read_object(request)
        await self._boxes.set_timeout(box, rules.parse_timeout(fields.get("timeout")), extend_only=True)
        return JSONResponse(_opened(box))

    async def metrics(self, request: Request, owner: Owner) -> Response:
        """Return what a sandbox uses now."""
        return JSONResponse([await self._measured(await self._found(request, owner))])

    async def all_metrics(self, request: Request, owner: Owner) -> Response:
        """Return what several sandboxes use now, by id."""
        wanted = [part for each in request.query_params.getlist("sandbox_ids") for part in each.split(",") if part]
        boxes = [box for box in await self._boxes.listing(owner) if box.sandbox_id in wanted[: rules.PAGE_ENTRIES_MAX]]
        return JSONResponse({"sandboxes": {box.sandbox_id: await self._measured(box) for box in boxes}})

    async def _measured(self, box: Box) -> JsonObject:
        found = _numbers(await box.line.ask("measure"))
        now_us = self._desk.clock.now_us()
        lived_sec = max(0.001, (now_us - box.session.created_us) / 1_000_000)
        return {
            "timestamp": moment(now_us),
            "timestampUnix": now_us // 1_000_000,
            "cpuCount": _cpus(),
            "cpuUsedPct": round(100 * found["cpu_sec"] / lived_sec / _cpus(), 2),
            "memUsed": int(found["memory_used"]),
            "memTotal": BOX_MEMORY_BYTES,
            "memCache": 0,
            "diskUsed": int(found["disk_used"]),
            "diskTotal": int(found["disk_total"]),
        }

    async def logs(self, request: Request, owner: Owner) -> Response:
        """Return no lines: what a sandbox prints goes to whoever runs it, and is kept with its jobs."""
        await self._found(request, owner)
        return JSONResponse({"logs": [], "logEntries": []})

    async def templates(self, request: Request, owner: Owner) -> Response:
        """Return what a sandbox may be made of; all names mean the same environment."""
        return JSONResponse([_template(name) for name in rules.TEMPLATES])


def _numbers(found: JsonObject) -> dict[str, float]:
    """Read what a sandbox says that it uses. Raises ProtocolError: its own code can make it say anything."""
    told = {name: found.get(name) for name in ("cpu_sec", "memory_used", "disk_used", "disk_total")}
    numbers = {name: value for name, value in told.items() if isinstance(value, int | float) and 0 <= value < 2**63}
    if len(numbers) < len(told):
        raise ProtocolError("A sandbox measured itself in something else than numbers.")
    return numbers


def _cpus() -> int:
    return os.cpu_count() or 1


def _opened(box: Box) -> JsonObject:
    return {
        "sandboxID": box.sandbox_id,
        "templateID": box.template,
        "alias": box.template,
        "clientID": "crank",
        "envdVersion": rules.ENVD_VERSION,
        "envdAccessToken": box.token,
        "trafficAccessToken": box.token,
        "domain": None,
    }


def _detail(box: Box) -> JsonObject:
    return {
        "sandboxID": box.sandbox_id,
        "templateID": box.template,
        "alias": box.template,
        "clientID": "crank",
        "startedAt": moment(box.session.created_us),
        "endAt": moment(box.ends_us),
        "cpuCount": _cpus(),
        "memoryMB": BOX_MEMORY_BYTES // MIB,
        "diskSizeMB": BOX_DISK_BYTES // MIB,
        "state": "running",
        "envdVersion": rules.ENVD_VERSION,
        "metadata": dict(box.metadata),
        "allowInternetAccess": False,
    }


def _template(name: str) -> JsonObject:
    found: dict[str, Any] = {"templateID": name, "buildID": rules.CAPABILITY, "public": True, "aliases": [name]}
    room = {"memoryMB": BOX_MEMORY_BYTES // MIB, "diskSizeMB": BOX_DISK_BYTES // MIB}
    return {**found, **room, "names": [name], "cpuCount": _cpus()}

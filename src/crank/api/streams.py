"""A job's events as they happen (Server-Sent Events), from any position."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated

import structlog
from fastapi import APIRouter, Header, Query, Request, Security
from starlette.responses import Response, StreamingResponse

from crank.api.documents import desk_of, refusals
from crank.api.peer import Caller, bearer
from crank.api.problem import problem_body, status_of
from crank.api.rest import JobPath
from crank.api.strict import StrictRoute
from crank.controller import follow, views
from crank.domain.ids import parse_job_id
from crank.domain.json import JsonObject, dumps
from crank.errors import CrankError, InvalidRequest

HEARTBEAT_SEC = 15.0
POSITION_MAX = 2**53 - 1
Event = tuple[int, str, JsonObject]
_log = structlog.get_logger(__name__)
router = APIRouter(route_class=StrictRoute, tags=["jobs"])


class EventStream(StreamingResponse):
    """A response whose media type the document and the check of Accept can see."""

    media_type = "text/event-stream"


@router.get(
    "/v1/jobs/{job_id}/events",
    operation_id="follow_job",
    summary="Follow a job",
    response_class=EventStream,
    responses={
        200: {
            "description": "Events `status`, `stdout`, `stderr`, `progress` and at last `end`; `id` is the position.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **refusals(404, 406),
    },
)
async def follow_job(
    request: Request,
    job_id: JobPath,
    caller: Annotated[Caller, Security(bearer)],
    after: Annotated[int, Query(ge=0, le=POSITION_MAX, description="Begin after this position.")] = 0,
    last_event_id: Annotated[str | None, Header(description="The last position seen; wins over `after`.")] = None,
) -> Response:
    """Stream what the job prints and tells, and its end."""
    desk = desk_of(request)
    wanted = parse_job_id(job_id)
    position = after if last_event_id is None else _position(last_event_id)
    await views.find_job(desk, tenant=caller.tenant, job_id=wanted)
    source = follow.events(desk, tenant=caller.tenant, job_id=wanted, after=position)
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff", "x-accel-buffering": "no"}
    return EventStream(frames(source, heartbeat_sec=HEARTBEAT_SEC), headers=headers)


def _position(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= POSITION_MAX):
        raise InvalidRequest(
            "Last-Event-ID is a position that this stream gave.", code="invalid_field", field="last-event-id"
        )
    return int(text)


async def frames(source: AsyncIterator[Event], *, heartbeat_sec: float) -> AsyncGenerator[bytes, None]:
    """Write events as the HTML standard's event stream, with a comment when nothing happens for a while."""
    coming: asyncio.Future[Event | None] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(_next(source))
            done, _ = await asyncio.wait({coming}, timeout=heartbeat_sec)
            if not done:
                yield b": still here\n\n"
                continue
            event = coming.result()
            coming = None
            if event is None:
                return
            yield _frame(*event)
    except CrankError as fault:
        # The status line is long gone; the stream itself says why it ends.
        _log.warning("stream_ended", code=fault.error_code, detail=fault.detail)
        yield b"event: error\ndata: " + dumps(problem_body(fault, status_of(fault))).encode() + b"\n\n"
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)


async def _next(source: AsyncIterator[Event]) -> Event | None:
    return await anext(source, None)


def _frame(position: int, kind: str, body: JsonObject) -> bytes:
    # JSON escapes every line end, so one line of data is enough.
    return f"id: {position}\nevent: {kind}\ndata: {dumps(body)}\n\n".encode()

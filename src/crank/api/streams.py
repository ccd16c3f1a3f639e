"""A job's output and progress, live and resumable (server-sent events, WHATWG HTML section 9.2)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import StreamingResponse

from crank.api.models import problems
from crank.api.peer import desk_of
from crank.api.rest import JobIdPath, Proven, parse_position
from crank.controller import follow, views
from crank.domain.ids import JobId
from crank.domain.json import JsonObject, dumps

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
# Shorter than the idle limits of common proxies.
HEARTBEAT_SEC = 15.0


@router.get(
    "/{job_id}/events",
    operation_id="followJob",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Events `status`, `stdout`, `stderr`, `progress` and at last `end`; `id` is a position.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems(401, 404, 422),
    },
)
async def follow_job(
    request: Request,
    job_id: JobIdPath,
    caller: Proven,
    after: Annotated[str | None, Query(description="Start after this position.")] = None,
    last_event_id: Annotated[str | None, Header(description="As `after`; sent by browsers that reconnect.")] = None,
) -> StreamingResponse:
    """Stream events from a position on until the job ends."""
    desk = desk_of(request)
    start = parse_position(after if after is not None else last_event_id)
    # Asked here, so that an unknown job is a problem document and not a broken stream.
    await views.find_job(desk, tenant=caller.tenant, job_id=JobId(job_id))
    source = follow.events(desk, tenant=caller.tenant, job_id=JobId(job_id), after=start)
    return StreamingResponse(
        _frames(source), media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


async def _frames(source: AsyncIterator[tuple[int, str, JsonObject]]) -> AsyncIterator[str]:
    following = asyncio.ensure_future(anext(source, None))
    try:
        while True:
            done, _ = await asyncio.wait({following}, timeout=HEARTBEAT_SEC)
            if not done:
                yield ": still here\n\n"
                continue
            found = following.result()
            if found is None:
                return
            position, kind, body = found
            yield f"id: {position}\nevent: {kind}\ndata: {dumps(body)}\n\n"
            following = asyncio.ensure_future(anext(source, None))
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await following

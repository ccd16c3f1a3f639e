"""Attend: wait for a job's end as long as a caller may be kept, and tell how it goes meanwhile."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from crank.controller.desk import Desk
from crank.controller.views import find_job
from crank.domain.ids import JobId, TenantId
from crank.domain.job import Job, Status
from crank.domain.rules.excerpt import last_line
from crank.wire import JobEvent

# What follows a call learns at least every two seconds that it lives.
BEAT_SEC = 1.5
_PAGE_EVENTS = 500

# Seconds since the wait began, and a sentence.
Tell: TypeAlias = Callable[[float, str], Awaitable[None]]


async def attend(desk: Desk, *, tenant: TenantId, job_id: JobId, until_sec: float, tell: Tell) -> Job:
    """Return the job when it has ended, or as it stands at `until_sec` of the monotonic clock. Raises NotFound."""
    begun_sec = desk.clock.monotonic_sec()
    beat_sec = begun_sec + BEAT_SEC
    position = 0
    with desk.watch.on(tenant, job_id) as changed:
        while True:
            changed.clear()
            job = await find_job(desk, tenant=tenant, job_id=job_id)
            now_sec = desk.clock.monotonic_sec()
            if job.ended or now_sec >= until_sec:
                return job
            if now_sec >= beat_sec:
                beat_sec = now_sec + BEAT_SEC
                position, news = await _news(desk, job_id, position)
                await tell(now_sec - begun_sec, _sentence(job.status, news))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(until_sec, beat_sec) - now_sec)):
                    await changed.wait()


async def _news(desk: Desk, job_id: JobId, position: int) -> tuple[int, list[JobEvent]]:
    """Return what was printed and told since a position; only the last page of it matters."""
    news: list[JobEvent] = []
    while page := await desk.streams.read(job_id, position, _PAGE_EVENTS):
        position, news = page[-1][0], [event for _, event in page]
    return position, news


def _sentence(status: Status, news: list[JobEvent]) -> str:
    told = next((event for event in reversed(news) if event.kind == "progress"), None)
    if told is not None:
        share = "" if told.fraction is None else f"{told.fraction:.0%} "
        return f"{status}: {share}{last_line([told.text])}".rstrip()
    line = last_line([event.text for event in news])
    return f"{status}: {line}" if line else str(status)

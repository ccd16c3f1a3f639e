"""Follow: wait for a job's end, or watch it live from any position."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from crank.controller.desk import Desk
from crank.controller.views import job_document
from crank.domain.ids import JobId, TenantId
from crank.domain.job import Job, Status
from crank.domain.json import JsonObject
from crank.errors import NotFound
from crank.wire import JobEvent

_PAGE_EVENTS = 500
# Changes wake a follower at once; this only bounds what a missed one could cost.
_LOOK_AGAIN_SEC = 10.0


async def _find(desk: Desk, tenant: TenantId, job_id: JobId) -> Job:
    job = await desk.store.read(lambda tx: tx.jobs.find(tenant, job_id))
    if job is None:
        raise NotFound(f"There is no job {job_id[:128]!r}.", code="job_not_found", field="job_id")
    return job


async def wait_ended(desk: Desk, *, tenant: TenantId, job_id: JobId, timeout_sec: float) -> Job:
    """Return the job when it has ended, or as it stands when the time is over. Raises NotFound."""
    deadline_sec = desk.clock.monotonic_sec() + timeout_sec
    with desk.watch.on(tenant, job_id, ends=True) as changed:
        while True:
            changed.clear()
            job = await _find(desk, tenant, job_id)
            left_sec = deadline_sec - desk.clock.monotonic_sec()
            if job.ended or left_sec <= 0:
                return job
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_sec, _LOOK_AGAIN_SEC)):
                    await changed.wait()


async def events(
    desk: Desk, *, tenant: TenantId, job_id: JobId, after: int
) -> AsyncIterator[tuple[int, str, JsonObject]]:
    """Yield (position, kind, body) from a position on, live, and `end` with the job's document at last.

    Kinds: `status` (its position is that of the event before it), `stdout`, `stderr`, `progress`, `end`.
    Raises NotFound.
    """
    position = after
    told: Status | None = None
    with desk.watch.on(tenant, job_id) as changed:
        while True:
            changed.clear()
            # The job is read before its stream: what it printed is stored before its end is.
            job = await _find(desk, tenant, job_id)
            page = await desk.streams.read(job_id, position, _PAGE_EVENTS)
            if job.status is not told:
                told = job.status
                yield position, "status", {"status": str(job.status), "attempts": job.attempts}
            for position, event in page:
                yield position, event.kind, _body(event)
            if page:
                # There may be more. Before that the job is asked for again: whoever follows may have lost the right to.
                continue
            if job.ended:
                yield position + 1, "end", await job_document(desk, tenant=tenant, job_id=job_id)
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN_SEC):
                    await changed.wait()


def _body(event: JobEvent) -> JsonObject:
    if event.kind == "progress":
        return {"fraction": event.fraction, "message": event.text, "at_ms": event.at_ms, "attempt": event.epoch}
    return {"text": event.text, "offset_bytes": event.offset_bytes, "at_ms": event.at_ms, "attempt": event.epoch}

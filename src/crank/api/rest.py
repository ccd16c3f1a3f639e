"""Jobs over HTTP."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from starlette.responses import JSONResponse

from crank.api.models import JobBody, JobsPage, JobView, problems
from crank.api.peer import Caller, desk_of, prove_caller
from crank.api.strict import StrictRoute
from crank.controller import cancel as cancelling
from crank.controller import follow, views
from crank.controller.submit import Submission, claim, submit
from crank.domain.ids import JobId, parse_job_id
from crank.domain.job import Status
from crank.domain.quantity import WAIT_SEC_MAX
from crank.errors import InvalidRequest

router = APIRouter(prefix="/v1/jobs", route_class=StrictRoute, tags=["jobs"])
Proven = Annotated[Caller, Depends(prove_caller)]
_WAIT = re.compile(r"(?:^|[,;]\s*)wait\s*=\s*\"?(\d{1,9})\"?", re.IGNORECASE)
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
JobIdPath = Annotated[str, Path(max_length=128, description="The job's id.")]


def wait_preferred_sec(header: str | None) -> float:
    """Return the wait of a Prefer header (RFC 7240), lowered to what the node allows; 0 without one."""
    found = _WAIT.search(header or "")
    return min(float(found.group(1)), WAIT_SEC_MAX) if found else 0.0


@router.post(
    "",
    operation_id="submitJob",
    summary="Submit a job",
    response_model=JobView,
    responses={
        200: {"description": "The job has ended.", "model": JobView},
        202: {"description": "The job was accepted and has not ended.", "model": JobView},
        **problems(400, 401, 403, 409, 413, 415, 422, 503),
    },
)
async def submit_job(
    request: Request,
    body: JobBody,
    caller: Proven,
    prefer: Annotated[str | None, Header(description="`wait=N`: hold the answer for up to N ≤ 40 s.")] = None,
    idempotency_key: Annotated[str | None, Header(description="Repeat a request safely within an hour.")] = None,
    traceparent: Annotated[str | None, Header(description="W3C trace context.")] = None,
) -> Response:
    """Accept a job once, and wait for its end if the caller prefers."""
    desk = desk_of(request)
    trace = traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None
    submission = Submission(body.model_dump(exclude_unset=True), idempotency_key, trace)
    wait_sec = wait_preferred_sec(prefer)
    with claim(desk, tenant=caller.tenant, submission=submission):
        submitted = await submit(desk, tenant=caller.tenant, subject=caller.subject, submission=submission)
        job = submitted.job
        if wait_sec and not job.ended:
            job = await follow.wait_ended(desk, tenant=caller.tenant, job_id=job.job_id, timeout_sec=wait_sec)
        document = await views.job_document(desk, tenant=caller.tenant, job_id=job.job_id)
    headers = {"Location": f"/v1/jobs/{job.job_id}"}
    if wait_sec:
        headers["Preference-Applied"] = f"wait={wait_sec:g}"
    if submitted.replayed:
        headers["Idempotency-Replayed"] = "true"
    return JSONResponse(document, status_code=200 if document["end"] else 202, headers=headers)


@router.get(
    "", operation_id="listJobs", summary="List jobs, newest first", response_model=JobsPage, responses=problems(401, 422)
)
async def list_jobs(
    request: Request,
    caller: Proven,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[str | None, Query(description="The `next` of the page before.")] = None,
    status: Annotated[Status | None, Query()] = None,
) -> Any:
    """Return a page of jobs without their output."""
    cursor = None if before is None else parse_job_id(before, field="before")
    return await views.jobs_page(desk_of(request), tenant=caller.tenant, limit=limit, before=cursor, status=status)


@router.get(
    "/{job_id}",
    operation_id="getJob",
    summary="Read a job",
    response_model=JobView,
    responses=problems(401, 404, 422),
)
async def get_job(
    request: Request,
    job_id: JobIdPath,
    caller: Proven,
    prefer: Annotated[str | None, Header(description="`wait=N`: hold the answer until the end, up to 40 s.")] = None,
) -> Any:
    """Return a job, after its end if the caller prefers to wait."""
    desk = desk_of(request)
    wait_sec = wait_preferred_sec(prefer)
    if wait_sec:
        await follow.wait_ended(desk, tenant=caller.tenant, job_id=JobId(job_id), timeout_sec=wait_sec)
    return await views.job_document(desk, tenant=caller.tenant, job_id=JobId(job_id))


@router.post(
    "/{job_id}/cancel",
    operation_id="cancelJob",
    summary="Cancel a job",
    response_model=JobView,
    responses=problems(401, 404, 422, 503),
)
async def cancel_job(request: Request, job_id: JobIdPath, caller: Proven) -> Any:
    """End a job early; one that has ended stays as it is."""
    desk = desk_of(request)
    await cancelling.cancel(desk, tenant=caller.tenant, subject=caller.subject, job_id=JobId(job_id))
    return await views.job_document(desk, tenant=caller.tenant, job_id=JobId(job_id))


def parse_position(text: str | None) -> int:
    """Read a position in a job's stream. Raises InvalidRequest."""
    if text is None or text == "":
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise InvalidRequest("A position is a number that the node gave as an id.", code="invalid_field", field="after")
    return int(text)

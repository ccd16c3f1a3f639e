"""Jobs over HTTP: submit, look, wait, cancel."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Security
from starlette.responses import JSONResponse, Response

from crank.api.documents import BODY, answer, desk_of, header, refusals
from crank.api.models import JobDocument, JobsPage
from crank.api.peer import Caller, bearer
from crank.api.prefer import traceparent, wait_sec
from crank.api.strict import StrictRoute
from crank.api.wanted import JobWanted
from crank.controller import cancel as cancelling
from crank.controller import follow, views
from crank.controller.submit import Submission, claim, submit
from crank.domain.ids import JobId, parse_job_id
from crank.domain.job import Status

router = APIRouter(route_class=StrictRoute, tags=["jobs"])
From = Annotated[Caller, Security(bearer)]
JobPath = Annotated[str, Path(description="The job's id.")]

_LOCATION = {"Location": header("Where the job is.")}
_REPLAYED = {
    "Idempotency-Replayed": header("true when this is the answer to an earlier, equal request."),
    "Preference-Applied": header("wait=N as it was honoured."),
}


@router.post(
    "/v1/jobs",
    operation_id="submit_job",
    summary="Submit a job",
    response_class=JSONResponse,
    responses={
        200: {"model": JobDocument, "description": "It has ended.", "headers": {**_LOCATION, **_REPLAYED}},
        202: {"model": JobDocument, "description": "It was accepted.", "headers": {**_LOCATION, **_REPLAYED}},
        **refusals(*BODY, 403, 404, 406, 409),
    },
)
async def submit_job(
    request: Request,
    wanted: JobWanted,
    caller: From,
    idempotency_key: Annotated[str | None, Header(description="Replays the answer for one hour.")] = None,
    prefer: Annotated[list[str] | None, Header(description="wait=N: hold the answer for at most N ≤ 40 s.")] = None,
) -> Response:
    """Accept a job once, and wait for its end as long as the caller prefers."""
    desk = desk_of(request)
    submission = Submission(
        fields=await request.json(),
        idempotency_key=idempotency_key,
        traceparent=traceparent(request.headers.get("traceparent")),
    )
    wait = wait_sec(prefer or [])
    with claim(desk, tenant=caller.tenant, submission=submission):
        submitted = await submit(desk, tenant=caller.tenant, subject=caller.subject, submission=submission)
        job_id = submitted.job.job_id
        if wait and not submitted.job.ended:
            await wait_for_end(request, caller, job_id, wait)
        document = await views.job_document(desk, tenant=caller.tenant, job_id=job_id)
        headers = {"location": f"/v1/jobs/{job_id}"}
        if submitted.replayed:
            headers["idempotency-replayed"] = "true"
        if wait is not None:
            headers["preference-applied"] = f"wait={wait}"
        return answer(document, 200 if document["end"] is not None else 202, headers)


async def wait_for_end(request: Request, caller: Caller, job_id: JobId, timeout_sec: float) -> None:
    """Wait for the end, or until the caller hangs up: its key must be free for its next try."""
    ended = asyncio.ensure_future(
        follow.wait_ended(desk_of(request), tenant=caller.tenant, job_id=job_id, timeout_sec=timeout_sec)
    )
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()
    finally:
        for waiting in (ended, gone):
            waiting.cancel()
        await asyncio.gather(ended, gone, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@router.get(
    "/v1/jobs",
    operation_id="list_jobs",
    summary="List jobs, newest first",
    response_class=JSONResponse,
    responses={200: {"model": JobsPage}, **refusals(406)},
)
async def list_jobs(
    request: Request,
    caller: From,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[str | None, Query(description="`next` of the page before.")] = None,
    status: Annotated[Status | None, Query()] = None,
) -> Response:
    """Return a page of jobs without their output."""
    cursor = None if before is None else parse_job_id(before, field="before")
    page = await views.jobs_page(desk_of(request), tenant=caller.tenant, limit=limit, before=cursor, status=status)
    return answer(page)


@router.get(
    "/v1/jobs/{job_id}",
    operation_id="get_job",
    summary="Read a job",
    response_class=JSONResponse,
    responses={
        200: {"model": JobDocument, "headers": {"Preference-Applied": _REPLAYED["Preference-Applied"]}},
        **refusals(404, 406),
    },
)
async def get_job(
    request: Request,
    job_id: JobPath,
    caller: From,
    prefer: Annotated[list[str] | None, Header(description="wait=N: hold the answer until the end.")] = None,
) -> Response:
    """Return the job, after waiting for its end as long as the caller prefers."""
    wanted = parse_job_id(job_id)
    wait = wait_sec(prefer or [])
    if wait:
        await wait_for_end(request, caller, wanted, wait)
    document = await views.job_document(desk_of(request), tenant=caller.tenant, job_id=wanted)
    return answer(document, headers={} if wait is None else {"preference-applied": f"wait={wait}"})


@router.post(
    "/v1/jobs/{job_id}/cancel",
    operation_id="cancel_job",
    summary="Cancel a job",
    response_class=JSONResponse,
    responses={200: {"model": JobDocument}, **refusals(404, 406)},
)
async def cancel_job(request: Request, job_id: JobPath, caller: From) -> Response:
    """Ask for the end of a job; one that has ended stays as it is."""
    desk = desk_of(request)
    wanted = parse_job_id(job_id)
    await cancelling.cancel(desk, tenant=caller.tenant, subject=caller.subject, job_id=wanted)
    return answer(await views.job_document(desk, tenant=caller.tenant, job_id=wanted))

"""`crank job …`: look at jobs and act on them."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from crank.cli.exit_codes import ExitCode, of_status
from crank.cli.job_view import end_sentence, job_object, tell_job
from crank.cli.live import LiveView
from crank.cli.out_folder import new_file
from crank.cli.reach import ask
from crank.cli.show import print_json, print_rows, say, size_text
from crank.client import AsyncClient, JobResult, Page

Json = Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)]
# Without --follow: a stream that is silent this long has told all; and no stream is read longer than that.
_PAUSE_SEC = 0.5
_SO_FAR_SEC = 3.0
JobId = Annotated[str, Parameter(help="The job's id.")]


def list_jobs(
    *,
    limit: Annotated[int, Parameter(help="How many at most, 1 to 200.")] = 20,
    before: Annotated[str | None, Parameter(help="Cursor of the next page, as the last one gave it.")] = None,
    status: Annotated[str | None, Parameter(help="Only jobs that stand so.")] = None,
    json: Json = False,
) -> int:
    """List jobs, newest first."""

    async def listing(client: AsyncClient) -> Page:
        return await client.list(limit=limit, before=before, status=status)

    page = ask(listing)
    if json:
        print_json({"jobs": [job.document for job in page.jobs], "next": page.next})
        return ExitCode.OK
    heads = ["JOB", "STATUS", "CAPABILITY", "SUBMITTED", "WORKER"]
    rows = [[job.job_id, job.status, job.capability, job.submitted_at, job.worker_id] for job in page.jobs]
    if any(job.called_by for job in page.jobs):
        heads.append("CALLED BY")
        for row, job in zip(rows, page.jobs, strict=True):
            row.append(job.called_by["job_id"] if job.called_by else None)
    print_rows(heads, rows)
    if page.next:
        say(f"more: crank job list --before {page.next}")
    return ExitCode.OK


def show(job_id: JobId, /, *, json: Json = False) -> int:
    """Show one job."""

    async def getting(client: AsyncClient) -> JobResult:
        return await client.get(job_id)

    job = ask(getting)
    if json:
        print_json(job.document)
    else:
        tell_job(job)
    return ExitCode.OK


def logs(
    job_id: JobId,
    /,
    *,
    follow: Annotated[
        bool, Parameter(name=("--follow", "-f"), help="Go on until the job ends.", negative=(), show_default=False)
    ] = False,
    after: Annotated[int, Parameter(help="Begin after this event.")] = 0,
    json: Annotated[bool, Parameter(help="Print one JSON object an event.", negative=(), show_default=False)] = False,
) -> int:
    """Print what a job printed: its stdout to stdout, its stderr to stderr."""

    async def reading(client: AsyncClient) -> JobResult:
        job = await client.get(job_id)
        view = LiveView(quiet=False)
        # A running job's stream never ends by itself; without --follow we leave at its first pause.
        pause_sec = None if follow or job.ended else _PAUSE_SEC
        until_sec = None if pause_sec is None else asyncio.get_running_loop().time() + _SO_FAR_SEC
        try:
            async with asyncio.timeout_at(until_sec), aclosing(client.events(job_id, after=after)) as events:
                while (event := await asyncio.wait_for(anext(events, None), pause_sec)) is not None:
                    if json:
                        print_json({"position": event.position, "event": event.kind, "data": event.body})
                    else:
                        view.show(event)
        except TimeoutError:
            say(end_sentence(job))
        finally:
            view.close()
        return await client.get(job_id)

    job = ask(reading)
    return of_status(job.status) if follow else ExitCode.OK


def wait(
    job_id: JobId,
    /,
    *,
    timeout: Annotated[float | None, Parameter(help="Give up after so many seconds; the job goes on.")] = None,
    json: Json = False,
) -> int:
    """Wait until a job has ended, show it, and exit as `crank run` would."""

    async def waiting(client: AsyncClient) -> JobResult:
        return await client.wait(job_id, timeout_sec=timeout)

    try:
        job = ask(waiting)
    except TimeoutError:
        say(f"job {job_id} has not ended within {timeout:g} s; it goes on")
        return ExitCode.TIMED_OUT
    if json:
        print_json(job_object(job))
    else:
        say(end_sentence(job))
    return of_status(job.status)


def cancel(job_id: JobId, /, *, json: Json = False) -> int:
    """Ask for the end of a job. Doing it twice changes nothing."""

    async def cancelling(client: AsyncClient) -> JobResult:
        return await client.cancel(job_id)

    job = ask(cancelling)
    if json:
        print_json(job.document)
    else:
        say(end_sentence(job) if job.ended else f"job {job.job_id} will be cancelled")
    return ExitCode.OK


def interrupt(job_id: JobId, /, *, json: Json = False) -> int:
    """Interrupt a running job's code: KeyboardInterrupt. A session that it runs in keeps its state."""

    async def interrupting(client: AsyncClient) -> JobResult:
        return await client.interrupt(job_id)

    job = ask(interrupting)
    if json:
        print_json(job.document)
    else:
        say(f"job {job.job_id} was interrupted")
    return ExitCode.OK


def fetch(
    job_id: JobId,
    /,
    *,
    out: Annotated[Path, Parameter(help="Folder to put the files in.")],
    json: Json = False,
) -> int:
    """Download the files that a job left."""

    async def fetching(client: AsyncClient) -> JobResult:
        job = await client.get(job_id)
        for artifact in job.artifacts:
            with new_file(out, artifact.path) as target:
                await client.download(job_id, artifact, target)
        return job

    job = ask(fetching)
    if json:
        print_json({"job_id": job_id, "out": str(out.absolute()), "artifacts": job.document.get("artifacts", [])})
    else:
        for artifact in job.artifacts:
            print(f"{size_text(artifact.size_bytes):>10}  {artifact.path}")
    return ExitCode.OK

"""What the node knows: workers, capabilities, records, mounts, health."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.responses import JSONResponse, PlainTextResponse

from crank.api import models
from crank.api.models import problems
from crank.api.peer import desk_of
from crank.api.rest import Proven
from crank.api.strict import StrictRoute
from crank.controller import mounts, views
from crank.domain.ids import MountId, parse_job_id
from crank.domain.job import Mount

router = APIRouter(route_class=StrictRoute, tags=["node"])


def _mount_document(mount: Mount) -> dict[str, Any]:
    return {
        "mount_id": mount.mount_id,
        "name": mount.name,
        "node_id": mount.node_id,
        "host_path": mount.host_path,
    }


@router.get("/v1/mounts", operation_id="listMounts", response_model=models.MountsView, responses=problems(401))
async def list_mounts(request: Request, caller: Proven) -> Any:
    """Return the folders that jobs of this credential may read."""
    found = await mounts.list_mounts(desk_of(request), tenant=caller.tenant)
    return {"mounts": [_mount_document(mount) for mount in found]}


@router.post(
    "/v1/mounts",
    operation_id="addMount",
    response_model=models.MountView,
    responses=problems(400, 401, 403, 409, 413, 415, 422, 503),
)
async def add_mount(request: Request, body: models.MountRequest, caller: Proven) -> Any:
    """Make a folder of this node readable by jobs; adding it again changes nothing."""
    mount = await mounts.add(
        desk_of(request), tenant=caller.tenant, subject=caller.subject, path=body.path, name=body.name
    )
    return _mount_document(mount)


@router.delete(
    "/v1/mounts/{mount_id}", operation_id="removeMount", status_code=204, responses=problems(401, 404, 422, 503)
)
async def remove_mount(request: Request, mount_id: Annotated[str, Path(max_length=64)], caller: Proven) -> Response:
    """Take a folder away from jobs to come."""
    await mounts.remove(desk_of(request), tenant=caller.tenant, subject=caller.subject, mount_id=MountId(mount_id))
    return Response(status_code=204)


@router.get("/v1/workers", operation_id="listWorkers", response_model=models.WorkersView, responses=problems(401))
async def list_workers(request: Request, caller: Proven) -> Any:
    """Return every worker that is known."""
    return await views.workers_document(desk_of(request))


@router.get(
    "/v1/capabilities", operation_id="listCapabilities", response_model=models.CapabilitiesView, responses=problems(401)
)
async def list_capabilities(request: Request, caller: Proven) -> Any:
    """Return what connected workers offer."""
    return await views.capabilities_document(desk_of(request))


@router.get("/v1/bids", operation_id="listBids", response_model=models.BidsView, responses=problems(401))
async def list_bids(request: Request, caller: Proven) -> Any:
    """Return an empty list: workers of this version make no bids."""
    return {"bids": []}


@router.get("/v1/records", operation_id="listRecords", response_model=models.RecordsPage, responses=problems(401, 422))
async def list_records(
    request: Request,
    caller: Proven,
    job_id: Annotated[str | None, Query(max_length=128)] = None,
    after: Annotated[int, Query(ge=0, le=2**53 - 1)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Any:
    """Return the audit trail in order."""
    wanted = None if job_id is None else parse_job_id(job_id)
    return await views.records_page(
        desk_of(request), tenant=caller.tenant, job_id=wanted, after=after, limit=limit
    )


@router.get("/healthz", operation_id="health", response_model=models.HealthView)
async def health() -> Any:
    """Answer that the process lives."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    operation_id="ready",
    response_model=models.ReadyView,
    responses={503: {"description": "No worker is connected.", "model": models.ReadyView}},
)
async def is_ready(request: Request) -> Response:
    """Answer whether jobs run now."""
    document = await views.ready(desk_of(request))
    return JSONResponse(document, status_code=200 if document["ready"] else 503)


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=PlainTextResponse,
    responses={200: {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Return the node's gauges in the Prometheus text format 0.0.4; they name no job and no tenant."""
    facts = await views.ready(desk_of(request))
    rows = (
        ("crank_workers_connected", "Workers connected now.", facts["workers"]),
        ("crank_jobs_queued", "Jobs that wait.", facts["queued"]),
        ("crank_jobs_held", "Jobs that a worker holds.", facts["held"]),
    )
    text = "".join(f"# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n" for name, help, value in rows)
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

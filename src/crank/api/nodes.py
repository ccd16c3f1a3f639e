"""What the node says of itself: workers, capabilities, records, mounts, health."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Security
from starlette.responses import JSONResponse, Response

from crank.api.documents import BODY, answer, desk_of, refusals
from crank.api.models import (
    BidsPage,
    CapabilitiesPage,
    Health,
    ManifestDocument,
    MountDocument,
    MountsPage,
    Ready,
    RecordsPage,
    WorkersPage,
)
from crank.api.peer import Caller, bearer
from crank.api.streams import POSITION_MAX
from crank.api.strict import StrictRoute
from crank.api.wanted import MountAdded
from crank.controller import mounts, views
from crank.domain.ids import MountId, WorkerId, parse_job_id
from crank.domain.job import Mount
from crank.domain.json import JsonObject
from crank.errors import Unavailable

router = APIRouter(route_class=StrictRoute, tags=["node"], default_response_class=JSONResponse)
From = Annotated[Caller, Security(bearer)]


@router.get(
    "/v1/workers", operation_id="list_workers", summary="List workers",
    responses={200: {"model": WorkersPage}, **refusals(406)},
)  # fmt: skip
async def list_workers(request: Request, caller: From) -> Response:
    """Return every worker that is known."""
    return answer(await views.workers_document(desk_of(request)))


@router.get(
    "/v1/workers/{worker_id}/manifest", operation_id="worker_manifest", summary="Read what a worker signed",
    responses={200: {"model": ManifestDocument}, **refusals(404, 406)},
)  # fmt: skip
async def worker_manifest(
    request: Request, worker_id: Annotated[str, Path(description="The worker's id.")], caller: From
) -> Response:
    """Return the signed manifest of a connected worker: whoever has the trust bundle can check it without this node."""
    return answer(await views.manifest_document(desk_of(request), WorkerId(worker_id)))


@router.get(
    "/v1/capabilities", operation_id="list_capabilities", summary="List capabilities",
    responses={200: {"model": CapabilitiesPage}, **refusals(406)},
)  # fmt: skip
async def list_capabilities(request: Request, caller: From) -> Response:
    """Return what connected workers offer."""
    return answer(await views.capabilities_document(desk_of(request)))


@router.get(
    "/v1/bids", operation_id="list_bids", summary="List bids",
    responses={200: {"model": BidsPage}, **refusals(406)},
)  # fmt: skip
async def list_bids(caller: From) -> Response:
    """Return no bids: workers of this version make none."""
    return answer({"bids": []})


@router.get(
    "/v1/records", operation_id="list_records", summary="Read the audit trail",
    responses={200: {"model": RecordsPage}, **refusals(403, 406)},
)  # fmt: skip
async def list_records(
    request: Request,
    caller: From,
    job_id: Annotated[str | None, Query(description="Only what concerns this job.")] = None,
    after: Annotated[int, Query(ge=0, le=POSITION_MAX)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Return records in order."""
    wanted = None if job_id is None else parse_job_id(job_id)
    page = await views.records_page(desk_of(request), tenant=caller.tenant, job_id=wanted, after=after, limit=limit)
    return answer(page)


@router.get(
    "/v1/mounts", operation_id="list_mounts", summary="List mounts",
    responses={200: {"model": MountsPage}, **refusals(406)},
)  # fmt: skip
async def list_mounts(request: Request, caller: From) -> Response:
    """Return the mounts by id and name, never by path."""
    found = await mounts.list_mounts(desk_of(request), tenant=caller.tenant)
    return answer({"mounts": [_mount(mount) for mount in found]})


@router.post(
    "/v1/mounts", operation_id="add_mount", summary="Add a mount", status_code=201,
    responses={201: {"model": MountDocument}, **refusals(*BODY, 403, 406, 409)},
)  # fmt: skip
async def add_mount(request: Request, wanted: MountAdded, caller: From) -> Response:
    """Let jobs read a folder of this node; adding it again changes nothing."""
    mount = await mounts.add(
        desk_of(request), tenant=caller.tenant, subject=caller.subject, path=wanted.path, name=wanted.name
    )
    return answer(_mount(mount), 201)


@router.delete(
    "/v1/mounts/{mount_id}", operation_id="remove_mount", summary="Remove a mount", status_code=204,
    response_class=Response, responses={**refusals(403, 404)},
)  # fmt: skip
async def remove_mount(
    request: Request, mount_id: Annotated[str, Path(description="The mount's id.")], caller: From
) -> Response:
    """Take a folder away from jobs that have not started."""
    await mounts.remove(desk_of(request), tenant=caller.tenant, subject=caller.subject, mount_id=MountId(mount_id))
    return Response(status_code=204)


def _mount(mount: Mount) -> JsonObject:
    return {
        "mount_id": mount.mount_id,
        "name": mount.name,
        "node_id": mount.node_id,
        "created_at": views.moment(mount.created_us),
    }


@router.get(
    "/healthz", operation_id="health", summary="Ask whether the process answers",
    responses={200: {"model": Health}, **refusals(406)},
)  # fmt: skip
async def health(request: Request) -> Response:
    """Answer; nothing else is looked at."""
    return answer({"status": "ok", "version": request.app.version})


@router.get(
    "/readyz", operation_id="ready", summary="Ask whether jobs can run now",
    responses={200: {"model": Ready}, **refusals(406)},
)  # fmt: skip
async def ready(request: Request) -> Response:
    """Answer 200 when the store works and a worker is connected, 503 otherwise."""
    # Nobody is proven here, and nothing of anybody's is told.
    document = await views.ready(request.app.state.desk)
    if not document["ready"]:
        raise Unavailable("No worker is connected.", code="not_ready", fix="Wait for a worker, or start one.")
    return answer(document)

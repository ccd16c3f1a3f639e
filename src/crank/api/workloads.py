"""Workloads over HTTP: register, list, remove. Their identities themselves never travel this way."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Security
from starlette.responses import JSONResponse, Response

from crank.api.documents import BODY, answer, desk_of, refusals
from crank.api.peer import Caller, bearer
from crank.api.strict import StrictRoute
from crank.api.workload_models import WorkloadDocument, WorkloadsPage, WorkloadWanted
from crank.controller import workloads
from crank.controller.views import moment
from crank.domain.json import JsonObject
from crank.domain.workload import WorkloadEntry

router = APIRouter(route_class=StrictRoute, tags=["workloads"], default_response_class=JSONResponse)
From = Annotated[Caller, Security(bearer)]


@router.post(
    "/v1/workloads", operation_id="add_workload", summary="Register a workload", status_code=201,
    responses={201: {"model": WorkloadDocument}, **refusals(*BODY, 403, 406, 409)},
)  # fmt: skip
async def add_workload(request: Request, wanted: WorkloadWanted, caller: From) -> Response:
    """Say which process of this machine gets which identity at the node's Unix socket."""
    entry = await workloads.add(
        desk_of(request),
        tenant=caller.tenant,
        subject=caller.subject,
        wanted=workloads.WorkloadWanted(
            wanted.path,
            tuple(wanted.selectors),
            wanted.ttl_sec,
            wanted.hint or "",
            tuple(wanted.dns_names or ()),
            tuple(wanted.federates_with or ()),
        ),
    )
    return answer(_document(entry), 201)


@router.get(
    "/v1/workloads", operation_id="list_workloads", summary="List workloads",
    responses={200: {"model": WorkloadsPage}, **refusals(403, 406)},
)  # fmt: skip
async def list_workloads(request: Request, caller: From) -> Response:
    """Return what is registered, oldest first."""
    found = await workloads.list_workloads(desk_of(request), tenant=caller.tenant)
    return answer({"workloads": [_document(entry) for entry in found]})


@router.delete(
    "/v1/workloads/{workload}", operation_id="remove_workload", summary="Remove a workload",
    responses={200: {"model": WorkloadDocument}, **refusals(403, 404, 406, 413)},
)  # fmt: skip
async def remove_workload(
    request: Request, workload: Annotated[str, Path(description="The workload's id.")], caller: From
) -> Response:
    """Take an identity away; processes that watch are told at once, and its certificates are revoked."""
    removed = await workloads.remove(
        desk_of(request), tenant=caller.tenant, subject=caller.subject, entry_id=workload
    )
    return answer(_document(removed))


def _document(entry: WorkloadEntry) -> JsonObject:
    return {
        "workload_id": entry.entry_id,
        "spiffe_id": str(entry.spiffe_id),
        "selectors": [str(selector) for selector in entry.selectors],
        "ttl_sec": entry.ttl_sec,
        "hint": entry.hint or None,
        "dns_names": list(entry.dns_names),
        "federates_with": list(entry.federates_with),
        "created_at": moment(entry.created_us),
    }

"""Federation over HTTP: with which trust domains this node is federated, for its owner."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Security
from starlette.responses import JSONResponse, Response

from crank.api.documents import BODY, answer, desk_of, refusals
from crank.api.federation_models import FederationDocument, FederationPage, FederationWanted
from crank.api.peer import Caller, bearer
from crank.api.strict import StrictRoute
from crank.controller import federate
from crank.controller.views import moment
from crank.domain.federation import EndpointProfile, Federated
from crank.domain.json import JsonObject, dumps, loads_strict

router = APIRouter(route_class=StrictRoute, tags=["federation"], default_response_class=JSONResponse)
From = Annotated[Caller, Security(bearer)]
DomainPath = Annotated[str, Path(description="The trust domain's name.")]


@router.post(
    "/v1/federation", operation_id="add_federation", summary="Federate with a trust domain", status_code=201,
    responses={201: {"model": FederationDocument}, **refusals(*BODY, 403, 406, 409)},
)  # fmt: skip
async def add_federation(request: Request, wanted: FederationWanted, caller: From) -> Response:
    """Fetch the bundle of another trust domain, keep it, and look for newer ones from then on."""
    made = await federate.add(
        desk_of(request),
        tenant=caller.tenant,
        subject=caller.subject,
        wanted=federate.FederationWanted(
            trust_domain=wanted.trust_domain,
            url=wanted.url,
            profile=EndpointProfile(wanted.profile),
            endpoint_id=wanted.endpoint_id,
            ca_pem=wanted.ca_pem,
            private=wanted.private,
            stale_after_sec=wanted.stale_after_sec,
            bundle=None if wanted.bundle is None else dumps(wanted.bundle),
        ),
    )
    return answer(_document(request, made), 201)


@router.get(
    "/v1/federation", operation_id="list_federation", summary="List federated trust domains",
    responses={200: {"model": FederationPage}, **refusals(403, 406)},
)  # fmt: skip
async def list_federation(request: Request, caller: From) -> Response:
    """Return every trust domain that this node is federated with, by name."""
    found = await federate.list_federation(desk_of(request))
    return answer({"federation": [_document(request, each) for each in found]})


@router.get(
    "/v1/federation/{trust_domain}", operation_id="get_federation", summary="Look at a federated trust domain",
    responses={200: {"model": FederationDocument}, **refusals(403, 404, 406)},
)  # fmt: skip
async def get_federation(request: Request, trust_domain: DomainPath, caller: From) -> Response:
    """Return one trust domain with its bundle."""
    return answer(_document(request, await federate.find(desk_of(request), trust_domain=trust_domain)))


@router.post(
    "/v1/federation/{trust_domain}/refresh", operation_id="refresh_federation", summary="Fetch a bundle now",
    responses={200: {"model": FederationDocument}, **refusals(403, 404, 406)},
)  # fmt: skip
async def refresh_federation(request: Request, trust_domain: DomainPath, caller: From) -> Response:
    """Look at the publisher now instead of when it is due; `failure` tells when that failed."""
    return answer(_document(request, await federate.refresh(desk_of(request), trust_domain=trust_domain)))


@router.delete(
    "/v1/federation/{trust_domain}", operation_id="remove_federation", summary="End a federation",
    responses={200: {"model": FederationDocument}, **refusals(403, 404, 406)},
)  # fmt: skip
async def remove_federation(request: Request, trust_domain: DomainPath, caller: From) -> Response:
    """Forget a trust domain's bundle: from now on nobody of it is believed."""
    removed = await federate.remove(
        desk_of(request), tenant=caller.tenant, subject=caller.subject, trust_domain=trust_domain
    )
    return answer(_document(request, removed))


def _document(request: Request, federated: Federated) -> JsonObject:
    trust = federate.trust_of(desk_of(request))
    kept = federate.kept_bundle(trust, federated)
    return {
        "trust_domain": federated.trust_domain,
        "url": federated.url,
        "profile": str(federated.profile),
        "endpoint_id": federated.endpoint_id,
        "private": federated.private,
        "stale_after_sec": federated.stale_after_sec,
        "believed": trust.bundles.find(federated.trust_domain) is not None,
        "sequence": None if kept is None else kept.sequence,
        "x509_authorities": 0 if kept is None else len(kept.x509_authorities),
        "jwt_authorities": 0 if kept is None else len(kept.jwt_authorities),
        "added_at": moment(federated.added_us),
        "fetched_at": moment(federated.fetched_us),
        "tried_at": moment(federated.tried_us),
        "failure": federated.failure,
        "bundle": None if kept is None else loads_strict(federated.bundle.encode()),
    }

"""Identities over HTTP: list, revoke and allow for the owner, and the list of revocations for everybody."""

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Security
from starlette.responses import JSONResponse, Response

from crank.api.documents import BODY, answer, desk_of, header, refusals
from crank.api.identity_models import AllowedDocument, IdentitiesPage, IdentityAllowed, IdentityRevoked
from crank.api.peer import Caller, bearer
from crank.api.strict import StrictRoute
from crank.controller import identities
from crank.controller.revocation_list import NEXT_UPDATE_SEC
from crank.controller.views import moment
from crank.domain.issued import IssuedIdentity
from crank.domain.json import JsonObject

router = APIRouter(route_class=StrictRoute, tags=["identities"], default_response_class=JSONResponse)
# Whoever checks a certificate may read what is revoked; a credential would keep out those who need it most.
open_router = APIRouter(tags=["identities"])
From = Annotated[Caller, Security(bearer)]
CRL_MEDIA_TYPE = "application/pkix-crl"
_CACHED_SEC = 60


@router.get(
    "/v1/identities", operation_id="list_identities", summary="List identities",
    responses={200: {"model": IdentitiesPage}, **refusals(403, 406)},
)  # fmt: skip
async def list_identities(
    request: Request, caller: From, limit: Annotated[int, Query(ge=1, le=identities.PAGE_MAX)] = 100
) -> Response:
    """Return the certificates that have not expired, newest first, and what is revoked."""
    return answer(_page(await identities.list_identities(desk_of(request), limit=limit)))


@router.post(
    "/v1/identities/revoke", operation_id="revoke_identity", summary="Revoke an identity",
    responses={200: {"model": IdentitiesPage}, **refusals(*BODY, 403, 404, 406, 409)},
)  # fmt: skip
async def revoke_identity(request: Request, wanted: IdentityRevoked, caller: From) -> Response:
    """Take an identity back: its links close at once, its leases are decided, every worker is told."""
    revoked = await identities.revoke_identity(
        desk_of(request), wanted.identity, reason=wanted.reason, subject=caller.subject
    )
    return answer(_page(revoked))


@router.post(
    "/v1/identities/allow", operation_id="allow_identity", summary="Allow an identity again",
    responses={200: {"model": AllowedDocument}, **refusals(*BODY, 403, 404, 406, 409)},
)  # fmt: skip
async def allow_identity(request: Request, wanted: IdentityAllowed, caller: From) -> Response:
    """Let a SPIFFE ID get certificates again; those that were revoked stay so."""
    allowed = await identities.allow_identity(desk_of(request), wanted.identity, subject=caller.subject)
    return answer({"spiffe_id": str(allowed)})


@open_router.get(
    "/v1/trust/crl", operation_id="revocation_list", summary="Read the list of revocations", response_class=Response,
    responses={
        200: {
            "description": "The list (RFC 5280, DER), signed by the authority.",
            "content": {CRL_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
            "headers": {"ETag": header("The number of the list, quoted."), "Last-Modified": header("When it was signed.")},
        },
        304: {"description": "You have it already."},
        **refusals(),
    },
)  # fmt: skip
async def revocation_list(
    request: Request, if_none_match: Annotated[str | None, Header(description="An ETag that you have.")] = None
) -> Response:
    """Return which certificates of this trust domain were revoked and have not expired. No credential is needed."""
    current = await request.app.state.revocation_lists.current(request.app.state.desk)
    tag = f'"{current.number}"'
    headers = {
        "etag": tag,
        "cache-control": f"public, max-age={min(_CACHED_SEC, int(NEXT_UPDATE_SEC))}",
        "last-modified": format_datetime(datetime.fromtimestamp(current.made_us // 1_000_000, UTC), usegmt=True),
    }
    if if_none_match is not None and tag in {part.strip().removeprefix("W/") for part in if_none_match.split(",")}:
        return Response(status_code=304, headers=headers)
    return Response(current.der, headers=headers, media_type=CRL_MEDIA_TYPE)


def _page(found: identities.Identities) -> JsonObject:
    bans = [{"spiffe_id": str(ban.spiffe_id), "since": moment(ban.since_us), "reason": ban.reason} for ban in found.bans]
    return {"identities": [_document(identity) for identity in found.issued], "revoked": bans}


def _document(identity: IssuedIdentity) -> JsonObject:
    return {
        "serial": identity.serial,
        "spiffe_id": str(identity.spiffe_id),
        "kind": identity.kind,
        "instance_id": identity.instance_id,
        "attestation": identity.attestation.label,
        "node_id": identity.node,
        "issued_at": moment(identity.issued_us),
        "expires_at": moment(identity.not_after_us),
        "revoked_at": moment(identity.revoked_us),
        "reason": identity.reason,
    }

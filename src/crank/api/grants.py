"""Tokens as their grants over HTTP: which there are, and their end before their time."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Security
from pydantic import Field
from starlette.responses import JSONResponse, Response

from crank.api.documents import answer, desk_of, refusals
from crank.api.models import Answer
from crank.api.peer import Caller, bearer
from crank.api.strict import StrictRoute
from crank.controller.grants import grants_page, is_alive, revoke_grant, roles_of
from crank.controller.views import moment
from crank.domain.grant import Grant, GrantId
from crank.domain.json import JsonObject
from crank.domain.role import Role
from crank.domain.rules.authorization import details_document

router = APIRouter(route_class=StrictRoute, tags=["tokens"], default_response_class=JSONResponse)
From = Annotated[Caller, Security(bearer)]


class GrantDocument(Answer):
    """What a token grants, without the token."""

    grant_id: str = Field(description="The token's jti.")
    key_id: str = Field(description="The key that it stems from.")
    subject: str
    holder: str = Field(description="Who acts with it.")
    actors: list[str] = Field(description="Who acts for the subject, the present holder first.")
    bound: bool = Field(description="Whether its holder must prove a key.")
    authorization_details: list[JsonObject]
    parent: str | None
    depth_left: int
    active: bool
    issued_at: str
    expires_at: str
    revoked_at: str | None


class RoleDocument(Answer):
    """The most that a token may carry which is made under a role."""

    name: str
    summary: str
    authorization_details: list[JsonObject]
    lifetime_sec: int = Field(description="The longest life of a token that is bound to a key.")
    bearer_sec: int = Field(description="The longest life of one that is bound to none; 0: there is none such.")
    depth: int


class RolesPage(Answer):
    """Roles, by name."""

    roles: list[RoleDocument]


class GrantsPage(Answer):
    """Grants, newest first."""

    tokens: list[GrantDocument]
    next: str | None = Field(description="Send it as `before` for the next page.")


@router.get(
    "/v1/tokens", operation_id="list_tokens", summary="List tokens",
    responses={200: {"model": GrantsPage}, **refusals(403, 406)},
)  # fmt: skip
async def list_tokens(
    request: Request,
    caller: From,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """Return the grants of tokens, those that ended too: all to the owner, to a key its own."""
    desk = desk_of(request)
    found = await grants_page(desk, tenant=caller.tenant, limit=limit + 1, before=before)
    page = found[:limit]
    return answer(
        {
            "tokens": [_document(grant, active=is_alive(desk, grant)) for grant in page],
            "next": page[-1].grant_id if len(found) > limit else None,
        }
    )


@router.delete(
    "/v1/tokens/{grant_id}", operation_id="revoke_token", summary="Revoke a token",
    responses={200: {"model": GrantDocument}, **refusals(403, 404, 406)},
)  # fmt: skip
async def revoke(
    request: Request, caller: From, grant_id: Annotated[str, Path(description="The grant's id: the token's jti.")]
) -> Response:
    """Revoke a token and all that came of it, at once, with what runs under them."""
    revoked = await revoke_grant(
        desk_of(request), tenant=caller.tenant, subject=caller.subject, grant_id=GrantId(grant_id)
    )
    return answer(_document(revoked, active=False))


@router.get(
    "/v1/roles", operation_id="list_roles", summary="List roles",
    responses={200: {"model": RolesPage}, **refusals(406)},
)  # fmt: skip
async def list_roles(request: Request, caller: From) -> Response:
    """Return the roles that the caller may assume at /v1/token."""
    return answer({"roles": [_role(role) for role in await roles_of(desk_of(request))]})


def _role(role: Role) -> JsonObject:
    return {
        "name": role.name,
        "summary": role.summary,
        "authorization_details": details_document(role.rights),
        "lifetime_sec": role.lifetime_sec,
        "bearer_sec": role.bearer_sec,
        "depth": role.depth,
    }


def _document(grant: Grant, *, active: bool) -> JsonObject:
    return {
        "grant_id": grant.grant_id,
        "key_id": grant.credential_id,
        "subject": grant.subject,
        "holder": grant.holder,
        "actors": list(grant.actors),
        "bound": grant.holder_jkt is not None,
        "authorization_details": details_document(grant.rights),
        "parent": grant.parent,
        "depth_left": grant.depth_left,
        "active": active,
        "issued_at": moment(grant.issued_us),
        "expires_at": moment(grant.expires_us),
        "revoked_at": moment(grant.revoked_us),
    }

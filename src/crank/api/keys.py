"""Keys over HTTP: mint, list, revoke; and which mounts each may name."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Security
from starlette.responses import JSONResponse, Response

from crank.api.documents import BODY, answer, desk_of, refusals
from crank.api.key_models import KeyDocument, KeyMinted, KeysPage, KeyWanted
from crank.api.peer import Caller, bearer
from crank.api.strict import StrictRoute
from crank.controller import keys
from crank.controller.views import moment
from crank.domain.credential import Credential, CredentialKind
from crank.domain.grant_codec import details_document
from crank.domain.json import JsonObject

router = APIRouter(route_class=StrictRoute, tags=["keys"], default_response_class=JSONResponse)
From = Annotated[Caller, Security(bearer)]
KeyPath = Annotated[str, Path(description="The key's id or name.")]
MountPath = Annotated[str, Path(description="The mount's id or name.")]


@router.post(
    "/v1/keys", operation_id="mint_key", summary="Mint a key", status_code=201,
    responses={201: {"model": KeyMinted}, **refusals(*BODY, 403, 404, 406, 409)},
)  # fmt: skip
async def mint_key(request: Request, wanted: KeyWanted, caller: From) -> Response:
    """Make a key and show its secret, this once; the node keeps its hash alone."""
    minted = await keys.mint(
        desk_of(request),
        tenant=caller.tenant,
        subject=caller.subject,
        wanted=keys.KeyWanted(
            wanted.name,
            CredentialKind(wanted.kind),
            tuple(wanted.mounts or ()),
            wanted.expires_sec,
            wanted.authorization_details,
        ),
    )
    return answer({**_document(minted.credential), "secret": minted.secret}, 201)


@router.get(
    "/v1/keys", operation_id="list_keys", summary="List keys",
    responses={200: {"model": KeysPage}, **refusals(403, 406)},
)  # fmt: skip
async def list_keys(request: Request, caller: From) -> Response:
    """Return every key without its secret, oldest first, the revoked ones too."""
    found = await keys.list_keys(desk_of(request), tenant=caller.tenant)
    return answer({"keys": [_document(credential) for credential in found]})


@router.get(
    "/v1/keys/self", operation_id="own_key", summary="Ask who you are",
    responses={200: {"model": KeyDocument}, **refusals(404, 406)},
)  # fmt: skip
async def own_key(request: Request, caller: From) -> Response:
    """Return the key that this request was made with."""
    return answer(_document(await keys.own_key(desk_of(request))))


@router.delete(
    "/v1/keys/{key}", operation_id="revoke_key", summary="Revoke a key",
    responses={200: {"model": KeyDocument}, **refusals(403, 404, 406, 409)},
)  # fmt: skip
async def revoke_key(request: Request, key: KeyPath, caller: From) -> Response:
    """Revoke a key at once, and end what it has under way; what it did stays readable to the owner."""
    return answer(
        _document(await keys.revoke(desk_of(request), tenant=caller.tenant, subject=caller.subject, key=key))
    )


@router.put(
    "/v1/keys/{key}/mounts/{mount}", operation_id="allow_mount", summary="Allow a key a mount",
    responses={200: {"model": KeyDocument}, **refusals(403, 404, 406, 409, 413)},
)  # fmt: skip
async def allow_mount(request: Request, key: KeyPath, mount: MountPath, caller: From) -> Response:
    """Let a key name a mount in its jobs and sessions."""
    return await _set_mount(request, key, mount, caller, allowed=True)


@router.delete(
    "/v1/keys/{key}/mounts/{mount}", operation_id="deny_mount", summary="Deny a key a mount",
    responses={200: {"model": KeyDocument}, **refusals(403, 404, 406, 409)},
)  # fmt: skip
async def deny_mount(request: Request, key: KeyPath, mount: MountPath, caller: From) -> Response:
    """Take a mount from a key, and end what it runs with it."""
    return await _set_mount(request, key, mount, caller, allowed=False)


async def _set_mount(request: Request, key: str, mount: str, caller: Caller, *, allowed: bool) -> Response:
    changed = await keys.set_mount(
        desk_of(request), tenant=caller.tenant, subject=caller.subject, key=key, mount=mount, allowed=allowed
    )
    return answer(_document(changed))


def _document(credential: Credential) -> JsonObject:
    return {
        "key_id": credential.credential_id,
        "name": credential.name,
        "kind": str(credential.kind),
        "subject": credential.subject,
        "mounts": list(credential.mounts) if credential.bounded else None,
        "authorization_details": None if credential.rights is None else details_document(credential.rights),
        "created_at": moment(credential.created_us),
        "expires_at": moment(credential.expires_us),
        "used_at": moment(credential.used_us),
        "revoked_at": moment(credential.revoked_us),
    }

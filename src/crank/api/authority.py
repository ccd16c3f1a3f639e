"""The authority over HTTP: how it stands, and the change of its root. For the owner."""

from typing import Annotated

from fastapi import APIRouter, Request, Security
from starlette.responses import JSONResponse, Response

from crank.api.authority_models import AuthorityDocument, RotationWanted
from crank.api.documents import BODY, answer, desk_of, refusals
from crank.api.peer import Caller, bearer
from crank.api.strict import StrictRoute
from crank.controller.rotate_root import Shown, rotate_root, show_authority
from crank.controller.views import moment
from crank.domain.json import JsonObject
from crank.domain.trust import RotationStep

router = APIRouter(route_class=StrictRoute, tags=["identities"], default_response_class=JSONResponse)
From = Annotated[Caller, Security(bearer)]


@router.get(
    "/v1/authority", operation_id="show_authority", summary="Look at the authority",
    responses={200: {"model": AuthorityDocument}, **refusals(403, 406)},
)  # fmt: skip
async def show(request: Request, caller: From) -> Response:
    """Return the tiers of keys with their dates, the bundle's sequence, and how far a change of root is."""
    return answer(_document(await show_authority(desk_of(request))))


@router.post(
    "/v1/authority/rotation", operation_id="rotate_root", summary="Change the root",
    responses={200: {"model": AuthorityDocument}, **refusals(*BODY, 403, 406, 409)},
)  # fmt: skip
async def rotate(request: Request, wanted: RotationWanted, caller: From) -> Response:
    """Prepare a new root, let it sign, retire the old one, or go back."""
    shown = await rotate_root(desk_of(request), RotationStep(wanted.step), force=wanted.force, subject=caller.subject)
    return answer(_document(shown))


def _document(shown: Shown) -> JsonObject:
    status = shown.status
    return {
        "trust_domain": status.trust_domain,
        "phase": str(status.rotation.phase),
        "signs": status.rotation.current,
        "other": status.rotation.other,
        "drained_at": moment(status.rotation.drained_us),
        "sequence": status.sequence,
        "leaf_ttl_sec": status.leaf_ttl_sec,
        "unaware": list(shown.unaware),
        "root_keys": list(status.root_keys),
        "certificates": [
            {
                "tier": each.tier,
                "root": each.mark or None,
                "serial": each.serial,
                "valid_from": moment(each.not_before_us),
                "expires_at": moment(each.not_after_us),
                "key": each.key_place,
            }
            for each in status.certificates
        ],
    }

"""By what others check our identities and tokens: public, the same for everybody, and two sets that never mix.

`/trust-bundle` is the SPIFFE bundle (SPIFFE Federation, section 5): what vouches for SVIDs. The OpenID document leads
to the keys of capability tokens alone, for clouds and resource servers that know nothing of SPIFFE.
"""

from fastapi import APIRouter, Request
from starlette.responses import Response

from crank.api.agents import caller_if_shown
from crank.api.documents import answer
from crank.api.peer import Caller
from crank.api.prefer import wait_sec
from crank.api.strict import StrictRoute
from crank.controller.bundles import Trust
from crank.controller.federate import trust_of
from crank.controller.present import token_desk
from crank.controller.publish import acknowledge, publish
from crank.domain.json import JsonObject
from crank.domain.rules.exchange import GRANT_TYPE

BUNDLE_PATH = "/trust-bundle"
DISCOVERY_PATH = "/.well-known/openid-configuration"
# Where tokens come from hardly ever changes.
_FRESH_SEC = 300
_TAGS_MAX = 16
router = APIRouter(route_class=StrictRoute, include_in_schema=False)


@router.get(BUNDLE_PATH)
async def trust_bundle(request: Request) -> Response:
    """Return the bundle; with If-None-Match and `Prefer: wait=N` when it changes, or 304 when it did not."""
    trust = _trust(request)
    seen = _tags(request)
    caller = await caller_if_shown(request)
    # Whoever says nothing of what it has may be behind, whether or not it is known who it is.
    if caller is None or not acknowledge(trust, subject=_follower(caller), seen=seen):
        trust.bundles.asked()
    patience_sec = wait_sec(request.headers.getlist("prefer")) or 0
    published = await publish(trust, seen=seen, wait_sec=patience_sec)
    # Whoever keeps it asks again before believing it.
    headers = {"etag": published.tag, "cache-control": "no-cache", "x-content-type-options": "nosniff"}
    if published.tag in seen or "*" in seen:
        return Response(status_code=304, headers=headers)
    return Response(published.raw, media_type="application/json", headers=headers)


def _follower(caller: Caller) -> str:
    # However many tokens a key is exchanged for, they are one who follows: nobody fills the list with them.
    grant = caller.desk.grant
    return caller.subject if grant is None else f"tokens of the key {grant.credential_id}"


@router.get(DISCOVERY_PATH)
async def openid_configuration(request: Request) -> Response:
    """Return where the keys of our tokens are (OpenID Connect Discovery 1.0, section 3)."""
    # As tokens name it, whatever name the caller asked by: a cloud compares the two letter by letter.
    issuer = token_desk(request.app.state.desk).issuer
    document: JsonObject = {
        "issuer": issuer,
        # The keys of capability tokens; those of SVIDs are in the bundle and nowhere else.
        "jwks_uri": f"{issuer}/v1/jwks",
        "token_endpoint": f"{issuer}/v1/token",
        # Left out, these would mean HTTP Basic, and grants that this node does not give.
        "token_endpoint_auth_methods_supported": ["none"],
        "grant_types_supported": [GRANT_TYPE],
        # Nobody logs in here in a browser; the document has to name an address all the same.
        "authorization_endpoint": f"{issuer}/llms.txt",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }
    return answer(document, headers={"cache-control": f"max-age={_FRESH_SEC}"})


def _trust(request: Request) -> Trust:
    return trust_of(request.app.state.desk)


def _tags(request: Request) -> list[str]:
    shown = ",".join(request.headers.getlist("if-none-match")).split(",", _TAGS_MAX)[:_TAGS_MAX]
    return [tag.strip().removeprefix("W/") for tag in shown if tag.strip()]

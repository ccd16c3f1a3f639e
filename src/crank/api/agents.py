"""What agents read before they ask for work: the instructions of this node, and its A2A card.

Both have a public face for whoever shows no credential, and it names nothing of what the node has: no mount, no
capability, no profile. A credential that is shown must be good; a wrong one is refused as everywhere else.
"""

from fastapi import APIRouter, Request
from starlette.responses import Response

from crank.api.address import base_url
from crank.api.documents import answer, desk_of
from crank.api.peer import Caller
from crank.api.strict import StrictRoute
from crank.controller.instruct import instruct, offered
from crank.domain.rules.agent_card import agent_card

CARD_PATH = "/.well-known/agent-card.json"
# No cache may hand one caller's page to another.
_PRIVATE = {"cache-control": "no-store", "vary": "Authorization", "x-content-type-options": "nosniff"}
_PUBLIC = """# Crank

This node runs the Python that agents write, in sandboxes on machines of its owner. Everything but this page needs a
credential: send `Authorization: Bearer <secret>`. Ask this address again with it, and the page tells what the node
offers, how a job is made, and what is refused.

- [Every operation](/openapi.json): OpenAPI 3.1
- [Agent card](/.well-known/agent-card.json): A2A
"""
router = APIRouter(route_class=StrictRoute, include_in_schema=False)


@router.get("/llms.txt")
async def llms_txt(request: Request) -> Response:
    """Return the instructions; without a credential, only how to ask for them."""
    caller = await caller_if_shown(request)
    text = _PUBLIC
    if caller is not None:
        text = await instruct(desk_of(request), tenant=caller.tenant, version=request.app.version)
    return Response(text, media_type="text/markdown; charset=utf-8", headers=_PRIVATE)


@router.get(CARD_PATH)
async def card(request: Request) -> Response:
    """Return the agent card; without a credential, without skills."""
    caller = await caller_if_shown(request)
    capabilities = None if caller is None else offered(desk_of(request))
    document = agent_card(base_url=base_url(request), version=request.app.version, capabilities=capabilities)
    return answer(document, headers=_PRIVATE)


async def caller_if_shown(request: Request) -> Caller | None:
    """Return who asks, or None for who shows no credential at all. Raises NotAuthenticated for a wrong one."""
    if "authorization" not in request.headers:
        return None
    caller: Caller = await request.app.state.gate.admit(request)
    request.state.caller = caller
    return caller

"""Nodes over HTTP: the owner invites, registers, lists and forgets them; and the door at which they join."""

import base64
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Request, Security
from starlette.responses import JSONResponse, Response

from crank.api.documents import BODY, answer, desk_of, refusals
from crank.api.enrolment_models import (
    AttestationResult,
    Attester,
    NodeDocument,
    NodeExpected,
    NodeInvited,
    NodeRegistered,
    NodesPage,
    RootsDocument,
)
from crank.api.peer import Caller, bearer
from crank.api.strict import OpenRoute, StrictRoute
from crank.controller import nodes
from crank.controller.desk import Desk
from crank.controller.issue import authority_of
from crank.controller.join import join
from crank.controller.views import moment
from crank.domain.enrolment import Enrolment
from crank.domain.ids import parse_digest
from crank.domain.json import JsonObject

router = APIRouter(route_class=StrictRoute, tags=["nodes"], default_response_class=JSONResponse)
# Whoever comes here has no credential yet: that is what is asked for.
door = APIRouter(route_class=OpenRoute, tags=["nodes"], default_response_class=JSONResponse)
From = Annotated[Caller, Security(bearer)]
_SHA256 = "sha256:"


@router.post(
    "/v1/nodes/invites", operation_id="invite_node", summary="Invite a node", status_code=201,
    responses={201: {"model": NodeExpected}, **refusals(*BODY, 403, 406, 409)},
)  # fmt: skip
async def invite_node(request: Request, wanted: NodeInvited, caller: From) -> Response:
    """Make a token with which one machine may join, once, and show it this once."""
    desk = desk_of(request)
    node = nodes.NodeWanted(wanted.name, tuple(wanted.capabilities or ()), wanted.expires_sec, wanted.pins)
    invited = await nodes.invite(desk, tenant=caller.tenant, subject=caller.subject, wanted=node)
    return answer(_expected(desk, invited), 201)


@router.post(
    "/v1/nodes", operation_id="register_node", summary="Register a node", status_code=201,
    responses={201: {"model": NodeExpected}, **refusals(*BODY, 403, 406, 409)},
)  # fmt: skip
async def register_node(request: Request, wanted: NodeRegistered, caller: From) -> Response:
    """Let a machine join that proves to hold the key of a certificate."""
    desk = desk_of(request)
    node = nodes.NodeWanted(wanted.name, tuple(wanted.capabilities or ()))
    thumbprint = parse_digest(wanted.thumbprint.removeprefix(_SHA256), field="thumbprint")
    expected = await nodes.register(
        desk, tenant=caller.tenant, subject=caller.subject, wanted=node, thumbprint=thumbprint
    )
    return answer(_expected(desk, expected), 201)


@router.get(
    "/v1/nodes", operation_id="list_nodes", summary="List nodes",
    responses={200: {"model": NodesPage}, **refusals(403, 406)},
)  # fmt: skip
async def list_nodes(request: Request, caller: From) -> Response:
    """Return every node beside this one, oldest first, the forgotten ones too."""
    desk = desk_of(request)
    return answer({"nodes": [_document(desk, node) for node in await nodes.list_nodes(desk)]})


@router.delete(
    "/v1/nodes/{node}", operation_id="forget_node", summary="Forget a node",
    responses={200: {"model": NodeDocument}, **refusals(403, 404, 406)},
)  # fmt: skip
async def forget_node(
    request: Request, node: Annotated[str, Path(description="The node's id or name.")], caller: From
) -> Response:
    """Take a node's right to be here, cut its worker off, and let its name be free; its token ends, too."""
    desk = desk_of(request)
    gone = await nodes.forget(desk, tenant=caller.tenant, subject=caller.subject, node=node)
    return answer(_document(desk, gone))


@door.get(
    "/v1/nodes/join", operation_id="join_roots", summary="Read by what this controller is known",
    responses={200: {"model": RootsDocument}, **refusals(406)},
)  # fmt: skip
async def join_roots(request: Request) -> Response:
    """Return the root certificates, for a machine that knows the SHA-256 of one of them."""
    authority = authority_of(request.app.state.desk)
    return answer(
        {
            "trust_domain": authority.trust_domain,
            "x509_authorities": _base64(authority.bundle().x509_authorities),
        }
    )


@door.post(
    "/v1/nodes/join", operation_id="join_node", summary="Join", responses={200: {"model": AttestationResult}, **refusals(*BODY, 403, 406, 429)},
)  # fmt: skip
async def join_node(request: Request, attester: Attester) -> Response:
    """Let a machine in that holds a token or a registered certificate. The same keys may fetch the answer again."""
    source = request.client.host if request.client is not None else ""
    joined = await join(request.app.state.desk, source=source, token=attester.token, signed=attester.evidence)
    node = joined.enrolment
    return answer(
        {
            "attestation": node.attestation.label,
            "trust_domain": joined.bundle.trust_domain,
            "node_id": node.node_id,
            "worker_id": node.worker_id,
            "capabilities": list(node.capabilities),
            "returns": node.thumbprint is not None,
            "node_svid": _base64(joined.node.chain),
            "worker_svid": _base64(joined.worker.chain),
            "x509_authorities": _base64(joined.bundle.x509_authorities),
            "expires_at": moment(joined.worker.not_after_us),
        }
    )


def _base64(octets: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(each).decode() for each in octets]


def _expected(desk: Desk, invited: nodes.Invited) -> JsonObject:
    return {
        **_document(desk, invited.enrolment),
        "trust_domain": invited.trust_domain,
        "roots": [_SHA256 + root for root in invited.roots],
        "token": invited.token,
    }


def _document(desk: Desk, node: Enrolment) -> JsonObject:
    return {
        "node_id": node.node_id,
        "name": node.name,
        "worker_id": node.worker_id,
        "capabilities": list(node.capabilities),
        "attestation": node.attestation.label,
        "thumbprint": None if node.thumbprint is None else _SHA256 + node.thumbprint,
        "created_at": moment(node.created_us),
        "expires_at": moment(node.expires_us),
        "joined_at": moment(node.joined_us),
        "forgotten_at": moment(node.forgotten_us),
        "connected": desk.roster.find(node.worker_id) is not None,
        "machine": node.machine,
    }

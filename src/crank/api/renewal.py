"""Two doors of the worker listener: who shows a certificate that holds gets the next one, and a machine the roots."""

import asyncio
import base64
import re
from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from crank.api.strict import BODY_SEC_MAX, chunks, slow_body
from crank.controller.desk import Desk
from crank.controller.renew import renew
from crank.controller.tell_trust import tell_machine
from crank.domain.identity import WorkloadKind
from crank.domain.issued import CertificateRequest
from crank.domain.trust import Peer
from crank.errors import InvalidRequest
from crank.wire import encode

# Who may renew an identity here: what lives on for longer than one certificate and has a key of its own.
RENEWING = (WorkloadKind.WORKER, WorkloadKind.NODE)
BODY_BYTES_MAX = 16 * 1024
_SEQUENCE = re.compile(r"[0-9]{1,18}")
# Reads a PKCS#10 request in DER or PEM and proves that its own key signed it. Raises InvalidRequest.
ReadRequest = Callable[[bytes], CertificateRequest]


async def renew_identity(desk: Desk, peer: Peer, request: Request, read_request: ReadRequest) -> Response:
    """Answer with the chain, the roots, and in how many seconds to come again. Raises what `renew` raises."""
    try:
        async with asyncio.timeout(BODY_SEC_MAX):
            body = b"".join([piece async for piece in chunks(request, bytes_max=BODY_BYTES_MAX)])
    except TimeoutError as fault:
        raise slow_body() from fault
    renewed = await renew(desk, peer=peer, request=read_request(body))
    svid, bundle = renewed.svid, renewed.bundle
    return JSONResponse(
        {
            "spiffe_id": str(svid.spiffe_id),
            "instance_id": svid.workload.instance_id,
            "serial": svid.serial,
            "chain": _base64(svid.chain),
            "sequence": bundle.sequence,
            "roots": _base64(bundle.x509_authorities),
            "renew_in_sec": renewed.renew_in_sec,
            "expires_in_sec": renewed.expires_in_sec,
        },
        headers={"cache-control": "no-store"},
    )


async def read_trust(desk: Desk, peer: Peer, request: Request) -> Response:
    """Answer a machine that says which sequence lies in its files with the wire's `trust`, as its worker hears it.

    Nothing is issued: this may be asked as often as somebody rings. Raises InvalidRequest, Unavailable.
    """
    has = request.query_params.get("has", "")
    if _SEQUENCE.fullmatch(has) is None:
        raise InvalidRequest("'has' is the sequence of the bundle that you keep; 0 for none.", field="has")
    told = tell_machine(desk, peer.spiffe_id, has=int(has))
    return Response(encode(told), media_type="application/json", headers={"cache-control": "no-store"})


def _base64(certificates: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(der).decode("ascii") for der in certificates]

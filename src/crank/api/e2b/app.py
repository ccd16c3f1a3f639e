"""The application of the E2B listener: one address for the control plane and for every sandbox."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from crank.api.e2b import code, control, files, filesystem, process, replies
from crank.api.e2b.peer import Gate
from crank.api.peer import Gate as KeyGate
from crank.controller.boxes import Boxes
from crank.domain.rules.access import E2B_KINDS


def build_e2b(boxes: Boxes) -> Starlette:
    """Return the ASGI application."""
    gate = Gate(boxes.desk, boxes, KeyGate(boxes.desk, E2B_KINDS))

    async def health(request: Request) -> Response:
        try:
            await gate.box(request)
        except Exception as fault:  # noqa: BLE001 - told in the protocol's own words
            return replies.plain_fault(fault)
        return Response(status_code=204)

    routes = [
        Route("/health", health, methods=["GET"]),
        *control.routes(gate),
        *control.not_offered(gate),
        *files.routes(gate),
        *filesystem.routes(gate),
        *process.routes(gate),
        *code.routes(gate),
    ]
    application = Starlette(routes=routes, exception_handlers={HTTPException: _unknown, Exception: _defect})
    application.router.redirect_slashes = False
    return application


async def _unknown(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, HTTPException)
    if fault.status_code == 404:
        return replies.plain(404, f"There is nothing at {request.url.path[:200]} here.")
    response = replies.plain(fault.status_code, str(fault.detail))
    for name, text in (fault.headers or {}).items():
        response.headers[name] = text
    return response


async def _defect(_: Request, __: Exception) -> Response:
    return replies.plain(500, "The node failed; its log says how.")

"""The application that callers reach: operations, one shape of refusal, and a true document of it all."""

from collections.abc import Sequence

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.routing import Route

from crank.api import (
    actions,
    actions_document,
    agents,
    authority,
    enrolment,
    federation,
    files,
    grants,
    identities,
    keys,
    metrics,
    nodes,
    problem,
    rest,
    sessions,
    streams,
    tokens,
    trust,
    workloads,
)
from crank.api.documents import openapi
from crank.api.mcp.door import Door
from crank.api.peer import Gate
from crank.controller.desk import Desk
from crank.controller.revocation_list import RevocationLists
from crank.domain.rules.doorway import known_names

_DESCRIPTION = (
    "Hand over a piece of Python and get real work done on machines you own. Send the secret of the node's token "
    "file as `Authorization: Bearer <secret>`. Every refusal is a problem document (RFC 9457) with a stable `code`, "
    "the `field`, the cause and a `fix`."
)


def build_api(
    desk: Desk, *, version: str, bind: str = "127.0.0.1", more_names: Sequence[str] = (), public_url: str = ""
) -> FastAPI:
    """Return the ASGI application of the API listener; the explorer at /docs needs nothing from outside.

    bind, more_names  the address that the listener uses, and names by which else clients reach it
    public_url  under which ChatGPT reaches this node; empty where that is the address it asked
    """
    app: FastAPI = FastAPIOffline(
        docs_url="/docs",
        redoc_url=None,
        title="Crank",
        summary="Runs the Python that AI agents write, on machines you own.",
        description=_DESCRIPTION,
        version=version,
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    app.state.desk = desk
    app.state.gate = Gate(desk)
    app.state.revocation_lists = RevocationLists()
    app.state.public_url = public_url
    app.state.bind = bind
    app.state.names = known_names(bind, more_names)
    app.state.mcp = Door(desk, app.state.gate, version=version, names=app.state.names)
    problem.install(app)
    for part in (
        rest, streams, files, sessions, nodes, keys, identities, authority, grants, tokens,
        metrics, agents, actions_document, trust, federation, workloads,
    ):  # fmt: skip
        app.include_router(part.router)
    for router in (enrolment.router, enrolment.door):
        app.include_router(router)
    app.include_router(identities.open_router)
    # A document of their own describes them.
    app.include_router(actions.router, include_in_schema=False)
    app.router.routes.append(Route("/mcp", app.state.mcp, include_in_schema=False))
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]
    return app

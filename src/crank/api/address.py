"""Under which address a caller reached this node, told by what the node knows of itself and never by a header alone."""

from starlette.requests import Request

from crank.domain.rules import doorway


def base_url(request: Request) -> str:
    """Return the address under which the caller reached this node, if that is one of its names; else what it calls itself."""
    state = request.app.state
    host = request.headers.get("host", "")
    if doorway.is_known(host, state.names):
        return f"https://{host}"
    if state.public_url:
        return str(state.public_url)
    server = request.scope.get("server")
    return f"https://{doorway.own_place(state.bind, server[1] if server else None)}"


def asked_url(request: Request) -> str:
    """Return the address that a request was sent to, as its sender must have written it, without a query."""
    path = request.scope.get("raw_path") or request.url.path.encode("utf-8", "surrogateescape")
    return base_url(request) + path.decode("latin-1").partition("?")[0]

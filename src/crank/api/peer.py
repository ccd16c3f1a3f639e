"""Who calls: a bearer secret on the API, a certificate on the workers' listener."""

import hashlib
from dataclasses import dataclass

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from crank.controller.desk import Desk
from crank.domain.ids import Digest, TenantId
from crank.errors import NotAuthenticated

SECRET_CHARS_MAX = 512

bearer = HTTPBearer(auto_error=False, scheme_name="bearer", description="The secret in the node's token file.")


@dataclass(frozen=True, slots=True)
class Caller:
    """A proven caller of the API; `subject` is who the records name."""

    tenant: TenantId
    subject: str


def _refused() -> NotAuthenticated:
    # One sentence for every way to fail: the difference would help a guesser only.
    return NotAuthenticated("The request carries no credential that this node knows.")


async def authenticate(request: Request) -> Caller:
    """Return who calls, by the Authorization header. Raises NotAuthenticated."""
    known: Caller | None = getattr(request.state, "caller", None)
    if known is not None:
        return known
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(secret) <= SECRET_CHARS_MAX:
        raise _refused()
    # The secret has 256 bits of its own, so a plain hash is enough, and looking it up leaks nothing.
    hashed = Digest(hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest())
    tenant = await desk_of(request).store.read(lambda tx: tx.registry.credential_tenant(hashed))
    if tenant is None:
        raise _refused()
    request.state.caller = Caller(tenant=tenant, subject="local")
    return Caller(tenant=tenant, subject="local")


async def prove_caller(
    request: Request,
    _: HTTPAuthorizationCredentials | None = Security(bearer),  # noqa: B008 - FastAPI's way to declare the scheme
) -> Caller:
    """Return who calls. Raises NotAuthenticated."""
    return await authenticate(request)


def desk_of(request: Request) -> Desk:
    """Return the desk that the app works with."""
    desk: Desk = request.app.state.desk
    return desk

"""Who calls: from a bearer credential to a tenant. The store knows only the credential's hash."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from fastapi import Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

from crank.controller.desk import Desk
from crank.domain.ids import Digest, TenantId
from crank.errors import NotAuthenticated

CACHED_MAX = 1024
# A credential that is taken away works this long at most.
CACHED_SEC = 10.0
SECRET_CHARS_MAX = 512


@dataclass(frozen=True, slots=True)
class Caller:
    """A proven caller; `subject` is what records name."""

    tenant: TenantId
    subject: str


class Gate:
    """Admits callers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._known: OrderedDict[Digest, tuple[TenantId, float]] = OrderedDict()

    async def admit(self, request: Request) -> Caller:
        """Return who asks. Raises NotAuthenticated, the same for every cause, so that it tells nothing."""
        headers = request.headers.getlist("authorization")
        scheme, _, secret = (headers[0] if len(headers) == 1 else "").partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not 0 < len(secret) <= SECRET_CHARS_MAX:
            raise _unknown()
        hashed = Digest(hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest())
        return Caller(tenant=await self._tenant(hashed), subject="local")

    async def _tenant(self, hashed: Digest) -> TenantId:
        now_sec = self._desk.clock.monotonic_sec()
        known = self._known.get(hashed)
        if known is not None and now_sec < known[1]:
            return known[0]
        tenant = await self._desk.store.read(lambda tx: tx.registry.credential_tenant(hashed))
        if tenant is None:
            self._known.pop(hashed, None)
            raise _unknown()
        self._known[hashed] = (tenant, now_sec + CACHED_SEC)
        if len(self._known) > CACHED_MAX:
            self._known.popitem(last=False)
        return tenant


def _unknown() -> NotAuthenticated:
    return NotAuthenticated("This request carries no credential that this node knows.")


class Bearer(SecurityBase):
    """Gives an operation its caller, and the document its security scheme."""

    def __init__(self) -> None:
        self.model = HTTPBearerModel(description="The secret in the node's token file.")
        self.scheme_name = "bearer"

    async def __call__(self, request: Request) -> Caller:
        """Return the caller whom the route admitted before it read anything."""
        caller: Caller = request.state.caller
        return caller


bearer = Bearer()

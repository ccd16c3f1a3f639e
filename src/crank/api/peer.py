"""Who calls: from a secret to a caller and the desk that serves them. The store knows only the secret's hash."""

from collections import OrderedDict
from dataclasses import dataclass

from fastapi import Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

from crank.controller.access import authenticate
from crank.controller.desk import Desk
from crank.controller.keys import hash_of
from crank.controller.scope import desk_for, unknown
from crank.domain.credential import Credential, CredentialKind
from crank.domain.ids import Digest, TenantId
from crank.domain.rules.access import API_KINDS, lives

CACHED_MAX = 1024
# Changes of keys end what is cached at once; this only bounds how seldom a use is noted.
CACHED_SEC = 10.0
SECRET_CHARS_MAX = 512


@dataclass(frozen=True, slots=True)
class Caller:
    """A proven caller.

    desk  the desk as their credential sees it: hand this one to use cases, and no other
    """

    credential: Credential
    desk: Desk

    @property
    def tenant(self) -> TenantId:
        """Return the tenant whose credential it is."""
        return self.credential.tenant

    @property
    def subject(self) -> str:
        """Return what records name."""
        return self.credential.subject


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller
    generation: int
    until_sec: float


class Gate:
    """Admits callers by their secret. `kinds` of credentials are let in here; others are as good as unknown."""

    def __init__(self, desk: Desk, kinds: frozenset[CredentialKind] = API_KINDS) -> None:
        self._desk = desk
        self._kinds = kinds
        self._known: OrderedDict[Digest, _Known] = OrderedDict()

    async def admit(self, request: Request) -> Caller:
        """Return who asks, by a bearer secret. Raises NotAuthenticated, the same for every cause."""
        headers = request.headers.getlist("authorization")
        scheme, _, secret = (headers[0] if len(headers) == 1 else "").partition(" ")
        if scheme.lower() != "bearer":
            raise unknown()
        return await self.admit_secret(secret.strip())

    async def admit_secret(self, secret: str) -> Caller:
        """Return whose secret this is. Raises NotAuthenticated, the same for every cause, so that it tells nothing."""
        if not 0 < len(secret) <= SECRET_CHARS_MAX:
            raise unknown()
        hashed = hash_of(secret)
        known = self._known.get(hashed)
        if known is not None and self._holds(known):
            return known.caller
        self._known.pop(hashed, None)
        # Read before the store is asked: a change in between makes this answer old at once.
        generation = self._desk.keyring.generation
        credential = await authenticate(self._desk, hashed, self._kinds)
        caller = Caller(credential, desk_for(self._desk, credential))
        self._known[hashed] = _Known(caller, generation, self._desk.clock.monotonic_sec() + CACHED_SEC)
        if len(self._known) > CACHED_MAX:
            self._known.popitem(last=False)
        return caller

    def _holds(self, known: _Known) -> bool:
        fresh = self._desk.clock.monotonic_sec() < known.until_sec
        same = known.generation == self._desk.keyring.generation
        return fresh and same and lives(known.caller.credential, self._desk.clock.now_us())


class Bearer(SecurityBase):
    """Gives an operation its caller, and the document its security scheme."""

    def __init__(self) -> None:
        self.model = HTTPBearerModel(description="The secret in the node's token file, or that of a key.")
        self.scheme_name = "bearer"

    async def __call__(self, request: Request) -> Caller:
        """Return the caller whom the route admitted before it read anything."""
        caller: Caller = request.state.caller
        return caller


bearer = Bearer()

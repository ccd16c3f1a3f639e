"""Who calls: from a secret to a caller and the desk that serves them. The store knows only the secret's hash."""

from collections import OrderedDict
from dataclasses import dataclass

from fastapi import Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

from crank.api.holder import PROOF_HEADER, count, peer_of, proven
from crank.controller.access import authenticate, refuse_workload
from crank.controller.desk import Desk
from crank.controller.keys import hash_of
from crank.controller.present import present
from crank.controller.scope import desk_for, desk_for_grant, unknown
from crank.domain.chain import looks_like_chain
from crank.domain.credential import Credential, CredentialKind
from crank.domain.ids import Digest, TenantId
from crank.domain.rules.access import API_KINDS, lives
from crank.domain.rules.token import TOKEN_CHARS_MAX
from crank.errors import NotAuthenticated

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


def shown(request: Request) -> tuple[str, str]:
    """Return the scheme, in lower case, and the credential of the one Authorization header; empty where there is none."""
    headers = request.headers.getlist("authorization")
    scheme, _, secret = (headers[0] if len(headers) == 1 else "").partition(" ")
    return scheme.lower(), secret.strip()


def looks_like_token(secret: str) -> bool:
    """Tell whether this is a token (its first part is the JSON of a header) rather than a key's secret."""
    return secret.startswith("eyJ") and secret.count(".") == 2


class Gate:
    """Admits callers by their secret. `kinds` of credentials are let in here; others are as good as unknown."""

    def __init__(self, desk: Desk, kinds: frozenset[CredentialKind] = API_KINDS) -> None:
        self._desk = desk
        self._kinds = kinds
        self._known: OrderedDict[Digest, _Known] = OrderedDict()

    async def admit(self, request: Request) -> Caller:
        """Return who asks, by a key's secret or a token.

        Raises NotAuthenticated, the same for every cause with a key; NotAllowed for a workload without a token; and as
        `peer_of` where the connection's certificate no longer holds.
        """
        scheme, secret = shown(request)
        if scheme == "dpop" or (scheme == "bearer" and (looks_like_token(secret) or looks_like_chain(secret))):
            return await self._admit_token(request, scheme, secret)
        # Whoever shows a certificate shows one that holds, also beside a key.
        peer = None if self._desk.tokens is None else peer_of(self._desk, request)
        if scheme != "bearer":
            if peer is not None:
                # An identity alone allows nothing here.
                await refuse_workload(self._desk, str(peer.spiffe_id), request.method)
            raise unknown()
        return await self.admit_secret(secret)

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
        return self._keep(hashed, Caller(credential, desk_for(self._desk, credential)), generation)

    def _keep(self, hashed: Digest, caller: Caller, generation: int) -> Caller:
        self._known[hashed] = _Known(caller, generation, self._desk.clock.monotonic_sec() + CACHED_SEC)
        if len(self._known) > CACHED_MAX:
            self._known.popitem(last=False)
        return caller

    async def _admit_token(self, request: Request, scheme: str, token: str) -> Caller:
        """Return who acts with a token. Raises NotAuthenticated (`invalid_token`, `invalid_dpop_proof`)."""
        if CredentialKind.API not in self._kinds or self._desk.tokens is None or len(token) > TOKEN_CHARS_MAX:
            raise unknown()
        holder = proven(self._desk, request, shown=token)
        if scheme == "dpop" and PROOF_HEADER not in request.headers:
            raise NotAuthenticated("This request carries no DPoP proof.", code="invalid_dpop_proof")
        # Who proves another key or name than before is another caller, for whom nothing was found out yet.
        hashed = hash_of(f"{token} {holder.jkt or ''} {holder.peer or ''}")
        known = self._known.get(hashed)
        if known is not None and self._holds(known):
            count(self._desk, holder)
            return known.caller
        generation = self._desk.keyring.generation
        credential, grant = await present(self._desk, token, holder.jkt, holder.peer)
        count(self._desk, holder)
        served = desk_for_grant(self._desk, credential, grant)
        assert served.asker is not None, "a desk of a grant has an asker"
        return self._keep(hashed, Caller(served.asker, served), generation)

    def _holds(self, known: _Known) -> bool:
        fresh = self._desk.clock.monotonic_sec() < known.until_sec
        same = known.generation == self._desk.keyring.generation
        return fresh and same and lives(known.caller.credential, self._desk.clock.now_us())


class Bearer(SecurityBase):
    """Gives an operation its caller, and the document its security scheme."""

    def __init__(self) -> None:
        self.model = HTTPBearerModel(
            description="The secret in the node's token file, that of a key, or a token of /v1/token."
        )
        self.scheme_name = "bearer"

    async def __call__(self, request: Request) -> Caller:
        """Return the caller whom the route admitted before it read anything."""
        caller: Caller = request.state.caller
        return caller


bearer = Bearer()

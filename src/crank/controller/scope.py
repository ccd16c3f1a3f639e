"""The desk as one credential sees it: what is not its own is not there, for every use case alike.

A use case is given a desk and asks its store; which credential stands behind the request is settled here, once, and
not in each of them. A bounded credential (see `Credential.bounded`) finds its own jobs and sessions, its own
idempotency keys, and the mounts that it was allowed; whatever else it asks for is answered as if it did not exist.
With a token the same holds for its space (see `Grant.space`), and of that only what its rights name is there; so it is
with a key that has rights.
Each transaction looks the credential, and the grant, up anew, so that a revocation or a change of its mounts holds from the next step
on, in requests that are under way too.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from crank.controller.desk import Desk
from crank.controller.narrowed import Sight, bounded, granted
from crank.domain.credential import OWNER_SUBJECT, Credential, CredentialKind
from crank.domain.grant import Grant, GrantId, Right
from crank.domain.rules import access
from crank.domain.rules import grant as grants
from crank.errors import NotAuthenticated
from crank.ports import Clock, Store, Transaction

T = TypeVar("T")


def desk_for(desk: Desk, credential: Credential) -> Desk:
    """Return the desk on which the requests of this credential are served."""
    if credential.subject == OWNER_SUBJECT:
        # The token file's own: it can neither be revoked nor is it bounded.
        return replace(desk, asker=credential)
    return replace(desk, asker=credential, store=ScopedStore(desk.store, credential, desk.clock))


def desk_for_grant(desk: Desk, credential: Credential, grant: Grant) -> Desk:
    """Return the desk on which requests with a token of this grant are served; the credential is what it stems from."""
    asker = Credential(
        credential_id=grant.space,
        tenant=grant.tenant,
        name="token",
        kind=CredentialKind.API,
        subject=grant.holder,
        created_us=grant.issued_us,
        expires_us=grant.expires_us,
        rights=grant.rights,
    )
    store = ScopedStore(desk.store, credential, desk.clock, grant=grant, asker=asker)
    return replace(desk, asker=asker, grant=grant, store=store)


def node_desk(desk: Desk) -> Desk:
    """Return the desk of the node itself, for what follows from an act whoever did it; never for the act."""
    store = desk.store.whole if isinstance(desk.store, ScopedStore) else desk.store
    return replace(desk, asker=None, grant=None, store=store)


def unknown() -> NotAuthenticated:
    """Return the one refusal for a credential that is unknown, expired or revoked, so that it tells nothing."""
    return NotAuthenticated("This request carries no credential that this node knows.")


class ScopedStore:
    """`ports.Store` as one credential sees it; whoever made the store starts and stops it."""

    def __init__(
        self,
        store: Store,
        credential: Credential,
        clock: Clock,
        *,
        grant: Grant | None = None,
        asker: Credential | None = None,
    ) -> None:
        self._store = store
        self._credential = credential
        self._clock = clock
        self._grant = grant
        self._asker = asker

    @property
    def whole(self) -> Store:
        """Return the store without the bounds."""
        return self._store

    async def start(self) -> None:
        """Do nothing: the store is open already."""

    async def stop(self) -> None:
        """Do nothing: others still use the store."""

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` as `Store.transact` does. Raises NotAuthenticated once the credential is dead."""
        return await self._store.transact(lambda tx: work(self._narrow(tx)))

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` as `Store.read` does. Raises NotAuthenticated once the credential is dead."""
        return await self._store.read(lambda tx: work(self._narrow(tx)))

    def _narrow(self, tx: Transaction) -> Transaction:
        found = tx.credentials.find(self._credential.tenant, self._credential.credential_id)
        if found is None or not access.lives(found, self._clock.now_us()):
            raise unknown()
        if self._grant is None or self._asker is None:
            if found.rights is not None:
                return granted(tx, found, found, Sight(tx, _as_grant(found, found.rights), of_key=True))
            return bounded(tx, found) if found.bounded else tx
        grant = tx.grants.find(self._grant.tenant, self._grant.grant_id)
        if grant is None or not grants.lives(grant, self._clock.now_us()):
            raise unknown()
        return granted(tx, self._asker, found, Sight(tx, grant))


def _as_grant(credential: Credential, rights: tuple[Right, ...]) -> Grant:
    """Return what the parts below see a key with rights by. It is stored nowhere, and by its times it never lives."""
    own, made_us = credential.credential_id, credential.created_us
    return Grant(GrantId(own), credential.tenant, own, credential.subject, rights, made_us, made_us, space=own)

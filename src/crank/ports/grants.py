"""The store of grants: what tokens carry, how often each was used, and for what."""

from collections.abc import Sequence
from typing import Protocol

from crank.domain.grant import Grant, GrantId
from crank.domain.ids import CredentialId, TenantId


class GrantStore(Protocol):
    """Grants by their ids, in trees, inside one transaction.

    Uses are counted in the transaction that accepts what they are for: what is not accepted is not counted, and two
    that are accepted at the same time are counted one after the other.
    """

    def insert(self, grant: Grant) -> None:
        """Add a grant. Raises Conflict (`grant_id_taken`)."""
        ...

    def find(self, tenant: TenantId, grant_id: GrantId) -> Grant | None:
        """Return the grant, ended and revoked ones too, or None."""
        ...

    def chain(self, tenant: TenantId, grant_id: GrantId) -> Sequence[Grant]:
        """Return the grant, the one that it was exchanged for, and so on to the first; nothing when there is none."""
        ...

    def page(
        self, tenant: TenantId, *, limit: int, before: str | None, credential_id: CredentialId | None = None
    ) -> Sequence[Grant]:
        """Return grants, newest first; `before` is the id of the last one seen.

        credential_id  only those that stem from this credential
        """
        ...

    def revoke(self, tenant: TenantId, grant_id: GrantId, at_us: int) -> Sequence[GrantId]:
        """Revoke a grant and all below it, and return their ids; one that was revoked before keeps its time."""
        ...

    def count(self, tenant: TenantId, grant_id: GrantId, place: int) -> tuple[int, int]:
        """Return how often the right at this place was used, and what that cost together."""
        ...

    def add(self, tenant: TenantId, grant_id: GrantId, place: int, cost: int) -> None:
        """Count one use of the right at this place."""
        ...

    def note(self, tenant: TenantId, used_for: str, grant_id: GrantId) -> None:
        """Keep under which grant a job or session, by its id, was asked for."""
        ...

    def noted(self, tenant: TenantId, used_for: str) -> GrantId | None:
        """Return under which grant a job or session was asked for, or None."""
        ...

    def spaces(self, tenant: TenantId, credential_id: CredentialId) -> set[CredentialId]:
        """Return the spaces of all grants that stem from a credential."""
        ...

    def of_party(self, name: str, *, alive_at_us: int) -> Sequence[Grant]:
        """Return the grants, oldest first, that live then and act for or by whoever is called so."""
        ...

    def purge(self, before_us: int) -> int:
        """Forget grants that ended before that time, with their counts, and uses for what is kept no more; return how many."""
        ...

"""Grants of the store in memory."""

import json
from collections.abc import Sequence
from dataclasses import replace

from crank.domain.grant import Grant, GrantId
from crank.domain.grant_codec import grant_document, parse_grant
from crank.domain.ids import CredentialId, JobId, SessionId, TenantId
from crank.domain.json import dumps
from crank.errors import Conflict
from crank.testing.memory_state import Part


class Grants(Part):
    """Keeps the promises of `ports.GrantStore`; a dict keeps the order of insertion."""

    def _all(self, tenant: TenantId) -> list[Grant]:
        return [parse_grant(json.loads(text)) for (of, _), text in self._state.grants.items() if of == tenant]

    def _put(self, grant: Grant) -> None:
        self._change().grants[grant.tenant, grant.grant_id] = dumps(grant_document(grant))

    def insert(self, grant: Grant) -> None:
        """Add a grant. Raises Conflict (`grant_id_taken`)."""
        if (grant.tenant, grant.grant_id) in self._change().grants:
            raise Conflict(f"There is a grant {grant.grant_id} already.", code="grant_id_taken")
        self._put(grant)

    def find(self, tenant: TenantId, grant_id: GrantId) -> Grant | None:
        """Return the grant, or None."""
        text = self._state.grants.get((tenant, grant_id))
        return None if text is None else parse_grant(json.loads(text))

    def chain(self, tenant: TenantId, grant_id: GrantId) -> Sequence[Grant]:
        """Return the grant and all above it, nearest first."""
        found: list[Grant] = []
        wanted: GrantId | None = grant_id
        while wanted is not None and (grant := self.find(tenant, wanted)) is not None:
            found.append(grant)
            wanted = grant.parent
        return found

    def page(
        self, tenant: TenantId, *, limit: int, before: str | None, credential_id: CredentialId | None = None
    ) -> Sequence[Grant]:
        """Return grants, newest first; a cursor that is not known gives an empty page."""
        found = self._all(tenant)
        if before is not None:
            ids = [str(grant.grant_id) for grant in found]
            found = found[: ids.index(before)] if before in ids else []
        return [grant for grant in found[::-1] if credential_id in (None, grant.credential_id)][:limit]

    def revoke(self, tenant: TenantId, grant_id: GrantId, at_us: int) -> Sequence[GrantId]:
        """Revoke a grant and all below it; return their ids."""
        ended: list[GrantId] = []
        for grant in self._all(tenant):
            # A parent was inserted before its children.
            if grant.grant_id == grant_id or grant.parent in ended:
                ended.append(grant.grant_id)
                self._put(replace(grant, revoked_us=at_us if grant.revoked_us is None else grant.revoked_us))
        return ended

    def count(self, tenant: TenantId, grant_id: GrantId, place: int) -> tuple[int, int]:
        """Return how often a right was used, and what that cost."""
        return self._state.grant_counts.get((tenant, grant_id, place), (0, 0))

    def add(self, tenant: TenantId, grant_id: GrantId, place: int, cost: int) -> None:
        """Count one use."""
        calls, before = self.count(tenant, grant_id, place)
        self._change().grant_counts[tenant, grant_id, place] = (calls + 1, before + cost)

    def note(self, tenant: TenantId, used_for: str, grant_id: GrantId) -> None:
        """Keep under which grant something was asked for."""
        self._change().grant_uses[tenant, used_for] = grant_id

    def noted(self, tenant: TenantId, used_for: str) -> GrantId | None:
        """Return under which grant something was asked for, or None."""
        return self._state.grant_uses.get((tenant, used_for))

    def spaces(self, tenant: TenantId, credential_id: CredentialId) -> set[CredentialId]:
        """Return the spaces of all grants that stem from a credential."""
        return {grant.space for grant in self._all(tenant) if grant.credential_id == credential_id}

    def of_party(self, name: str, *, alive_at_us: int) -> Sequence[Grant]:
        """Return the grants, oldest first, that live then and act for or by whoever is called so."""
        tenants = sorted({tenant for tenant, _ in self._state.grants})
        return [
            grant
            for tenant in tenants
            for grant in self._all(tenant)
            if name in (grant.subject, *grant.actors) and grant.revoked_us is None and grant.expires_us > alive_at_us
        ]

    def purge(self, before_us: int) -> int:
        """Forget grants that ended before that time, with their counts, and uses for what is kept no more."""
        state = self._change()
        tenants = {tenant for tenant, _ in state.grants}
        old = {
            (one.tenant, one.grant_id) for tenant in tenants for one in self._all(tenant) if one.expires_us < before_us
        }
        for key in old:
            del state.grants[key]
        state.grant_counts = {key: kept for key, kept in state.grant_counts.items() if key[:2] not in old}
        state.grant_uses = {
            (tenant, used_for): kept
            for (tenant, used_for), kept in state.grant_uses.items()
            if (tenant, kept) in state.grants
            or (tenant, JobId(used_for)) in state.jobs
            or (tenant, SessionId(used_for)) in state.sessions
        }
        return len(old)

"""Grants in their three tables, inside a transaction that the store opened."""

import sqlite3
from collections.abc import Sequence

from crank.adapters.sqlite import grant_statements as statements
from crank.adapters.sqlite.faults import is_unique_violation
from crank.adapters.sqlite.sessions import read_value
from crank.domain.grant import Grant, GrantId
from crank.domain.grant_codec import grant_document, parse_grant
from crank.domain.ids import CredentialId, TenantId
from crank.domain.json import dumps
from crank.errors import Conflict


class SqlGrants:
    """Keeps the promises of `ports.GrantStore`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def insert(self, grant: Grant) -> None:
        """Add a grant. Raises Conflict (`grant_id_taken`)."""
        document = grant_document(grant)
        row = {**document, "rights": dumps(document["rights"]), "actors": dumps(document["actors"])}
        try:
            self._sql.execute(statements.GRANT_INSERT, row)
        except sqlite3.IntegrityError as fault:
            if not is_unique_violation(fault):
                raise
            raise Conflict(f"There is a grant {grant.grant_id} already.", code="grant_id_taken") from fault

    def find(self, tenant: TenantId, grant_id: GrantId) -> Grant | None:
        """Return the grant, or None."""
        row = self._sql.execute(statements.GRANT_FIND, (tenant, grant_id)).fetchone()
        return None if row is None else _read(row)

    def chain(self, tenant: TenantId, grant_id: GrantId) -> Sequence[Grant]:
        """Return the grant and all above it, nearest first."""
        values = {"tenant": tenant, "grant_id": grant_id}
        return [_read(row) for row in self._sql.execute(statements.GRANT_CHAIN, values)]

    def page(
        self, tenant: TenantId, *, limit: int, before: str | None, credential_id: CredentialId | None = None
    ) -> Sequence[Grant]:
        """Return grants, newest first; a cursor that is not known gives an empty page."""
        statement = statements.GRANTS_PAGE[credential_id is not None, before is not None]
        values = {"tenant": tenant, "limit": limit, "before": before, "credential_id": credential_id}
        return [_read(row) for row in self._sql.execute(statement, values)]

    def revoke(self, tenant: TenantId, grant_id: GrantId, at_us: int) -> Sequence[GrantId]:
        """Revoke a grant and all below it; return their ids."""
        values = {"tenant": tenant, "grant_id": grant_id, "at_us": at_us}
        self._sql.execute(statements.GRANT_REVOKE, values)
        return [GrantId(row["grant_id"]) for row in self._sql.execute(statements.GRANT_BELOW, values)]

    def count(self, tenant: TenantId, grant_id: GrantId, place: int) -> tuple[int, int]:
        """Return how often a right was used, and what that cost."""
        row = self._sql.execute(statements.GRANT_COUNT, (tenant, grant_id, place)).fetchone()
        return (0, 0) if row is None else (row["calls"], row["cost"])

    def add(self, tenant: TenantId, grant_id: GrantId, place: int, cost: int) -> None:
        """Count one use."""
        self._sql.execute(statements.GRANT_ADD, (tenant, grant_id, place, cost))

    def note(self, tenant: TenantId, used_for: str, grant_id: GrantId) -> None:
        """Keep under which grant something was asked for."""
        self._sql.execute(statements.GRANT_NOTE, (tenant, used_for, grant_id))

    def noted(self, tenant: TenantId, used_for: str) -> GrantId | None:
        """Return under which grant something was asked for, or None."""
        row = self._sql.execute(statements.GRANT_NOTED, (tenant, used_for)).fetchone()
        return None if row is None else GrantId(row["grant_id"])

    def spaces(self, tenant: TenantId, credential_id: CredentialId) -> set[CredentialId]:
        """Return the spaces of all grants that stem from a credential."""
        found = self._sql.execute(statements.GRANT_SPACES, (tenant, credential_id))
        return {CredentialId(row["space"]) for row in found}

    def of_party(self, name: str, *, alive_at_us: int) -> Sequence[Grant]:
        """Return the grants, oldest first, that live then and act for or by whoever is called so."""
        values = {"name": name, "alive_at_us": alive_at_us}
        return [_read(row) for row in self._sql.execute(statements.GRANTS_OF_PARTY, values)]

    def purge(self, before_us: int) -> int:
        """Forget grants that ended before that time, with their counts, and uses for what is kept no more."""
        self._sql.execute(statements.GRANT_PURGE_COUNTS, (before_us,))
        forgotten = self._sql.execute(statements.GRANT_PURGE, (before_us,)).rowcount
        self._sql.execute(statements.GRANT_PURGE_USES)
        return forgotten


def _read(row: sqlite3.Row) -> Grant:
    document = dict(row)
    return parse_grant({**document, "rights": read_value(document["rights"]), "actors": read_value(document["actors"])})

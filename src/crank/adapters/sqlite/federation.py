"""Foreign trust domains in their table, inside a transaction that the store opened."""

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict

from crank.adapters.sqlite.faults import is_unique_violation
from crank.domain.federation import EndpointProfile, Federated
from crank.errors import Conflict, NotFound, StoreError

_COLUMNS = """
    trust_domain, url, profile, endpoint_id, ca_pem, private, stale_after_sec, added_us, bundle, fetched_us, tried_us,
    failure"""
FEDERATION_INSERT = """
INSERT INTO federation (
    trust_domain, url, profile, endpoint_id, ca_pem, private, stale_after_sec, added_us, bundle, fetched_us, tried_us,
    failure
) VALUES (
    :trust_domain, :url, :profile, :endpoint_id, :ca_pem, :private, :stale_after_sec, :added_us, :bundle, :fetched_us,
    :tried_us, :failure
)"""
FEDERATION_FIND = f"SELECT {_COLUMNS} FROM federation WHERE trust_domain = ?"  # noqa: S608 - our own constant
FEDERATION_ALL = f"SELECT {_COLUMNS} FROM federation ORDER BY trust_domain"  # noqa: S608 - our own constant
# What is pinned is never written twice.
FEDERATION_UPDATE = """
UPDATE federation SET bundle = :bundle, fetched_us = :fetched_us, tried_us = :tried_us, failure = :failure
WHERE trust_domain = :trust_domain"""
FEDERATION_REMOVE = "DELETE FROM federation WHERE trust_domain = ?"


class SqlFederation:
    """Keeps the promises of `ports.FederationStore`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def insert(self, federated: Federated) -> None:
        """Add a domain. Raises Conflict (`federation_exists`)."""
        try:
            self._sql.execute(FEDERATION_INSERT, _row(federated))
        except sqlite3.IntegrityError as fault:
            if not is_unique_violation(fault):
                raise
            raise federation_exists(federated.trust_domain) from fault

    def find(self, trust_domain: str) -> Federated | None:
        """Return the domain, or None."""
        row = self._sql.execute(FEDERATION_FIND, (trust_domain,)).fetchone()
        return None if row is None else _read(row)

    def all(self) -> Sequence[Federated]:
        """Return every domain, by name."""
        return [_read(row) for row in self._sql.execute(FEDERATION_ALL).fetchall()]

    def update(self, federated: Federated) -> None:
        """Replace its bundle, the times and the failure. Raises NotFound."""
        if not self._sql.execute(FEDERATION_UPDATE, _row(federated)).rowcount:
            raise NotFound("There is no such federation.", code="federation_not_found")

    def remove(self, trust_domain: str) -> bool:
        """Forget a domain; tell whether it was there."""
        return self._sql.execute(FEDERATION_REMOVE, (trust_domain,)).rowcount > 0


def federation_exists(trust_domain: str) -> Conflict:
    """Return the refusal of a domain that is there already."""
    return Conflict(
        f"This node is federated with {trust_domain} already.",
        code="federation_exists",
        field="trust_domain",
        fix="Remove it first: what a federation is pinned to never changes.",
    )


def _row(federated: Federated) -> dict[str, object]:
    return {**asdict(federated), "profile": str(federated.profile), "private": int(federated.private)}


def _read(row: sqlite3.Row) -> Federated:
    document = dict(row)
    try:
        return Federated(
            **{**document, "profile": EndpointProfile(document["profile"]), "private": bool(document["private"])}
        )
    except ValueError as fault:
        raise StoreError("A row of the table federation cannot be read.", code="store_corrupt") from fault

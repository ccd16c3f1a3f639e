"""Issued identities and bans, inside a transaction that the store opened."""

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from crank.adapters.sqlite import statements
from crank.adapters.sqlite.faults import is_unique_violation
from crank.domain.identity import SpiffeId, parse_spiffe_id
from crank.domain.ids import InstanceId
from crank.domain.issued import Ban, IssuedIdentity
from crank.domain.trust import Attestation
from crank.domain.workload import EntryId
from crank.errors import Conflict, InvalidRequest, NotFound, StoreError


class SqlIdentities:
    """Keeps the promises of `ports.IdentityStore`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def insert(self, identity: IssuedIdentity) -> None:
        """Add a certificate. Raises Conflict (`serial_taken`)."""
        row = {**asdict(identity), "spiffe_id": str(identity.spiffe_id), "attestation": int(identity.attestation)}
        try:
            self._sql.execute(statements.IDENTITY_INSERT, row)
        except sqlite3.IntegrityError as fault:
            if not is_unique_violation(fault):
                raise
            raise Conflict(f"A certificate has the serial {identity.serial} already.", code="serial_taken") from fault

    def find(self, serial: str) -> IssuedIdentity | None:
        """Return the certificate with this serial, or None."""
        row = self._sql.execute(statements.IDENTITY_FIND, (serial,)).fetchone()
        return None if row is None else _read(row)

    def of(self, spiffe_id: SpiffeId, *, valid_at_us: int) -> Sequence[IssuedIdentity]:
        """Return the certificates of a SPIFFE ID that expire after that time, oldest first."""
        return self._all(statements.IDENTITIES_OF, (str(spiffe_id), valid_at_us))

    def of_workload(self, entry_id: EntryId, *, valid_at_us: int) -> Sequence[IssuedIdentity]:
        """Return the certificates of a workload's entry that expire after that time, oldest first."""
        return self._all(statements.IDENTITIES_OF_WORKLOAD, (entry_id, valid_at_us))

    def page(self, *, limit: int, valid_at_us: int) -> Sequence[IssuedIdentity]:
        """Return certificates that expire after that time, newest first."""
        return self._all(statements.IDENTITIES_PAGE, (valid_at_us, limit))

    def revoke(self, serial: str, at_us: int, reason: str) -> None:
        """Note that a certificate was revoked; the first time and reason stay. Raises NotFound."""
        values = {"serial": serial, "at_us": at_us, "reason": reason}
        if not self._sql.execute(statements.IDENTITY_REVOKE, values).rowcount:
            raise NotFound("There is no such certificate.", code="identity_not_found")

    def revoked(self, *, valid_at_us: int) -> Sequence[IssuedIdentity]:
        """Return the revoked certificates that expire after that time, oldest first."""
        return self._all(statements.IDENTITIES_REVOKED, (valid_at_us,))

    def ban(self, ban: Ban) -> None:
        """Note that a SPIFFE ID gets no certificate; the first time and reason stay."""
        self._sql.execute(statements.BAN_PUT, (str(ban.spiffe_id), ban.since_us, ban.reason))

    def lift(self, spiffe_id: SpiffeId) -> bool:
        """Let a SPIFFE ID get certificates again; tell whether it was banned."""
        return self._sql.execute(statements.BAN_LIFT, (str(spiffe_id),)).rowcount > 0

    def is_banned(self, spiffe_id: SpiffeId) -> bool:
        """Tell whether a SPIFFE ID is banned."""
        return self._sql.execute(statements.BAN_FIND, (str(spiffe_id),)).fetchone() is not None

    def bans(self) -> Sequence[Ban]:
        """Return all bans, by SPIFFE ID."""
        rows = self._sql.execute(statements.BANS).fetchall()
        return [Ban(_id(row["spiffe_id"]), row["since_us"], row["reason"]) for row in rows]

    def purge(self, before_us: int) -> int:
        """Forget certificates that expired before that time; return how many."""
        return self._sql.execute(statements.IDENTITIES_PURGE, (before_us,)).rowcount

    def next_number(self) -> int:
        """Return the number of the next list of revocations."""
        return int(self._sql.execute(statements.REVOCATION_LIST_NEXT).fetchone()["number"])

    def _all(self, statement: str, values: tuple[Any, ...]) -> Sequence[IssuedIdentity]:
        return [_read(row) for row in self._sql.execute(statement, values).fetchall()]


def _id(text: str) -> SpiffeId:
    try:
        return parse_spiffe_id(text)
    except InvalidRequest as fault:
        raise StoreError(f"An identity cannot be read: {fault.message}", code="store_corrupt") from fault


def _read(row: sqlite3.Row) -> IssuedIdentity:
    document = dict(row)
    try:
        attestation = Attestation(document["attestation"])
    except ValueError as fault:
        raise StoreError("An identity has an unknown level of attestation.", code="store_corrupt") from fault
    read = {"spiffe_id": _id(document["spiffe_id"]), "attestation": attestation}
    return IssuedIdentity(**{**document, **read, "instance_id": InstanceId(document["instance_id"])})

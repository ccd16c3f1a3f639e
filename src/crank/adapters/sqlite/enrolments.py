"""Enrolments in their table, inside a transaction that the store opened."""

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from crank.adapters.sqlite import statements
from crank.adapters.sqlite.faults import is_unique_violation
from crank.adapters.sqlite.sessions import read_value
from crank.domain.enrolment import Enrolment
from crank.domain.ids import Digest, WorkerId
from crank.domain.json import dumps
from crank.domain.trust import Attestation
from crank.errors import Conflict, NotFound, StoreError


class SqlEnrolments:
    """Keeps the promises of `ports.EnrolmentStore`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def insert(self, enrolment: Enrolment, token_sha256: Digest | None) -> None:
        """Add a node. Raises Conflict (`node_name_taken`, `thumbprint_taken`, `node_taken`)."""
        if self._sql.execute(statements.ENROLMENT_NAMED, (enrolment.name,)).fetchone() is not None:
            raise name_taken(enrolment.name)
        self._check_thumbprint(enrolment)
        try:
            self._sql.execute(statements.ENROLMENT_INSERT, {**_row(enrolment), "token_sha256": token_sha256})
        except sqlite3.IntegrityError as fault:
            if not is_unique_violation(fault):
                raise
            raise Conflict("There is a node with this id or token already.", code="node_taken") from fault

    def by_token(self, token_sha256: Digest) -> Enrolment | None:
        """Return the enrolment whose token has this hash, or None."""
        return self._one(statements.ENROLMENT_BY_TOKEN, token_sha256)

    def by_thumbprint(self, thumbprint: Digest) -> Enrolment | None:
        """Return the enrolment that is not forgotten and has this certificate, or None."""
        return self._one(statements.ENROLMENT_BY_THUMBPRINT, thumbprint)

    def of_worker(self, worker_id: WorkerId) -> Enrolment | None:
        """Return the enrolment of the node whose worker this is, or None."""
        return self._one(statements.ENROLMENT_OF_WORKER, worker_id)

    def all(self) -> Sequence[Enrolment]:
        """Return every enrolment, oldest first."""
        return [_read(row) for row in self._sql.execute(statements.ENROLMENTS_ALL)]

    def update(self, enrolment: Enrolment) -> None:
        """Replace what may change. Raises NotFound, Conflict (`thumbprint_taken`)."""
        self._check_thumbprint(enrolment)
        if not self._sql.execute(statements.ENROLMENT_UPDATE, _row(enrolment)).rowcount:
            raise NotFound("There is no such node.", code="node_not_found")

    def _check_thumbprint(self, enrolment: Enrolment) -> None:
        if enrolment.thumbprint is None or enrolment.forgotten_us is not None:
            return
        other = self.by_thumbprint(enrolment.thumbprint)
        if other is not None and other.node_id != enrolment.node_id:
            raise thumbprint_taken(other.name)

    def _one(self, statement: str, value: str) -> Enrolment | None:
        row = self._sql.execute(statement, (value,)).fetchone()
        return None if row is None else _read(row)


def _row(enrolment: Enrolment) -> dict[str, Any]:
    return {
        **asdict(enrolment),
        "capabilities": dumps(list(enrolment.capabilities)),
        "machine": dumps(enrolment.machine),
        "attestation": enrolment.attestation.label,
        "pins": int(enrolment.pins),
    }


def _read(row: sqlite3.Row) -> Enrolment:
    document = dict(row)
    try:
        return Enrolment(
            **{
                **document,
                "capabilities": tuple(read_value(document["capabilities"])),
                "machine": read_value(document["machine"]),
                "attestation": Attestation[document["attestation"].upper()],
                "pins": bool(document["pins"]),
            }
        )
    except (KeyError, TypeError) as fault:
        raise StoreError(f"A stored node cannot be read back: {fault!r}.", code="store_corrupt") from fault


def name_taken(name: str) -> Conflict:
    """Return the refusal of a name that a node has which is not forgotten."""
    return Conflict(
        f"There is a node named {name!r} already.",
        code="node_name_taken",
        field="name",
        fix=f"Choose another name, or forget that node first: crank node forget {name}.",
    )


def thumbprint_taken(name: str) -> Conflict:
    """Return the refusal of a certificate by which another node proves itself."""
    return Conflict(
        f"The node {name!r} proves itself by this certificate already.",
        code="thumbprint_taken",
        field="thumbprint",
        fix=f"Forget that node first: crank node forget {name}.",
    )

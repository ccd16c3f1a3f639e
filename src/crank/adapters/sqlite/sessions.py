"""Sessions in the table `session`, inside a transaction that the store opened."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from crank.adapters.sqlite import statements
from crank.adapters.sqlite.faults import is_unique_violation
from crank.domain import session_codec
from crank.domain.ids import CredentialId, SessionId, TenantId
from crank.domain.json import JsonValue, dumps
from crank.domain.session import Session
from crank.errors import Conflict, NotFound, StoreError


def read_value(text: str) -> JsonValue:
    """Read stored JSON. Raises StoreError (`store_corrupt`)."""
    try:
        return json.loads(text)
    except ValueError as fault:
        raise StoreError(f"A stored document is not JSON: {fault}.", code="store_corrupt") from fault


def _row(session: Session) -> dict[str, Any]:
    document = session_codec.session_document(session)
    end = document["end"]
    return {**document, "request": dumps(document["request"]), "end": None if end is None else dumps(end)}


def _read(row: sqlite3.Row) -> Session:
    document = dict(row)
    document["request"] = read_value(document["request"])
    document["end"] = None if document["end"] is None else read_value(document["end"])
    return session_codec.parse_session(document)


class SqlSessions:
    """Keeps the promises of `ports.SessionStore`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def _all(self, statement: str, values: Sequence[Any] | dict[str, Any]) -> Sequence[Session]:
        return [_read(row) for row in self._sql.execute(statement, values)]

    def insert(self, session: Session) -> None:
        """Add a session. Raises Conflict (`session_id_taken`)."""
        try:
            self._sql.execute(statements.SESSION_INSERT, _row(session))
        except sqlite3.IntegrityError as fault:
            if not is_unique_violation(fault):
                raise
            raise Conflict(f"There is a session {session.session_id} already.", code="session_id_taken") from fault

    def find(self, tenant: TenantId, session_id: SessionId) -> Session | None:
        """Return the session, or None."""
        row = self._sql.execute(statements.SESSION_FIND, (tenant, session_id)).fetchone()
        return None if row is None else _read(row)

    def update(self, session: Session) -> None:
        """Replace what may change of a session. Raises NotFound."""
        if not self._sql.execute(statements.SESSION_UPDATE, _row(session)).rowcount:
            raise NotFound(f"There is no session {session.session_id}.", code="session_not_found")

    def live(self) -> Sequence[Session]:
        """Return the sessions that have not ended, oldest first."""
        return self._all(statements.SESSIONS_LIVE, ())

    def page(
        self, tenant: TenantId, *, limit: int, before: str | None, owner: CredentialId | None = None
    ) -> Sequence[Session]:
        """Return sessions, newest first; a cursor that is not known gives an empty page."""
        statement = statements.SESSIONS_PAGE[owner is not None, before is not None]
        return self._all(statement, {"tenant": tenant, "limit": limit, "before": before, "owner": owner})

    def ended_before(self, at_us: int, limit: int) -> Sequence[Session]:
        """Return sessions that ended before that time, oldest first."""
        return self._all(statements.SESSIONS_ENDED_BEFORE, (at_us, limit))

    def delete(self, tenant: TenantId, session_id: SessionId) -> None:
        """Forget an ended session; one that is gone is no fault. Raises Conflict (`session_not_ended`)."""
        found = self.find(tenant, session_id)
        if found is not None and not found.ended:
            raise Conflict(f"The session {session_id} has not ended.", code="session_not_ended")
        self._sql.execute(statements.SESSION_DELETE, (tenant, session_id))

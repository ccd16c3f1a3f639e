"""Constraints: whether args satisfy the schemas that a grant asks for, within a bound of time for them all."""

from crank.domain.json import JsonObject, JsonValue, canonical
from crank.domain.rules.grant import Satisfies
from crank.errors import InvalidRequest
from crank.ports import Clock, SchemaChecker

# For all constraints of a grant together, and of those above it.
_LOOKED_AT_SEC_MAX = 5.0


def satisfies_by(schemas: SchemaChecker, clock: Clock) -> Satisfies:
    """Return what checks the args of one request, each schema once. It raises InvalidRequest (`args_too_costly`)."""
    begun_sec = clock.monotonic_sec()
    known: dict[bytes, bool] = {}

    def satisfies(schema: JsonObject, value: JsonValue) -> bool:
        written = canonical(schema)
        if written not in known:
            known[written] = look(schema, value)
        return known[written]

    def look(schema: JsonObject, value: JsonValue) -> bool:
        if clock.monotonic_sec() - begun_sec > _LOOKED_AT_SEC_MAX:
            # Each schema is bounded; a holder may have written down very many of them.
            raise InvalidRequest(
                "These args take too long to check against all that the token or key asks of them.",
                code="args_too_costly",
                field="args",
                fix="Send fewer of them, or use a token or key with fewer or simpler constraints.",
            )
        return not schemas.check(schema, value, field="args")

    return satisfies

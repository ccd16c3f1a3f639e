"""Requests whose answer is not out yet, so that a duplicate in flight is told so instead of queued."""

from collections.abc import Iterator
from contextlib import contextmanager

from crank.domain.ids import Digest, TenantId
from crank.errors import Conflict, InvalidRequest


class Flights:
    """The idempotency keys and client job ids that are being answered right now."""

    def __init__(self) -> None:
        self._flying: dict[tuple[TenantId, str], Digest] = {}

    @contextmanager
    def claim(self, tenant: TenantId, names: list[str], request_digest: Digest) -> Iterator[None]:
        """Hold the names until the answer is out.

        Raises Conflict (`idempotency_in_flight`) for the same request, InvalidRequest
        (`idempotency_mismatch`) for another one under the same name.
        """
        keys = [(tenant, name) for name in names]
        for key in keys:
            flying = self._flying.get(key)
            if flying == request_digest:
                raise Conflict(
                    "The same request is being answered right now.",
                    code="idempotency_in_flight",
                    field="idempotency_key",
                    fix="Wait a second and repeat it unchanged; you will get its answer.",
                )
            if flying is not None:
                raise InvalidRequest(
                    "Another request with this idempotency key or job id is being answered right now.",
                    code="idempotency_mismatch",
                    field="idempotency_key",
                    fix="Use a new key for a new request.",
                )
        self._flying.update(dict.fromkeys(keys, request_digest))
        try:
            yield
        finally:
            for key in keys:
                self._flying.pop(key, None)

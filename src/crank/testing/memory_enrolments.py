"""Enrolments of the store in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from crank.domain.enrolment import Enrolment
from crank.domain.ids import Digest, WorkerId
from crank.errors import Conflict, NotFound
from crank.testing.memory_state import Part


class Enrolments(Part):
    """Keeps the promises of `ports.EnrolmentStore`; a dict keeps the order of insertion."""

    def insert(self, enrolment: Enrolment, token_sha256: Digest | None) -> None:
        """Add a node. Raises Conflict (`node_name_taken`, `thumbprint_taken`, `node_taken`)."""
        state = self._change()
        if any(other.name == enrolment.name for other in self._living()):
            raise Conflict(f"There is a node named {enrolment.name!r} already.", code="node_name_taken")
        self._check_thumbprint(enrolment)
        for token, other in state.enrolments.values():
            if enrolment.node_id == other.node_id or (token_sha256 is not None and token == token_sha256):
                raise Conflict("There is a node with this id or token already.", code="node_taken")
        state.enrolments[enrolment.node_id] = (token_sha256, enrolment)

    def by_token(self, token_sha256: Digest) -> Enrolment | None:
        """Return the enrolment whose token has this hash, or None."""
        return next((found for token, found in self._state.enrolments.values() if token == token_sha256), None)

    def by_thumbprint(self, thumbprint: Digest) -> Enrolment | None:
        """Return the enrolment that is not forgotten and has this certificate, or None."""
        return next((found for found in self._living() if found.thumbprint == thumbprint), None)

    def of_worker(self, worker_id: WorkerId) -> Enrolment | None:
        """Return the enrolment of the node whose worker this is, or None."""
        return next((found for found in self.all() if found.worker_id == worker_id), None)

    def all(self) -> Sequence[Enrolment]:
        """Return every enrolment, oldest first."""
        return [found for _, found in self._state.enrolments.values()]

    def update(self, enrolment: Enrolment) -> None:
        """Replace what may change. Raises NotFound, Conflict (`thumbprint_taken`)."""
        state = self._change()
        if enrolment.node_id not in state.enrolments:
            raise NotFound("There is no such node.", code="node_not_found")
        self._check_thumbprint(enrolment)
        token, kept = state.enrolments[enrolment.node_id]
        changed = replace(
            enrolment,
            name=kept.name,
            worker_id=kept.worker_id,
            capabilities=kept.capabilities,
            created_us=kept.created_us,
            forgotten_us=kept.forgotten_us if kept.forgotten_us is not None else enrolment.forgotten_us,
        )
        state.enrolments[enrolment.node_id] = (token, changed)

    def _living(self) -> Iterator[Enrolment]:
        return (found for found in self.all() if found.forgotten_us is None)

    def _check_thumbprint(self, enrolment: Enrolment) -> None:
        if enrolment.thumbprint is None or enrolment.forgotten_us is not None:
            return
        for other in self._living():
            if other.thumbprint == enrolment.thumbprint and other.node_id != enrolment.node_id:
                raise Conflict("Another node proves itself by this certificate.", code="thumbprint_taken")

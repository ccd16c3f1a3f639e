"""The store of enrolments: which nodes were invited, registered, joined and forgotten."""

from collections.abc import Sequence
from typing import Protocol

from crank.domain.enrolment import Enrolment
from crank.domain.ids import Digest, WorkerId


class EnrolmentStore(Protocol):
    """Enrolments with the hashes of their join tokens, inside one transaction."""

    def insert(self, enrolment: Enrolment, token_sha256: Digest | None) -> None:
        """Add a node. Raises Conflict.

        `node_name_taken`: one that is not forgotten has the name; `thumbprint_taken`: or the certificate;
        `node_taken`: the id or the token is known.
        """
        ...

    def by_token(self, token_sha256: Digest) -> Enrolment | None:
        """Return the enrolment whose token has this hash, used, expired and forgotten ones too, or None."""
        ...

    def by_thumbprint(self, thumbprint: Digest) -> Enrolment | None:
        """Return the enrolment that is not forgotten and has this certificate, or None."""
        ...

    def of_worker(self, worker_id: WorkerId) -> Enrolment | None:
        """Return the enrolment of the node whose worker this is, a forgotten one too, or None."""
        ...

    def all(self) -> Sequence[Enrolment]:
        """Return every enrolment, oldest first, the forgotten ones too."""
        ...

    def update(self, enrolment: Enrolment) -> None:
        """Replace all but id, name, worker, capabilities and creation; what is forgotten stays so.

        Raises NotFound; Conflict (`thumbprint_taken`).
        """
        ...

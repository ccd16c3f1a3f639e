"""What is the owner's alone, as a bounded credential sees it: nothing is there, and nothing can be put there."""

from collections.abc import Sequence

from crank.domain.enrolment import Enrolment
from crank.domain.federation import Federated
from crank.domain.ids import Digest, WorkerId
from crank.errors import NotAllowed


class NoFederation:
    """Whom the node is federated with is its owner's affair: for a bounded credential there is nobody."""

    def insert(self, federated: Federated) -> None:
        """Refuse. Raises NotAllowed (`owner_only`)."""
        raise NotAllowed("Only the owner of the node federates it.", code="owner_only")

    def find(self, trust_domain: str) -> Federated | None:
        """Return None."""
        return None

    def all(self) -> Sequence[Federated]:
        """Return none."""
        return []

    def update(self, federated: Federated) -> None:
        """Refuse. Raises NotAllowed (`owner_only`)."""
        raise NotAllowed("Only the owner of the node federates it.", code="owner_only")

    def remove(self, trust_domain: str) -> bool:
        """Refuse. Raises NotAllowed (`owner_only`)."""
        raise NotAllowed("Only the owner of the node federates it.", code="owner_only")


class NoEnrolments:
    """Nodes are the owner's alone: a bounded credential finds none, and adds none."""

    def insert(self, enrolment: Enrolment, token_sha256: Digest | None) -> None:
        """Refuse. Raises NotAllowed (`owner_only`)."""
        raise NotAllowed("Only the owner of the node invites another.", code="owner_only")

    def by_token(self, token_sha256: Digest) -> Enrolment | None:
        """Return None."""
        return None

    def by_thumbprint(self, thumbprint: Digest) -> Enrolment | None:
        """Return None."""
        return None

    def of_worker(self, worker_id: WorkerId) -> Enrolment | None:
        """Return None."""
        return None

    def all(self) -> Sequence[Enrolment]:
        """Return none."""
        return []

    def update(self, enrolment: Enrolment) -> None:
        """Refuse. Raises NotAllowed (`owner_only`)."""
        raise NotAllowed("Only the owner of the node changes another.", code="owner_only")

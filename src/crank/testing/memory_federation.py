"""Foreign trust domains of the store in memory."""

from collections.abc import Sequence
from dataclasses import replace

from crank.domain.federation import Federated
from crank.errors import Conflict, NotFound
from crank.testing.memory_state import Part


class Federation(Part):
    """Keeps the promises of `ports.FederationStore`."""

    def insert(self, federated: Federated) -> None:
        """Add a domain. Raises Conflict (`federation_exists`)."""
        state = self._change()
        if federated.trust_domain in state.federation:
            raise Conflict("This node is federated with that domain already.", code="federation_exists")
        state.federation[federated.trust_domain] = federated

    def find(self, trust_domain: str) -> Federated | None:
        """Return the domain, or None."""
        return self._state.federation.get(trust_domain)

    def all(self) -> Sequence[Federated]:
        """Return every domain, by name."""
        return [self._state.federation[name] for name in sorted(self._state.federation)]

    def update(self, federated: Federated) -> None:
        """Replace its bundle, the times and the failure. Raises NotFound."""
        state = self._change()
        kept = state.federation.get(federated.trust_domain)
        if kept is None:
            raise NotFound("There is no such federation.", code="federation_not_found")
        state.federation[federated.trust_domain] = replace(
            kept,
            bundle=federated.bundle,
            fetched_us=federated.fetched_us,
            tried_us=federated.tried_us,
            failure=federated.failure,
        )

    def remove(self, trust_domain: str) -> bool:
        """Forget a domain; tell whether it was there."""
        return self._change().federation.pop(trust_domain, None) is not None

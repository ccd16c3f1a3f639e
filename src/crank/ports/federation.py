"""What federation needs from outside: a store, the text form of bundles, and publishers that are asked."""

from collections.abc import Sequence
from typing import Protocol

from crank.domain.federation import Federated
from crank.domain.identity import SpiffeId
from crank.domain.trust import TrustBundle


class FederationStore(Protocol):
    """Foreign trust domains, inside one transaction; they belong to the node, not to a tenant."""

    def insert(self, federated: Federated) -> None:
        """Add a domain. Raises Conflict (`federation_exists`)."""
        ...

    def find(self, trust_domain: str) -> Federated | None:
        """Return the domain, or None."""
        ...

    def all(self) -> Sequence[Federated]:
        """Return every domain, by name."""
        ...

    def update(self, federated: Federated) -> None:
        """Replace its bundle, the times and the failure; what is pinned never changes. Raises NotFound."""
        ...

    def remove(self, trust_domain: str) -> bool:
        """Forget a domain; tell whether it was there."""
        ...


class BundleFormat(Protocol):
    """SPIFFE bundles as text. Pure."""

    def write(self, bundle: TrustBundle) -> bytes:
        """Return the bundle as a JWK Set, the same bytes for the same bundle."""
        ...

    def read(self, trust_domain: str, raw: bytes) -> TrustBundle:
        """Read the bundle of a domain strictly. Raises InvalidRequest (`invalid_bundle`), TooLarge."""
        ...


class BundlePublishers(Protocol):
    """Asks the publishers of bundles."""

    async def fetch(
        self, url: str, *, private: bool, ca_pem: str | None = None, expected: tuple[SpiffeId, TrustBundle] | None = None
    ) -> bytes:
        """Return what a publisher shows now, unread.

        private   whether its address may lie in this machine or in a private network
        ca_pem    whose certificates prove its host name; None: those of the system's authorities
        expected  the SPIFFE ID that it must prove instead, and the bundle by which
        Raises Unavailable (`bundle_fetch_failed`), NotAllowed (`bundle_url_refused`), UntrustedPeer, TooLarge,
        InvalidRequest (`invalid_bundle_url`: a redirect; `invalid_federation`: the PEM).
        """
        ...

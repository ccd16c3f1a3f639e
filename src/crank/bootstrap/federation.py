"""Trust, wired: what publishes this node's bundle, keeps those of others, and proves peers by them."""

import ssl
from typing import Any

from crank.adapters.https_download import HttpsPublishers
from crank.controller.bundles import Bundles, Trust
from crank.controller.desk import Desk
from crank.controller.federate import trust_of
from crank.controller.polling import Polling
from crank.domain.trust import Peer, TrustBundle
from crank.ports import Authority, Clock
from crank.security import Verifier
from crank.security import bundles as text


def open_trust(authority: Authority, clock: Clock) -> Trust:
    """Return what a controller's desk is given."""

    def prove(bundle: TrustBundle, tls: ssl.SSLObject | Any) -> Peer:
        # One bundle, for whom one is expected: nobody else's may speak for a publisher.
        return Verifier(lambda domain: bundle if domain == bundle.trust_domain else None, now_us=clock.now_us).peer(tls)

    return Trust(
        authority=authority,
        bundles=Bundles(authority, clock),
        bundle_format=_Format(),
        publishers=HttpsPublishers(prove),
    )


async def start_polling(desk: Desk) -> Polling:
    """Return the service that looks for news of foreign bundles, running. Raises StoreError."""
    polling = Polling(desk, trust_of(desk))
    await polling.start()
    return polling


def verifier_of(desk: Desk) -> Verifier:
    """Return what proves whoever knocks at this node's doors: of our own trust domain, and of no other.

    Bundles of federated domains are for workloads; here nobody of theirs is let in.
    """
    bundles, own = trust_of(desk).bundles, desk.policy.trust_domain
    return Verifier(lambda domain: bundles.find(domain) if domain == own else None, now_us=desk.clock.now_us)


class _Format:
    """The BundleFormat port."""

    def write(self, bundle: TrustBundle) -> bytes:
        """Return the bundle as a JWK Set."""
        return text.write_bundle(bundle)

    def read(self, trust_domain: str, raw: bytes) -> TrustBundle:
        """Read the bundle of a domain strictly. Raises InvalidRequest, TooLarge."""
        return text.read_bundle(trust_domain, raw)

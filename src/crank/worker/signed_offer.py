"""What a worker offers, signed by the identity that it shows."""

from collections.abc import Sequence

from crank.domain.capability import capability_document
from crank.domain.enrolment import Manifest
from crank.ports import Clock, IdSource, ManifestSigner
from crank.worker.offers import Offer


def sign_offers(
    signer: ManifestSigner,
    offers: Sequence[Offer],
    *,
    named: tuple[str, str, str],
    clock: Clock,
    ids: IdSource,
) -> str:
    """Sign what a worker offers, anew for each connection: the controller believes none twice.

    named  the ids of worker, instance and node, as in `hello`
    """
    worker_id, instance_id, node_id = named
    manifest = Manifest(
        manifest_id=ids.uuid7(),
        worker_id=worker_id,
        instance_id=instance_id,
        node_id=node_id,
        signed_sec=clock.now_us() // 1_000_000,
        capabilities=tuple(capability_document(offer.capability) for offer in offers),
    )
    return signer.sign_manifest(manifest)

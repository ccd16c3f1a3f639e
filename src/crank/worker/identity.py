"""Who a worker is, and how it signs what it offers."""

from collections.abc import Sequence
from dataclasses import dataclass

from crank.domain.capability import capability_document
from crank.domain.enrolment import Manifest
from crank.ports import Clock, IdSource, ManifestSigner, OwnIdentity
from crank.worker.offers import Offer


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Who this worker says it is; `instance_id` is new for every process (UUID version 7).

    signer  has the key of the certificate that the worker shows
    own     by what it proves that, renewed for as long as the worker runs; None: it stays as it is
    """

    worker_id: str
    instance_id: str
    node_id: str
    software: str
    signer: ManifestSigner
    own: OwnIdentity | None = None

    def sign(self, offers: Sequence[Offer], clock: Clock, ids: IdSource) -> str:
        """Sign what the worker offers, anew for each connection: the controller believes none twice."""
        manifest = Manifest(
            manifest_id=ids.uuid7(),
            worker_id=self.worker_id,
            instance_id=self.instance_id,
            node_id=self.node_id,
            signed_sec=clock.now_us() // 1_000_000,
            capabilities=tuple(capability_document(offer.capability) for offer in offers),
        )
        return self.signer.sign_manifest(manifest)

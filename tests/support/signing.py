"""A worker's own key for tests, and what it signs with it."""

from cryptography.hazmat.primitives.asymmetric import ec

from crank.adapters.signed import jkt, own_certificate, sign_manifest
from crank.domain.enrolment import Manifest

_NOW_US = 1_790_000_000_000_000


class OwnKey:
    """Implements `ports.ManifestSigner` with a key of its own making; `jkt` is what a certificate of it would prove."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = own_certificate(self.key, _NOW_US)
        self.jkt = jkt(self.key.public_key())

    def sign_manifest(self, manifest: Manifest) -> str:
        """Sign it."""
        return sign_manifest(self.key, (self.certificate,), manifest)

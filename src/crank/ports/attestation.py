"""What attesters sign and verifiers check: the evidence of a node, and the manifest of a worker."""

from typing import Protocol

from crank.domain.enrolment import Evidence, Manifest


class Appraiser(Protocol):
    """Checks signatures and shapes, decides nothing. Quick enough for a loop's thread; safe in threads."""

    def read_evidence(self, signed: str) -> Evidence:
        """Read what a node signed. Raises InvalidRequest (`invalid_evidence`): damaged, too long, or not signed by
        the keys that it names."""
        ...

    def read_manifest(self, signed: str) -> tuple[Manifest, str]:
        """Read what a worker signed, and the RFC 7638 thumbprint of the key that signed it.

        Whose key that is is for the caller to compare. Raises NotAllowed (`manifest_not_believed`), TooLarge.
        """
        ...


class ManifestSigner(Protocol):
    """Signs with the key of the identity that a worker shows its controller at this time."""

    def sign_manifest(self, manifest: Manifest) -> str:
        """Return the manifest as a compact JWS. Raises ConfigurationError when the key cannot be read."""
        ...

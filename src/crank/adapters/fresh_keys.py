"""Keys for those who cannot make their own: fresh ones, never kept here."""

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


class FreshKeys:
    """The KeyMaker port on the cryptography library."""

    def make(self) -> tuple[bytes, bytes]:
        """Return a new P-256 key: private (DER, PKCS#8) and public (DER SubjectPublicKeyInfo)."""
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return private, public

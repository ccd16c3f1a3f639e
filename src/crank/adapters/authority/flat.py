"""The single self-signed authority of versions before step 4: `ca.pem` and `ca-key.pem`, one level deep.

A node that has it makes the tiers beside it. For the life of the longest certificate that the old one issued,
it stays published, and the node's own listeners go on showing certificates that it signed: so a worker or a client
that knows nothing but the old `ca.pem` still finds its node, while everybody else moves over.
"""

from pathlib import Path

from cryptography import x509

from crank.adapters.authority.files import damaged, read_certificate, read_key, remove
from crank.adapters.authority.shapes import Shapes, Signer

CERTIFICATE_FILE, KEY_FILE = "ca.pem", "ca-key.pem"
# What the old version issued lived so long.
FLAT_LEAF_DAYS = 30


def find_flat(folder: Path, shapes: Shapes) -> Signer | None:
    """Return the old authority, or None where there was none. Raises ConfigurationError."""
    path, key_path = folder / CERTIFICATE_FILE, folder / KEY_FILE
    if not path.exists():
        return None
    if not key_path.exists():
        raise damaged(key_path, "the authority's key is missing")
    key, certificate = read_key(key_path), read_certificate(path)
    if certificate.public_key() != key.public_key():
        raise damaged(path, "the authority's key and certificate do not belong together")
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    if uris != [f"spiffe://{shapes.trust_domain}"]:
        raise damaged(path, f"the authority is not that of the trust domain {shapes.trust_domain}")
    return Signer(key, certificate)


def forget_flat(folder: Path) -> None:
    """Destroy the old authority's key, then its certificate."""
    remove(folder / KEY_FILE)
    remove(folder / CERTIFICATE_FILE)

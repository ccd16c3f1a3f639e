"""Identities of this node's own parts, kept as PEM files that are renewed at half of their life.

A key is written once and never changes; a certificate is replaced whole when it is renewed. So a
crash at any moment leaves a pair that fits, or a key whose certificate is simply issued again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from crank.adapters.authority.files import damaged, ensure_key, pem, read_certificate, write
from crank.adapters.authority.shapes import Shapes, names_of
from crank.domain.identity import SpiffeId
from crank.domain.trust import Workload
from crank.domain.workload_codec import WORKLOAD_OID, decode_workload

# Renewed when between 40 and 50 of a hundred parts of its life are gone: not all of a node's at once.
_HALF, _JITTER = 0.5, 0.1
_JITTER_STEPS = 1024


@dataclass(frozen=True, slots=True)
class Identity:
    """Where an issued identity lies: PEM files in a folder of mode 0700, the key of mode 0600."""

    spiffe_id: SpiffeId
    folder: Path

    @property
    def key_file(self) -> Path:
        """Return the private key."""
        return self.folder / "key.pem"

    @property
    def certificate_file(self) -> Path:
        """Return the certificate, and below it the ones that lead to the root."""
        return self.folder / "cert.pem"

    @property
    def ca_file(self) -> Path:
        """Return the roots that both sides trust."""
        return self.folder / "ca.pem"


@dataclass(frozen=True, slots=True)
class Wanted:
    """An identity to keep in files.

    workload  None: as it stands in the certificate that is there, else made by `new_workload`
    issuer    the certificate that leaves are checked against now: below another one they are replaced at once
    """

    identity: Identity
    hosts: Sequence[str]
    workload: Workload | None
    new_workload: Callable[[], Workload]
    issuer: x509.Certificate


# Key, names, workload: the chain as signed now.
Sign = Callable[[bytes, SpiffeId, Sequence[str], Workload], Sequence[x509.Certificate]]


def keep_in_files(wanted: Wanted, roots: bytes, shapes: Shapes, sign: Sign) -> bool:
    """Issue or renew what is due and write it; tell whether the certificate changed. Raises ConfigurationError."""
    identity = wanted.identity
    if identity.certificate_file.exists() and not identity.key_file.exists():
        raise damaged(identity.key_file, "the key is missing")
    key = ensure_key(identity.key_file)
    current = read_certificate(identity.certificate_file) if identity.certificate_file.exists() else None
    if current is not None and current.public_key() != key.public_key():
        raise damaged(identity.certificate_file, "the key and the certificate do not belong together")
    workload = wanted.workload or _workload_of(current, shapes) or wanted.new_workload()
    # The roots first: whoever sees the new certificate can check its peers that have one, too.
    write(identity.ca_file, roots, mode=0o644)
    if current is not None and not _is_due(current, wanted, workload, shapes):
        return False
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    write(identity.certificate_file, pem(*sign(public, identity.spiffe_id, wanted.hosts, workload)), mode=0o644)
    return True


def workload_of(leaf: x509.Certificate) -> Workload | None:
    """Return what a certificate says of its workload; None where it says nothing. Raises InvalidRequest."""
    try:
        found = leaf.extensions.get_extension_for_oid(x509.ObjectIdentifier(WORKLOAD_OID)).value
    except x509.ExtensionNotFound:
        return None
    return decode_workload(found.value) if isinstance(found, x509.UnrecognizedExtension) else None


def _workload_of(current: x509.Certificate | None, shapes: Shapes) -> Workload | None:
    if current is None or current.not_valid_after_utc <= shapes.now():
        return None
    return workload_of(current)


def _is_due(current: x509.Certificate, wanted: Wanted, workload: Workload, shapes: Shapes) -> bool:
    if current.issuer != wanted.issuer.subject or _workload_of(current, shapes) != workload:
        return True
    names = current.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if names != names_of(wanted.identity.spiffe_id, wanted.hosts):
        return True
    share = _HALF - _JITTER * (current.serial_number % _JITTER_STEPS) / _JITTER_STEPS
    return shapes.is_gone(current, share)

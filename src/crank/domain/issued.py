"""What an authority keeps of the identities that it issued, and which of them it took back."""

from dataclasses import dataclass

from crank.domain.identity import SpiffeId
from crank.domain.ids import InstanceId
from crank.domain.trust import Attestation
from crank.domain.workload import EntryId


@dataclass(frozen=True, slots=True)
class IssuedIdentity:
    """One certificate, from its issue until a day after it expires.

    serial      lower-case hexadecimal, unique in the trust domain
    node        id of the node that it lives on, where one is known
    revoked_us, reason  when the operator took it back, and why; it stays so
    workload    the entry that it was issued to, where it is one's
    """

    serial: str
    spiffe_id: SpiffeId
    kind: str
    instance_id: InstanceId
    attestation: Attestation
    node: str | None
    issued_us: int
    not_after_us: int
    revoked_us: int | None = None
    reason: str | None = None
    workload: EntryId | None = None


@dataclass(frozen=True, slots=True)
class Ban:
    """A SPIFFE ID that is revoked as a whole: nothing is issued to it, whoever asks, until the operator lifts it."""

    spiffe_id: SpiffeId
    since_us: int
    reason: str


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """What a PKCS#10 request asks for, whose signature proved that the private key is the asker's.

    spiffe_id   the one URI name in it
    public_key  P-256, DER SubjectPublicKeyInfo
    """

    spiffe_id: SpiffeId
    public_key: bytes

"""What trust is made of: how well a workload was attested, what is issued to it, and what its peers check that by."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from crank.domain.identity import SpiffeId
from crank.domain.ids import InstanceId
from crank.domain.json import JsonObject
from crank.errors import InvalidRequest


class Attestation(IntEnum):
    """How a workload proved itself before it was given an identity; a higher level includes the lower ones.

    RFC 9334 calls this an attestation result. Written in lower case wherever it leaves the program.
    """

    NONE = 0
    THUMBPRINT = 1
    JOIN = 2

    @property
    def label(self) -> str:
        """Return the word that certificates, tokens and policies carry."""
        return self.name.lower()


def parse_attestation(text: str, *, field: str) -> Attestation:
    """Read the word of a level. Raises InvalidRequest."""
    for level in Attestation:
        if level.label == text:
            return level
    raise InvalidRequest(
        f"The level of attestation {text[:40]!r} is not known.",
        code="invalid_field",
        field=field,
        fix=f"Use one of {', '.join(level.label for level in Attestation)}.",
    )


@dataclass(frozen=True, slots=True)
class Workload:
    """Who an identity is issued to, beyond its name; bound into every leaf certificate.

    kind         controller, worker, node, agent or workload
    instance_id  a UUID version 7, new whenever that program starts anew; that of a workload is new with each key
    """

    kind: str
    instance_id: InstanceId
    attestation: Attestation


@dataclass(frozen=True, slots=True)
class Svid:
    """An X.509-SVID as issued: public, its key is elsewhere.

    chain   DER certificates, the leaf first, without the root
    serial  of the leaf, in lower-case hexadecimal
    """

    spiffe_id: SpiffeId
    workload: Workload
    chain: tuple[bytes, ...]
    serial: str
    not_before_us: int
    not_after_us: int


@dataclass(frozen=True, slots=True)
class Peer:
    """Who the other side of a connection proved to be, by an X.509-SVID that a verifier accepted.

    workload  what the certificate binds to the name; None where it carries no such extension
    serials   of its certificate and of those that signed it below the root, the leaf's first, in hexadecimal
    jkt       RFC 7638 SHA-256 thumbprint of its key, to which tokens are bound
    key       that key as a compressed point (SEC 1); None: not told
    """

    spiffe_id: SpiffeId
    workload: Workload | None
    serials: tuple[str, ...]
    not_before_us: int
    not_after_us: int
    jkt: str
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class JwtAuthority:
    """A public key that signs JWT-SVIDs: `jwk` holds no private member, `kid` is its RFC 7638 thumbprint."""

    kid: str
    jwk: JsonObject


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """All by which identities of one trust domain are checked (SPIFFE Trust Domain and Bundle, section 4).

    sequence          grows with every change of the content
    x509_authorities  DER root certificates; none of them: no X.509-SVID of the domain is to be believed
    """

    trust_domain: str
    sequence: int
    refresh_hint_sec: int
    x509_authorities: tuple[bytes, ...]
    jwt_authorities: tuple[JwtAuthority, ...] = ()


@dataclass(frozen=True, slots=True)
class SignedLists:
    """What is revoked in one trust domain, as lists (DER, RFC 5280 section 5): one of each issuer that is published.

    by_authorities  they speak of leaves and issuing certificates; by the authority that signs now first
    by_roots        they speak of authorities
    is_whole        whether every root that is published has its list: who checks whole chains needs one of each issuer
    """

    by_authorities: tuple[bytes, ...]
    by_roots: tuple[bytes, ...] = ()
    is_whole: bool = False

    @property
    def all(self) -> tuple[bytes, ...]:
        """Return every list."""
        return (*self.by_authorities, *self.by_roots)


class RotationPhase(StrEnum):
    """How far the change to another root is.

    settled    one root
    prepared   a new root is published beside the one that signs
    activated  the new root signs; the old one is still published
    """

    SETTLED = "settled"
    PREPARED = "prepared"
    ACTIVATED = "activated"


class RotationStep(StrEnum):
    """What an operator may do about the root."""

    PREPARE = "prepare"
    ACTIVATE = "activate"
    RETIRE = "retire"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Rotation:
    """Which roots there are, by their marks.

    current     the one that signs
    other       the next one while prepared, the old one once activated; None while settled
    drained_us  when the last leaf below `other` has expired; None where it signed none
    prepared_us  since when both are published; None while settled
    """

    phase: RotationPhase
    current: str
    other: str | None = None
    drained_us: int | None = None
    prepared_us: int | None = None


@dataclass(frozen=True, slots=True)
class SigningCertificate:
    """One certificate of the authority's own, for people to look at.

    tier       root, authority, issuing, or flat: the single authority of versions before step 4
    mark       of the root that it stands under
    key_place  in words
    """

    tier: str
    mark: str
    serial: str
    not_before_us: int
    not_after_us: int
    key_place: str


@dataclass(frozen=True, slots=True)
class AuthorityStatus:
    """How the authority stands.

    root_keys  files of root keys that still lie beside the node, where they should not stay
    """

    trust_domain: str
    rotation: Rotation
    sequence: int
    leaf_ttl_sec: float
    certificates: tuple[SigningCertificate, ...]
    root_keys: tuple[str, ...]

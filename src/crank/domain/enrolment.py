"""A node beside the controller's own: invited or registered, joined, forgotten. One enrolment is one node, once.

The words are those of RATS (RFC 9334): the node is the attester, the controller the verifier, what the node sends
is evidence, and the level that its identities then carry is the attestation result.
"""

from dataclasses import dataclass, field

from crank.domain.ids import Digest, WorkerId
from crank.domain.json import JsonObject
from crank.domain.trust import Attestation


@dataclass(frozen=True, slots=True)
class Enrolment:
    """One node, from its invitation on. A name is free again once it is forgotten; an id never comes back.

    capabilities  patterns of what its worker may offer: exact names, prefixes that end in `.*`, or `*`
    attestation   how it proved itself when it joined last; NONE until then
    expires_us    until when its join token may be used; None: it was registered, and has none
    thumbprint    SHA-256 of the certificate by which the node proves itself again; None: it cannot
    pins          whether the certificate that comes with the token is kept as `thumbprint`
    keys          digest of the public keys that its identities were issued to
    machine       what the node said of itself
    """

    node_id: str
    name: str
    worker_id: WorkerId
    capabilities: tuple[str, ...]
    created_us: int
    expires_us: int | None = None
    thumbprint: Digest | None = None
    pins: bool = False
    attestation: Attestation = Attestation.NONE
    keys: Digest | None = None
    joined_us: int | None = None
    machine: JsonObject = field(default_factory=dict)
    forgotten_us: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an attester sent and signed, with its signatures checked and nothing decided.

    node_key, worker_key  DER SubjectPublicKeyInfo, both P-256; the sender proved to hold either private key
    thumbprint            SHA-256 of the certificate that the node made for itself
    audience              SHA-256 of the roots that the sender takes its verifier's authority to be
    """

    node_key: bytes
    worker_key: bytes
    thumbprint: Digest
    audience: tuple[Digest, ...]
    machine: JsonObject


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a worker says that it offers, as it signed it.

    manifest_id  a UUID, never used twice
    signed_sec   when, seconds since 1970
    """

    manifest_id: str
    worker_id: str
    instance_id: str
    node_id: str
    signed_sec: int
    capabilities: tuple[JsonObject, ...]

"""A grant: authority over named capabilities, held by one key, narrowed from its parent and never wider."""

from dataclasses import dataclass
from typing import Final, NewType

from crank.domain.ids import CredentialId, TenantId
from crank.domain.json import JsonObject

GrantId = NewType("GrantId", str)
EVERYTHING: Final = "*"
# Names under this one are what only the node's owner may do. `*` does not reach them: they are asked for by name.
NODE_PREFIX: Final = "node."
RIGHTS_MAX: Final = 32
CONSTRAINTS_MAX: Final = 8
MOUNTS_MAX: Final = 64
DEPTH_MAX: Final = 8
# How somebody is called of whom only a key is known (RFC 9278).
THUMBPRINT_URN: Final = "urn:ietf:params:oauth:jwk-thumbprint:sha-256:"

# A space that holds nothing: what a grant has before somebody says where its holder works.
_NOWHERE = CredentialId("")


@dataclass(frozen=True, slots=True)
class Right:
    """What one capability may be used for; each field only takes away.

    capability   an exact name, a prefix that ends in `.*`, or `*` for every one
    version      an exact version, or None for any
    constraints  JSON Schemas (2020-12), all of which a call's `args` must satisfy
    mounts       the names that a call may mount; None: all that the credential behind the grant may name
    calls_max    how many jobs may be submitted with it; None: no limit of its own
    budget_max   most that these jobs may cost together, in the smallest unit; None: no limit of its own
    expires_at_sec  the Unix second from which it allows nothing; None: it ends with its grant
    """

    capability: str
    version: str | None = None
    constraints: tuple[JsonObject, ...] = ()
    mounts: tuple[str, ...] | None = None
    calls_max: int | None = None
    budget_max: int | None = None
    expires_at_sec: int | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """An issued token's content, stored by its id (`jti`).

    credential_id  whose authority it stems from: it ends with that credential
    subject        SPIFFE ID, or the credential's subject, for whom it acts
    actors         who acts for the subject, the present holder first (the `act` chain of RFC 8693)
    holder_jkt     RFC 7638 SHA-256 thumbprint of the key that the holder must prove; None: a bearer
    parent         the grant that it was exchanged for; revoking that one ends this one, too
    depth_left     how often it may still be exchanged for a narrower one for somebody else
    space          whose jobs, sessions and files it sees: the key's that it stems from, or that of its holder alone
    """

    grant_id: GrantId
    tenant: TenantId
    credential_id: CredentialId
    subject: str
    rights: tuple[Right, ...]
    issued_us: int
    expires_us: int
    actors: tuple[str, ...] = ()
    holder_jkt: str | None = None
    parent: GrantId | None = None
    depth_left: int = 0
    revoked_us: int | None = None
    space: CredentialId = _NOWHERE

    @property
    def holder(self) -> str:
        """Return who acts with it now."""
        return self.actors[0] if self.actors else self.subject


@dataclass(frozen=True, slots=True)
class Ceiling:
    """One side of what may be granted: what is asked for, held, given by a role, or let pass by the node.

    expires_us  the latest end
    depth       how often it may be passed on from there
    """

    rights: tuple[Right, ...]
    expires_us: int
    depth: int


# All that a bounded credential without rights of its own may do, and all that an owner may: what the first grant is narrowed from.
OF_A_KEY: Final = (Right(EVERYTHING),)
OF_THE_OWNER: Final = (Right(EVERYTHING), Right(f"{NODE_PREFIX}*"))

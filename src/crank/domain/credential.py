"""A credential: who may speak to this node, as whom, and what they may reach. Its secret is never part of it."""

from dataclasses import dataclass
from enum import StrEnum

from crank.domain.grant import Right
from crank.domain.ids import CredentialId, MountId, TenantId

# What records name where the owner of the node acted with the secret of the token file.
OWNER_SUBJECT = "local"


class CredentialKind(StrEnum):
    """What a credential is for.

    owner  everything that the node's owner may do
    api    an agent: jobs, sessions and files of its own, over the API
    e2b    the same, over the E2B protocol, whose clients insist on a form of key
    """

    OWNER = "owner"
    API = "api"
    E2B = "e2b"


@dataclass(frozen=True, slots=True)
class Credential:
    """One credential of a tenant.

    subject      what records name
    mounts       the mounts that a bounded credential may name, sorted; an owner's names any
    expires_us   None: it lasts until it is revoked
    rights       what it may be used for; None: everything that one of its kind may. It never changes
    used_us      about when it was last used: noted once a minute at most
    """

    credential_id: CredentialId
    tenant: TenantId
    name: str
    kind: CredentialKind
    subject: str
    created_us: int
    mounts: tuple[MountId, ...] = ()
    expires_us: int | None = None
    used_us: int | None = None
    revoked_us: int | None = None
    rights: tuple[Right, ...] | None = None

    @property
    def bounded(self) -> bool:
        """Tell whether it sees and may do less than the owner."""
        return self.kind is not CredentialKind.OWNER

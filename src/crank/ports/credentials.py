"""The store of credentials, one of the small stores of a transaction."""

from collections.abc import Sequence
from typing import Protocol

from crank.domain.credential import Credential
from crank.domain.ids import CredentialId, Digest, MountId, TenantId


class CredentialStore(Protocol):
    """Credentials with the hashes of their secrets, and which blobs they brought, inside one transaction."""

    def insert(self, credential: Credential, secret_sha256: Digest) -> None:
        """Add a credential. Raises Conflict (`key_name_taken`: one that is not revoked has the name; `key_taken`)."""
        ...

    def by_secret(self, secret_sha256: Digest) -> Credential | None:
        """Return the credential whose secret has this hash, revoked and expired ones too, or None."""
        ...

    def find(self, tenant: TenantId, credential_id: CredentialId) -> Credential | None:
        """Return the credential, or None."""
        ...

    def all(self, tenant: TenantId) -> Sequence[Credential]:
        """Return the tenant's credentials, oldest first, the revoked ones too."""
        ...

    def update(self, credential: Credential) -> None:
        """Replace its mounts, its expiry, and when it was used and revoked; a revocation and its rights stay. Raises NotFound."""
        ...

    def forget_mount(self, tenant: TenantId, mount_id: MountId) -> None:
        """Take a mount from every credential, so that one of the same id later starts with nobody."""
        ...

    def hold(self, credential_id: CredentialId, digest: Digest, at_us: int) -> None:
        """Note that a credential brought a blob; doing it twice changes nothing."""
        ...

    def holds(self, credential_id: CredentialId, digest: Digest) -> bool:
        """Tell whether a credential brought the blob, or a job of its own uses it."""
        ...

    def release(self, digests: Sequence[Digest]) -> None:
        """Forget who brought blobs that are gone."""
        ...

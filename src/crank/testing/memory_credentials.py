"""Credentials of the store in memory."""

from collections.abc import Sequence
from dataclasses import replace

from crank.domain.credential import Credential
from crank.domain.ids import CredentialId, Digest, MountId, TenantId
from crank.errors import Conflict, NotFound
from crank.testing.memory_state import Part


class Credentials(Part):
    """Keeps the promises of `ports.CredentialStore`; a dict keeps the order of insertion."""

    def insert(self, credential: Credential, secret_sha256: Digest) -> None:
        """Add a credential. Raises Conflict (`key_name_taken`, `key_taken`)."""
        state = self._change()
        for secret, other in state.credentials.values():
            if other.tenant == credential.tenant and other.name == credential.name and other.revoked_us is None:
                raise Conflict(f"There is a key named {credential.name!r} already.", code="key_name_taken")
            if secret == secret_sha256:
                raise Conflict("There is a credential with this secret already.", code="key_taken")
        if (credential.tenant, credential.credential_id) in state.credentials:
            raise Conflict("There is a credential with this id already.", code="key_taken")
        state.credentials[credential.tenant, credential.credential_id] = (secret_sha256, _sorted(credential))

    def by_secret(self, secret_sha256: Digest) -> Credential | None:
        """Return the credential whose secret has this hash, or None."""
        return next((found for secret, found in self._state.credentials.values() if secret == secret_sha256), None)

    def find(self, tenant: TenantId, credential_id: CredentialId) -> Credential | None:
        """Return the credential, or None."""
        return self._state.credentials.get((tenant, credential_id), (None, None))[1]

    def all(self, tenant: TenantId) -> Sequence[Credential]:
        """Return the tenant's credentials, oldest first."""
        return [found for _, found in self._state.credentials.values() if found.tenant == tenant]

    def update(self, credential: Credential) -> None:
        """Replace what may change of it; a revocation stays. Raises NotFound."""
        state = self._change()
        key = (credential.tenant, credential.credential_id)
        if key not in state.credentials:
            raise NotFound("There is no such key.", code="key_not_found")
        secret, kept = state.credentials[key]
        changed = replace(
            kept,
            mounts=credential.mounts,
            expires_us=credential.expires_us,
            used_us=credential.used_us,
            revoked_us=kept.revoked_us if kept.revoked_us is not None else credential.revoked_us,
        )
        state.credentials[key] = (secret, _sorted(changed))

    def forget_mount(self, tenant: TenantId, mount_id: MountId) -> None:
        """Take a mount from every credential."""
        state = self._change()
        for key, (secret, found) in list(state.credentials.items()):
            if found.tenant == tenant:
                left = tuple(mount for mount in found.mounts if mount != mount_id)
                state.credentials[key] = (secret, replace(found, mounts=left))

    def hold(self, credential_id: CredentialId, digest: Digest, at_us: int) -> None:
        """Note that a credential brought a blob."""
        self._change().brought.add((credential_id, digest))

    def holds(self, credential_id: CredentialId, digest: Digest) -> bool:
        """Tell whether a credential brought the blob, or a job of its own uses it."""
        if (credential_id, digest) in self._state.brought:
            return True
        using = [self._state.jobs.get(entry[:2]) for entry in self._state.references if entry[2] == digest]
        return any(row is not None and row.owner == credential_id for row in using)

    def release(self, digests: Sequence[Digest]) -> None:
        """Forget who brought blobs that are gone."""
        state = self._change()
        state.brought = {entry for entry in state.brought if entry[1] not in digests}


def _sorted(credential: Credential) -> Credential:
    return replace(credential, mounts=tuple(sorted(set(credential.mounts))))

"""Credentials in their three tables, inside a transaction that the store opened."""

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from crank.adapters.sqlite import statements
from crank.adapters.sqlite.faults import is_unique_violation
from crank.adapters.sqlite.sessions import read_value
from crank.domain.credential import Credential, CredentialKind
from crank.domain.grant_codec import parse_rights, rights_document
from crank.domain.ids import CredentialId, Digest, MountId, TenantId
from crank.domain.json import dumps
from crank.errors import Conflict, NotFound, StoreError


class SqlCredentials:
    """Keeps the promises of `ports.CredentialStore`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def insert(self, credential: Credential, secret_sha256: Digest) -> None:
        """Add a credential, and its tenant when it is the first. Raises Conflict (`key_name_taken`, `key_taken`)."""
        self._sql.execute(statements.TENANT_PUT, (credential.tenant, credential.created_us))
        named = self._sql.execute(statements.CREDENTIAL_NAMED, (credential.tenant, credential.name)).fetchone()
        if named is not None and credential.revoked_us is None:
            raise name_taken(credential.name)
        try:
            self._sql.execute(statements.CREDENTIAL_INSERT, {**_row(credential), "secret_sha256": secret_sha256})
        except sqlite3.IntegrityError as fault:
            if not is_unique_violation(fault):
                raise
            raise Conflict("There is a credential with this id or secret already.", code="key_taken") from fault
        self._put_mounts(credential)

    def by_secret(self, secret_sha256: Digest) -> Credential | None:
        """Return the credential whose secret has this hash, or None."""
        return self._one(statements.CREDENTIAL_BY_SECRET, (secret_sha256,))

    def find(self, tenant: TenantId, credential_id: CredentialId) -> Credential | None:
        """Return the credential, or None."""
        return self._one(statements.CREDENTIAL_FIND, (tenant, credential_id))

    def all(self, tenant: TenantId) -> Sequence[Credential]:
        """Return the tenant's credentials, oldest first."""
        return [self._read(row) for row in self._sql.execute(statements.CREDENTIALS_ALL, (tenant,)).fetchall()]

    def update(self, credential: Credential) -> None:
        """Replace what may change of it; a revocation stays. Raises NotFound."""
        if not self._sql.execute(statements.CREDENTIAL_UPDATE, _row(credential)).rowcount:
            raise NotFound("There is no such key.", code="key_not_found")
        self._sql.execute(statements.CREDENTIAL_MOUNTS_CLEAR, (credential.tenant, credential.credential_id))
        self._put_mounts(credential)

    def forget_mount(self, tenant: TenantId, mount_id: MountId) -> None:
        """Take a mount from every credential."""
        self._sql.execute(statements.CREDENTIAL_MOUNT_FORGET, (tenant, mount_id))

    def hold(self, credential_id: CredentialId, digest: Digest, at_us: int) -> None:
        """Note that a credential brought a blob."""
        self._sql.execute(statements.CREDENTIAL_BLOB_HOLD, (credential_id, digest, at_us))

    def holds(self, credential_id: CredentialId, digest: Digest) -> bool:
        """Tell whether a credential brought the blob, or a job of its own uses it."""
        values = {"owner": credential_id, "digest": digest}
        return self._sql.execute(statements.CREDENTIAL_BLOB_HOLDS, values).fetchone() is not None

    def release(self, digests: Sequence[Digest]) -> None:
        """Forget who brought blobs that are gone."""
        self._sql.executemany(statements.CREDENTIAL_BLOB_RELEASE, [(digest,) for digest in digests])

    def _one(self, statement: str, values: tuple[str, ...]) -> Credential | None:
        row = self._sql.execute(statement, values).fetchone()
        return None if row is None else self._read(row)

    def _read(self, row: sqlite3.Row) -> Credential:
        document = dict(row)
        found = self._sql.execute(statements.CREDENTIAL_MOUNTS, (document["tenant"], document["credential_id"]))
        mounts = tuple(MountId(entry["mount_id"]) for entry in found)
        try:
            rights = None if document["rights"] is None else parse_rights(read_value(document["rights"]))
            return Credential(
                **{**document, "kind": CredentialKind(document["kind"]), "mounts": mounts, "rights": rights}
            )
        except (TypeError, ValueError) as fault:
            raise StoreError(f"A stored credential cannot be read back: {fault!r}.", code="store_corrupt") from fault

    def _put_mounts(self, credential: Credential) -> None:
        rows = [(credential.tenant, credential.credential_id, mount) for mount in sorted(set(credential.mounts))]
        self._sql.executemany(statements.CREDENTIAL_MOUNT_PUT, rows)


def _row(credential: Credential) -> dict[str, Any]:
    rights = None if credential.rights is None else dumps(rights_document(credential.rights))
    return {**asdict(credential), "rights": rights}


def name_taken(name: str) -> Conflict:
    """Return the refusal of a name that a credential has which is not revoked."""
    return Conflict(
        f"There is a key named {name!r} already.",
        code="key_name_taken",
        field="name",
        fix="Choose another name, or revoke that key first.",
    )

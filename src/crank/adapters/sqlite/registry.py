"""Mounts, workers and blobs in use, kept in SQLite."""

import sqlite3
from collections.abc import Sequence

from crank.adapters.sqlite import statements
from crank.adapters.sqlite.sessions import read_value
from crank.domain import job_codec
from crank.domain.ids import Digest, JobId, MountId, TenantId, WorkerId
from crank.domain.job import Mount
from crank.domain.json import dumps
from crank.domain.worker import KnownWorker


class SqlRegistry:
    """Mounts, workers and blob references."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def put_mount(self, mount: Mount) -> None:
        """Add or replace the tenant's mount of that id."""
        self._sql.execute(
            statements.MOUNT_PUT,
            (mount.tenant, mount.mount_id, mount.node_id, mount.name, mount.host_path, mount.created_us),
        )

    def mounts(self, tenant: TenantId) -> Sequence[Mount]:
        """Return the tenant's mounts, by id."""
        return [Mount(**dict(row)) for row in self._sql.execute(statements.MOUNTS_OF, (tenant,))]

    def remove_mount(self, tenant: TenantId, mount_id: MountId) -> bool:
        """Remove a mount; tell whether it was there."""
        return self._sql.execute(statements.MOUNT_REMOVE, (tenant, mount_id)).rowcount > 0

    def put_worker(self, worker: KnownWorker) -> None:
        """Add or replace a worker by its id."""
        self._sql.execute(
            statements.WORKER_PUT,
            (
                worker.worker_id,
                worker.instance_id,
                worker.node_id,
                worker.slots,
                dumps(job_codec.capabilities_document(worker)),
                worker.enrolled_us,
                worker.seen_us,
                worker.attestation.label,
                int(worker.signed),
            ),
        )

    def workers(self) -> Sequence[KnownWorker]:
        """Return every worker, by id."""
        rows = self._sql.execute(statements.WORKERS)
        return [
            job_codec.parse_known_worker({**dict(row), "capabilities": read_value(row["capabilities"])}) for row in rows
        ]

    def has_signed(self, worker_id: WorkerId) -> bool:
        """Tell whether this worker was ever put as one that signs."""
        return self._sql.execute(statements.WORKER_SIGNED, (worker_id,)).fetchone() is not None

    def refer(self, tenant: TenantId, job_id: JobId, digests: Sequence[Digest]) -> None:
        """Say that a job uses these blobs."""
        self._sql.executemany(statements.BLOB_REFER, [(tenant, job_id, digest) for digest in digests])

    def referred(self, digests: Sequence[Digest]) -> set[Digest]:
        """Return those of the digests that some job uses."""
        return {digest for digest in digests if self._sql.execute(statements.BLOB_REFERRED, (digest,)).fetchone()}

    def job_refers(self, tenant: TenantId, job_id: JobId, digest: Digest) -> bool:
        """Tell whether this job uses the blob."""
        return self._sql.execute(statements.BLOB_OF_JOB, (tenant, job_id, digest)).fetchone() is not None

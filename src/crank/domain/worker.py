"""What is known of a worker, its devices, and of an idempotency key."""

from dataclasses import dataclass

from crank.domain.capability import Capability
from crank.domain.ids import Digest, InstanceId, JobId, TenantId, WorkerId
from crank.domain.trust import Attestation

SLOTS_MAX = 1024


@dataclass(frozen=True, slots=True)
class GpuDevice:
    """One GPU. `nodes` are the device files a job that holds it may open."""

    index: int
    uuid: str
    model: str
    memory_bytes: int
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KnownWorker:
    """A worker that enrolled once; its capabilities stay known while it is away for a moment.

    attestation  how well its certificate says that its node was attested
    signed       whether it ever signed what it offers; once it has, the registry keeps that
    """

    worker_id: WorkerId
    instance_id: InstanceId
    node_id: str
    slots: int
    capabilities: tuple[Capability, ...]
    enrolled_us: int
    seen_us: int
    attestation: Attestation = Attestation.NONE
    signed: bool = False


@dataclass(frozen=True, slots=True)
class Replay:
    """An idempotency key, the digest of the request it came with, and the job that it made."""

    tenant: TenantId
    key: str
    request_digest: Digest
    job_id: JobId
    created_us: int

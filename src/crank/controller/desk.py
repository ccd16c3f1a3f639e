"""What every use case of the controller works with, gathered once at start."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from crank.controller.arrivals import Arrivals
from crank.controller.bell import Bell
from crank.controller.bundles import Trust
from crank.controller.flights import Flights
from crank.controller.followers import MACHINES_MAX, Followers
from crank.controller.keyring import Keyring
from crank.controller.manifests import Manifests
from crank.controller.pace import Pace
from crank.controller.roster import Roster
from crank.controller.shelf import Shelf
from crank.controller.sight import Sight
from crank.controller.standing import Standing
from crank.controller.tally import Tally
from crank.controller.token_desk import TokenDesk
from crank.controller.watch import Watch
from crank.domain.credential import Credential
from crank.domain.grant import Grant
from crank.domain.ids import JobId, TenantId
from crank.domain.json import JsonObject
from crank.domain.profile import Profile
from crank.domain.quantity import GIB, OUTPUT_BYTES_MAX
from crank.domain.record import Record
from crank.domain.trust import Attestation
from crank.ports import (
    Appraiser,
    Authority,
    BlobStore,
    Clock,
    Downloads,
    Failpoints,
    IdSource,
    MountRegister,
    RootRotation,
    SchemaChecker,
    Store,
    StreamLog,
)

DAY_SEC = 86_400.0


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's choices that use cases follow.

    beat_sec, lease_sec   how often a worker beats, and after how long a silent one loses its leases
    known_worker_sec      how long a worker that is away still counts as one that could run a job
    retention_sec         how long an ended job, its stream and its artifacts are kept
    attempts_max          leases that one job gets at most
    session_idle_sec, session_lifetime_sec   the clocks of a session that asks for none; with _max what one may ask for
    sessions_max          sessions that live at once on the whole node
    worker_sessions_max, worker_sessions_bytes_max   what a worker keeps, by which the share of a key is counted
    output_bytes_max      kept output that a request may ask for; its other limits are bounded by the capability
    private_paths         folders that no mount may touch or hold
    file_hosts            hosts that files of callers may be fetched from, by full name
    attestation_min       the least level of a machine that jobs are placed on
    """

    node_id: str
    controller_id: str
    trust_domain: str
    private_paths: tuple[str, ...]
    queued_max: int = 10_000
    beat_sec: float = 2.0
    lease_sec: float = 12.0
    known_worker_sec: float = 600.0
    retention_sec: float = 30 * DAY_SEC
    attempts_max: int = 3
    session_idle_sec: float = 600.0
    session_lifetime_sec: float = 3600.0
    session_idle_sec_max: float = DAY_SEC
    session_lifetime_sec_max: float = 7 * DAY_SEC
    sessions_max: int = 64
    worker_sessions_max: int = 8
    worker_sessions_bytes_max: int = 8 * GIB
    output_bytes_max: int = OUTPUT_BYTES_MAX
    file_hosts: tuple[str, ...] = ()
    attestation_min: Attestation = Attestation.NONE


@dataclass(frozen=True, slots=True)
class Desk:
    """Ports, policy, and the memory of who is connected and who waits.

    mount_register  where this machine's launcher looks up what may be mounted; None where there is no launcher
    downloads       fetches files of callers; None where that is off
    profiles        by name, what the environments hold whose files this node has; to tell agents, never to decide
    authority       issues identities and signs tokens; None where nothing is served that needs them
    roots           the operator's side of it; root_gate is held while a step of a change of root is taken
    trust           publishes our bundle and keeps those of federated domains; None as with the authority
    sight           which bundle this controller's own listeners believe
    mounts_gate     held while a mount is added or removed, so that store and register change alike
    appraiser       checks what nodes and workers signed; None: none is believed
    arrivals        who tried to join of late
    manifests       which manifests were shown of late
    attended        jobs that shall not outlive their callers, and when one of those was last there (`attended`)
    standing        which of them were taken back
    machines        which joined machines keep our roots in their files, and which of them
    workloads       rings when workloads were registered or removed
    asker           the credential whose requests this desk serves (`scope.desk_for`), with its rights; None: the node itself
    grant           the grant of the token that it was asked with; None: the credential itself was shown
    tokens          makes and reads tokens; None where there are none
    """

    store: Store
    blobs: BlobStore
    streams: StreamLog
    clock: Clock
    ids: IdSource
    schemas: SchemaChecker
    failpoints: Failpoints
    policy: Policy
    roster: Roster = field(default_factory=Roster)
    watch: Watch = field(default_factory=Watch)
    flights: Flights = field(default_factory=Flights)
    mount_register: MountRegister | None = None
    downloads: Downloads | None = None
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    authority: Authority | None = None
    roots: RootRotation | None = None
    root_gate: asyncio.Lock = field(default_factory=asyncio.Lock)
    trust: Trust | None = None
    sight: Sight = field(default_factory=Sight)
    mounts_gate: asyncio.Lock = field(default_factory=asyncio.Lock)
    tally: Tally = field(default_factory=Tally)
    keyring: Keyring = field(default_factory=Keyring)
    # Refusals of calls that jobs make, apart from those of credentials: a job shall not push them out.
    refused_calls: Keyring = field(default_factory=Keyring)
    attended: dict[tuple[TenantId, JobId], float] = field(default_factory=dict)
    shelf: Shelf = field(default_factory=Shelf)
    appraiser: Appraiser | None = None
    arrivals: Arrivals = field(default_factory=Arrivals)
    manifests: Manifests = field(default_factory=Manifests)
    standing: Standing = field(default_factory=Standing)
    renewal_pace: Pace = field(default_factory=lambda: Pace(burst=5, every_sec=2.0))
    machines: Followers = field(default_factory=lambda: Followers(MACHINES_MAX))
    workloads: Bell = field(default_factory=Bell)
    asker: Credential | None = None
    grant: Grant | None = None
    tokens: TokenDesk | None = None

    def record(self, kind: str, *, tenant: TenantId, subject: str, job_id: JobId | None, facts: JsonObject) -> Record:
        """Make a record of what happens now; the caller appends it in the transaction of the change."""
        return Record(
            record_id=self.ids.uuid7(),
            tenant=tenant,
            at_us=self.clock.now_us(),
            kind=kind,
            subject=subject,
            job_id=job_id,
            facts=facts if self.grant is None else {**facts, "grant": self.grant.grant_id},
        )

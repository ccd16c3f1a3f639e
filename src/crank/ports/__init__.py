"""What the use cases need from outside, as Protocols. Each promise is held by a conformance suite
in `crank.testing.contracts`, which every adapter passes.
"""

from crank.ports.attenuation import ChainHolder, ChainIssuer, OpenedChain
from crank.ports.attestation import Appraiser, ManifestSigner
from crank.ports.authority import Authority, RootRotation
from crank.ports.calls import CallTaker
from crank.ports.checks import GpuProbe, SchemaChecker
from crank.ports.credentials import CredentialStore
from crank.ports.downloads import Downloads
from crank.ports.enrolments import EnrolmentStore
from crank.ports.federation import BundleFormat, BundlePublishers, FederationStore
from crank.ports.functions import FunctionCall, FunctionRunner, FunctionSpec
from crank.ports.grants import GrantStore
from crank.ports.identities import IdentityStore
from crank.ports.links import Connector, ControllerLink, OwnIdentity, WorkerLink
from crank.ports.moments import Clock, Failpoints, IdSource
from crank.ports.mounts import MountRegister
from crank.ports.sandbox import (
    FileEntry,
    ModuleBuild,
    MountBinding,
    OutputSink,
    PoolCount,
    ProfileBuild,
    SandboxRunner,
    SandboxSession,
    SandboxSpec,
)
from crank.ports.shipped import ShippedCapability
from crank.ports.spool import Spool, Spooled
from crank.ports.store import (
    BlobStore,
    JobStore,
    RecordStore,
    RegistryStore,
    ReplayStore,
    SessionStore,
    Store,
    StreamLog,
    Transaction,
)
from crank.ports.tokens import ProofReader, TokenReader
from crank.ports.workloads import Caller, CallerWitness, JwtSvidReader, KeyMaker, WorkloadStore

__all__ = [
    "Appraiser",
    "Authority",
    "BlobStore",
    "BundleFormat",
    "BundlePublishers",
    "CallTaker",
    "Caller",
    "CallerWitness",
    "ChainHolder",
    "ChainIssuer",
    "Clock",
    "Connector",
    "ControllerLink",
    "CredentialStore",
    "Downloads",
    "EnrolmentStore",
    "Failpoints",
    "FederationStore",
    "FileEntry",
    "FunctionCall",
    "FunctionRunner",
    "FunctionSpec",
    "GpuProbe",
    "GrantStore",
    "IdSource",
    "IdentityStore",
    "JobStore",
    "JwtSvidReader",
    "KeyMaker",
    "ManifestSigner",
    "ModuleBuild",
    "MountBinding",
    "MountRegister",
    "OpenedChain",
    "OutputSink",
    "OwnIdentity",
    "PoolCount",
    "ProfileBuild",
    "ProofReader",
    "RecordStore",
    "RegistryStore",
    "ReplayStore",
    "RootRotation",
    "SandboxRunner",
    "SandboxSession",
    "SandboxSpec",
    "SchemaChecker",
    "SessionStore",
    "ShippedCapability",
    "Spool",
    "Spooled",
    "Store",
    "StreamLog",
    "TokenReader",
    "Transaction",
    "WorkerLink",
    "WorkloadStore",
]

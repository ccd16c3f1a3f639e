"""What the use cases need from outside, as Protocols. Each promise is held by a conformance suite
in `crank.testing.contracts`, which every adapter passes.
"""

from crank.ports.authority import Authority
from crank.ports.calls import CallTaker
from crank.ports.checks import GpuProbe, SchemaChecker
from crank.ports.credentials import CredentialStore
from crank.ports.downloads import Downloads
from crank.ports.functions import FunctionCall, FunctionRunner, FunctionSpec
from crank.ports.grants import GrantStore
from crank.ports.links import Connector, ControllerLink, WorkerLink
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

__all__ = [
    "Authority",
    "BlobStore",
    "CallTaker",
    "Clock",
    "Connector",
    "ControllerLink",
    "CredentialStore",
    "Downloads",
    "Failpoints",
    "FileEntry",
    "FunctionCall",
    "FunctionRunner",
    "FunctionSpec",
    "GpuProbe",
    "GrantStore",
    "IdSource",
    "JobStore",
    "ModuleBuild",
    "MountBinding",
    "MountRegister",
    "OutputSink",
    "PoolCount",
    "ProfileBuild",
    "ProofReader",
    "RecordStore",
    "RegistryStore",
    "ReplayStore",
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
]

"""The Python client of a node. It speaks HTTPS and nothing else: no other part of Crank is needed here."""

from crank.client.face import Client
from crank.client.face_session import Session
from crank.client.federation import FederatedDomain
from crank.client.keys import Key
from crank.client.link import ClientOptions, job_id_of
from crank.client.nodes import Node
from crank.client.proof import ProofKey
from crank.client.remote import AsyncClient
from crank.client.results import Artifact, JobEnd, JobEvent, JobResult, Metrics, Mount, Page, Skipped, StreamMetrics
from crank.client.sessions import AsyncSession, SessionFile, SessionState
from crank.client.token_forms import TokenWanted
from crank.client.tokens import Token
from crank.client.workloads import WorkloadEntry

__all__ = [
    "Artifact",
    "AsyncClient",
    "AsyncSession",
    "Client",
    "ClientOptions",
    "FederatedDomain",
    "JobEnd",
    "JobEvent",
    "JobResult",
    "Key",
    "Metrics",
    "Mount",
    "Node",
    "Page",
    "ProofKey",
    "Session",
    "SessionFile",
    "SessionState",
    "Skipped",
    "StreamMetrics",
    "Token",
    "TokenWanted",
    "WorkloadEntry",
    "job_id_of",
]

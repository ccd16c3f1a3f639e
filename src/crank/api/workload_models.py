"""Shapes of workloads: what is registered, and what is answered."""

from pydantic import Field

from crank.api.models import Answer
from crank.api.wanted import Request


class WorkloadWanted(Request):
    """A workload to register."""

    path: str = Field(description="Path of its SPIFFE ID: agent/<name> or tenant/<tenant>/<name>.", examples=["agent/ci"])
    selectors: list[str] = Field(
        description="Marks that a process must bear, all of them: unix:uid, unix:gid, unix:path, unix:sha256, unix:cgroup, "
        "systemd:unit.",
        examples=[["unix:uid:1000", "unix:path:/usr/bin/ci"]],
    )
    ttl_sec: int | None = Field(None, description="How long a certificate lives at most; as others do unless said.")
    hint: str | None = Field(None, description="What the workload tells this identity from its others by.")
    dns_names: list[str] | None = Field(None, description="DNS names that its certificates are good for, too.")
    federates_with: list[str] | None = Field(None, description="Trust domains whose bundles it is given.")


class WorkloadDocument(Answer):
    """A registered workload."""

    workload_id: str
    spiffe_id: str
    selectors: list[str]
    ttl_sec: int | None
    hint: str | None
    dns_names: list[str]
    federates_with: list[str]
    created_at: str


class WorkloadsPage(Answer):
    """Workloads, oldest first."""

    workloads: list[WorkloadDocument]

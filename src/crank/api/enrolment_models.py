"""Shapes of nodes and of joining: what is asked, and what is answered. The words are those of RATS (RFC 9334)."""

from typing import Any, Literal

from pydantic import Field

from crank.api.models import Answer
from crank.api.wanted import Request

Level = Literal["none", "thumbprint", "join"]
_PATTERNS = "What its worker may offer: exact names, families (document.*), or * for everything, which is also the default."


class NodeInvited(Request):
    """A node that shall join with a token."""

    name: str | None = Field(None, examples=["gpu-box"], description="What you call it; the node makes one otherwise.")
    capabilities: list[str] | None = Field(None, examples=[["python.run.*"]], description=_PATTERNS)
    expires_sec: float = Field(900.0, description="Seconds from now in which the token may be used, once.")
    pins: bool = Field(
        False, description="Keep the certificate that comes with the token: by it the node may come back later, without one."
    )


class NodeRegistered(Request):
    """A node that shall join by its own certificate."""

    name: str | None = Field(None, examples=["gpu-box"], description="What you call it; the node makes one otherwise.")
    capabilities: list[str] | None = Field(None, description=_PATTERNS)
    thumbprint: str = Field(description="SHA-256 of the certificate, as `crank node thumbprint` prints it: sha256:….")


class NodeDocument(Answer):
    """A node beside the controller's own."""

    node_id: str
    name: str
    worker_id: str
    capabilities: list[str]
    attestation: Level = Field(description="The attestation result: how it proved itself when it joined last.")
    thumbprint: str | None = Field(description="SHA-256 of the certificate by which it may come back.")
    created_at: str
    expires_at: str | None = Field(description="Until when its token may be used.")
    joined_at: str | None
    forgotten_at: str | None
    connected: bool = Field(description="Whether its worker is here now.")
    machine: dict[str, Any] = Field(description="What it said of itself; nobody checked it.")


class NodeExpected(NodeDocument):
    """A new node, and by what it is to know this controller."""

    trust_domain: str
    roots: list[str] = Field(description="SHA-256 of the trust domain's root certificates: sha256:….")
    token: str | None = Field(description="The join token, shown this once; null where a certificate was registered.")


class NodesPage(Answer):
    """Nodes, oldest first, the forgotten ones too."""

    nodes: list[NodeDocument]


class Attester(Request):
    """What an attester sends."""

    token: str | None = Field(None, max_length=256, description="The join token; none for a registered certificate.")
    evidence: str = Field(
        max_length=32_768,
        description="Compact JWS (ES256, typ crank-evidence+jws) by the node's own key: x5c its certificate; aud, the "
        "verifier's roots; csr, the request of its worker's key; machine, flat facts.",
    )


class RootsDocument(Answer):
    """By what a node checks this controller before it says anything: worth nothing until its SHA-256 is the one that was pinned."""

    trust_domain: str
    x509_authorities: list[str] = Field(description="Root certificates, DER in base64.")


class AttestationResult(Answer):
    """A node's identities, and by what it checks its peers."""

    attestation: Level
    trust_domain: str
    node_id: str
    worker_id: str
    capabilities: list[str]
    returns: bool = Field(description="Whether the node may come back by its own certificate, without a token.")
    node_svid: list[str] = Field(description="DER certificates in base64, the leaf first.")
    worker_svid: list[str]
    x509_authorities: list[str]
    expires_at: str | None

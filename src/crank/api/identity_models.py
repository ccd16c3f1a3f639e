"""Shapes of identities: what is asked, and what is answered."""

from typing import Literal

from pydantic import Field

from crank.api.models import Answer
from crank.api.wanted import Request


class IdentityRevoked(Request):
    """What to take back."""

    identity: str = Field(
        description="A SPIFFE ID, with all its certificates, or the serial of one.",
        examples=["spiffe://crank.internal/worker/main-a1b2c3"],
    )
    reason: str = Field("", description="For the record and the list; at most 200 printable characters.")


class IdentityAllowed(Request):
    """What may get certificates again."""

    identity: str = Field(description="A SPIFFE ID that is revoked.")


class IdentityDocument(Answer):
    """One certificate that was issued."""

    serial: str
    spiffe_id: str
    kind: str = Field(description="controller, worker, node, agent or workload.")
    instance_id: str = Field(description="New whenever that program starts anew; that of a workload is new with each key.")
    attestation: Literal["none", "thumbprint", "join"] = Field(description="How it proved itself.")
    node_id: str | None
    issued_at: str
    expires_at: str
    revoked_at: str | None
    reason: str | None


class BanDocument(Answer):
    """A SPIFFE ID that gets no certificate."""

    spiffe_id: str
    since: str
    reason: str


class IdentitiesPage(Answer):
    """Certificates that have not expired, newest first, and what is revoked as a whole."""

    identities: list[IdentityDocument]
    revoked: list[BanDocument]


class AllowedDocument(Answer):
    """A SPIFFE ID that may get certificates again."""

    spiffe_id: str

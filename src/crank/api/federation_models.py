"""Shapes of federation: what is asked, and what is answered."""

from typing import Any, Literal

from pydantic import Field

from crank.api.models import Answer
from crank.api.wanted import Request
from crank.domain.federation import STALE_AFTER_SEC


class FederationWanted(Request):
    """Another trust domain to be federated with."""

    trust_domain: str = Field(examples=["two.example"])
    url: str = Field(description="Where its bundle is published: https, without a user.")
    profile: Literal["https_web", "https_spiffe"] = Field(
        "https_web", description="How the publisher proves itself: by its host name, or by its SPIFFE ID."
    )
    endpoint_id: str | None = Field(None, description="The publisher's SPIFFE ID, with https_spiffe.")
    bundle: dict[str, Any] | None = Field(
        None, description="Its bundle, brought by hand; needed with https_spiffe where the publisher is of that domain."
    )
    ca_pem: str | None = Field(None, description="With https_web, whose certificates prove the host name; the system's unless said.")
    private: bool = Field(False, description="Whether its address may be this machine or in a private network.")
    stale_after_sec: int = Field(STALE_AFTER_SEC, description="How long a bundle is believed that cannot be fetched again.")


class FederationDocument(Answer):
    """A trust domain that this node is federated with."""

    trust_domain: str
    url: str
    profile: Literal["https_web", "https_spiffe"]
    endpoint_id: str | None
    private: bool
    stale_after_sec: int
    believed: bool = Field(description="Whether its bundle is believed now: it was fetched, and not too long ago.")
    sequence: int | None = Field(description="Of the last good bundle; null when it cannot be read any more.")
    x509_authorities: int = Field(description="How many authorities that bundle names.")
    jwt_authorities: int
    added_at: str
    fetched_at: str = Field(description="When that bundle was shown last.")
    tried_at: str
    failure: str | None = Field(description="Why the last look failed; null when it did not.")
    bundle: dict[str, Any] | None = Field(description="The last good bundle itself.")


class FederationPage(Answer):
    """Trust domains, by name."""

    federation: list[FederationDocument]

"""A trust domain that this one is federated with: where its bundle comes from, and the last good one."""

from dataclasses import dataclass
from enum import StrEnum

STALE_AFTER_SEC = 86_400


class EndpointProfile(StrEnum):
    """How the publisher of a bundle proves itself (SPIFFE Federation, section 5.2).

    https_web     by a certificate for its host name, of a public authority or of one that was named
    https_spiffe  by its SPIFFE ID
    """

    WEB = "https_web"
    SPIFFE = "https_spiffe"


@dataclass(frozen=True, slots=True)
class Federated:
    """One foreign trust domain. Domain, URL, profile and identity are pinned: to change one is to remove and add.

    endpoint_id      the SPIFFE ID of the publisher, with https_spiffe
    ca_pem           the authorities of its host's certificate, with https_web; None: those of the system
    private          whether its address may be this machine or in a private network
    stale_after_sec  how long a bundle is believed that could not be fetched again
    bundle           the last good one as text, and when it was fetched or found to be the newest still
    failure          why the last try failed, None when it did not
    """

    trust_domain: str
    url: str
    profile: EndpointProfile
    endpoint_id: str | None
    ca_pem: str | None
    private: bool
    stale_after_sec: int
    added_us: int
    bundle: str
    fetched_us: int
    tried_us: int
    failure: str | None = None

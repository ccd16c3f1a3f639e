"""Federation, decided: which addresses may publish a bundle, which bundle follows which, and for how long one is believed."""

import re
from dataclasses import dataclass

from crank.domain.federation import EndpointProfile, Federated
from crank.domain.identity import parse_spiffe_id, parse_trust_domain
from crank.domain.job import Refusal
from crank.domain.trust import TrustBundle
from crank.errors import InvalidRequest

URL_CHARS_MAX = 2_048
CA_BYTES_MAX = 64 * 1024
FEDERATED_DOMAINS_MAX = 64
STALE_AFTER_SEC_MIN = 60
STALE_AFTER_SEC_MAX = 30 * 86_400
# A hint is a hint: nobody makes this node ask without a pause, or hardly ever.
POLL_SEC_MIN = 10
POLL_SEC_MAX = 86_400
REDIRECTS_MAX = 3
HOST_CHARS_MAX = 253
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# Scheme, a name or address without a user in front, a port, and a path of visible ASCII without a fragment.
_URL = re.compile(
    rf"https://(?P<host>{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]{{2,45}}\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<target>[/?][!-\"$-~]*)?"
)
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bundle is asked for: a checked URL in its parts, without brackets around an address."""

    host: str
    port: int
    target: str


def parse_bundle_url(url: str) -> Place:
    """Read the URL of a bundle: https, no user, no fragment (SPIFFE Federation 5.2.1.1, 5.2.2.1).

    Raises InvalidRequest (`invalid_bundle_url`). The same is asked of whatever a redirect leads to.
    """
    match = _URL.fullmatch(url) if len(url) <= URL_CHARS_MAX else None
    port = int((match and match["port"]) or 443)
    if match is None or not 0 < port < 65_536 or len(match["host"]) > HOST_CHARS_MAX:
        raise InvalidRequest(
            "The URL of a bundle is https://host/path, in lower case, without a user or a fragment.",
            code="invalid_bundle_url",
            field="url",
            fix="Ask whoever runs that trust domain for the address of its bundle: https://host:port/trust-bundle.",
        )
    target = match["target"] or "/"
    return Place(match["host"].strip("[]"), port, target if target.startswith("/") else f"/{target}")


def check_wanted(wanted: Federated, *, own: str) -> None:
    """Refuse a federation that cannot be or must not be.

    own  the name of this node's trust domain
    Raises InvalidRequest (`invalid_federation`, `invalid_trust_domain`, `invalid_bundle_url`, `invalid_spiffe_id`).
    """
    parse_trust_domain(wanted.trust_domain)
    parse_bundle_url(wanted.url)
    if wanted.trust_domain == own:
        raise _invalid("trust_domain", f"{own} is this node's own trust domain", "Name the other one's.")
    if not STALE_AFTER_SEC_MIN <= wanted.stale_after_sec <= STALE_AFTER_SEC_MAX:
        raise _invalid("stale_after_sec", "a bundle is believed for a minute to 30 days without news", "Choose a time between.")
    if wanted.profile is EndpointProfile.WEB and wanted.endpoint_id is not None:
        raise _invalid("endpoint_id", "a publisher by https_web is known by its host name", "Leave it out, or use https_spiffe.")
    if wanted.profile is EndpointProfile.SPIFFE:
        if wanted.endpoint_id is None:
            raise _invalid("endpoint_id", "a publisher by https_spiffe is known by its SPIFFE ID", "Name it.")
        parse_spiffe_id(wanted.endpoint_id)
        if wanted.ca_pem is not None:
            raise _invalid("ca_pem", "a publisher by https_spiffe is checked by a bundle", "Leave it out, or use https_web.")
    if wanted.ca_pem is not None and len(wanted.ca_pem.encode("utf-8", "replace")) > CA_BYTES_MAX:
        raise _invalid("ca_pem", f"authorities take at most {CA_BYTES_MAX} bytes", "Name that one authority alone.")


def _invalid(field: str, cause: str, fix: str) -> InvalidRequest:
    return InvalidRequest(f"This federation cannot be: {cause}.", code="invalid_federation", field=field, fix=fix)


def may_follow(current: TrustBundle, fetched: TrustBundle) -> Refusal | None:
    """Return why a fetched bundle must not take the place of the current one, or None when it may.

    A sequence never goes back (Trust Domain and Bundle 4.1.1); the same one is what was fetched last (Federation 4.2).
    """
    if fetched.sequence >= current.sequence:
        return None
    return Refusal(
        "bundle_went_back",
        f"The publisher showed bundle {fetched.sequence} of {current.trust_domain} after bundle {current.sequence}.",
        "Ask whoever runs that trust domain; if it began anew, remove the federation and add it again.",
        "spiffe_sequence",
    )


def poll_after_sec(bundle: TrustBundle) -> int:
    """Return for how long to wait until the next look, after a good one and a failed one alike (Federation 4.1)."""
    return max(POLL_SEC_MIN, min(bundle.refresh_hint_sec, POLL_SEC_MAX))


def believed_until_us(federated: Federated) -> int:
    """Return until when its bundle is believed if no fetch succeeds."""
    return federated.fetched_us + federated.stale_after_sec * _US

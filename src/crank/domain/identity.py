"""SPIFFE identities: only the parser makes one (SPIFFE-ID standard, sections 2.1 to 2.3)."""

import re
from dataclasses import dataclass

from crank.errors import InvalidRequest

SPIFFE_ID_BYTES_MAX = 2048
TRUST_DOMAIN_BYTES_MAX = 255
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """`spiffe://<trust domain>/<kind>/<name>`; made by `parse_spiffe_id` or `make_spiffe_id` alone."""

    trust_domain: str
    path: tuple[str, ...]

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/{'/'.join(self.path)}"

    @property
    def kind(self) -> str:
        """Return the first segment: `controller`, `worker`, `node`, …"""
        return self.path[0]

    @property
    def name(self) -> str:
        """Return the last segment."""
        return self.path[-1]


def parse_trust_domain(text: str) -> str:
    """Accept a trust domain name: lower-case letters, digits, dot, hyphen, underscore. Raises InvalidRequest."""
    if not _TRUST_DOMAIN.fullmatch(text):
        raise InvalidRequest(
            "A trust domain is 1 to 255 lower-case letters, digits, '.', '-' or '_'.",
            code="invalid_trust_domain",
            field="trust_domain",
        )
    return text


def make_spiffe_id(trust_domain: str, *path: str) -> SpiffeId:
    """Build an identity from a trust domain and path segments. Raises InvalidRequest."""
    return parse_spiffe_id(f"spiffe://{trust_domain}/{'/'.join(path)}")


def parse_spiffe_id(text: str) -> SpiffeId:
    """Parse an identity strictly: no query, port, user, empty or dotted segment. Raises InvalidRequest."""
    problem: str | None = None
    scheme, _, rest = text.partition("://")
    domain, slash, path_text = rest.partition("/")
    segments = tuple(path_text.split("/")) if slash else ()
    if len(text.encode("utf-8", "replace")) > SPIFFE_ID_BYTES_MAX:
        problem = f"is longer than {SPIFFE_ID_BYTES_MAX} bytes"
    elif scheme != "spiffe":
        problem = "does not start with spiffe://"
    elif not _TRUST_DOMAIN.fullmatch(domain):
        problem = "has no valid trust domain"
    elif not segments:
        problem = "has no path"
    elif any(not _SEGMENT.fullmatch(segment) or segment in (".", "..") for segment in segments):
        problem = "has a path segment that is empty, dotted or holds a character that is not allowed"
    if problem:
        raise InvalidRequest(f"The SPIFFE ID {text[:120]!r} {problem}.", code="invalid_spiffe_id")
    return SpiffeId(trust_domain=domain, path=segments)

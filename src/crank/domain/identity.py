"""SPIFFE identities, and the names of Crank's own trust domain: only a parser makes one.

The grammar is that of the SPIFFE-ID standard, sections 2.1 to 2.3, and holds for every trust domain. What a path
means is each domain's own affair; of ours it is written in docs/reference/trust-domain.md, and enforced here.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from crank.errors import InvalidRequest

SPIFFE_ID_BYTES_MAX = 2048
TRUST_DOMAIN_BYTES_MAX = 255
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SCHEME = "spiffe://"
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
# Names in our own domain: these stand in records, in file names and in policies.
_OWN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_OWN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
TENANT_PATH_SEGMENTS_MAX = 4
# First segments that stand for a kind; a workload is always a tenant's.
_OF_THE_NODE = ("controller", "worker", "node", "agent")


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


class WorkloadKind(StrEnum):
    """What may bear an identity of our trust domain; there is nothing else."""

    CONTROLLER = "controller"
    WORKER = "worker"
    NODE = "node"
    AGENT = "agent"
    WORKLOAD = "workload"


@dataclass(frozen=True, slots=True)
class WorkloadPath:
    """What a path of our own trust domain says; made by `parse_workload_path` alone.

    name    the id or name after the kind; of a tenant's workload all that follows the tenant
    tenant  whose it is, under `/tenant/<t>/…`; None: the node's own
    """

    kind: WorkloadKind
    name: str
    tenant: str | None = None


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


def parse_trust_domain_id(text: str) -> str:
    """Read `spiffe://<trust domain>`, the identity of a domain itself; return its name. Raises InvalidRequest."""
    scheme, domain = text[: len(_SCHEME)], text[len(_SCHEME) :]
    if scheme != _SCHEME or not _TRUST_DOMAIN.fullmatch(domain):
        raise _invalid(text, "is not that of a trust domain, which has no path")
    return domain


def parse_spiffe_id(text: str) -> SpiffeId:
    """Parse an identity strictly: no query, port, user, empty or dotted segment. Raises InvalidRequest."""
    problem: str | None = None
    scheme, _, rest = text.partition("://")
    domain, slash, path_text = rest.partition("/")
    segments = tuple(path_text.split("/")) if slash else ()
    if len(text.encode("utf-8", "replace")) > SPIFFE_ID_BYTES_MAX:
        problem = f"is longer than {SPIFFE_ID_BYTES_MAX} bytes"
    elif scheme != "spiffe":
        problem = f"does not start with {_SCHEME}"
    elif not _TRUST_DOMAIN.fullmatch(domain):
        problem = "has no valid trust domain"
    elif not segments:
        problem = "has no path"
    elif any(not _SEGMENT.fullmatch(segment) or segment in (".", "..") for segment in segments):
        problem = "has a path segment that is empty, dotted or holds a character that is not allowed"
    if problem:
        raise _invalid(text, problem)
    return SpiffeId(trust_domain=domain, path=segments)


def parse_workload_path(spiffe_id: SpiffeId) -> WorkloadPath:
    """Read a path of our own trust domain: one of the kinds and shapes that it knows. Raises InvalidRequest."""
    first, *rest = spiffe_id.path
    if first == "tenant":
        return _tenant_path(spiffe_id, rest)
    if first not in _OF_THE_NODE:
        raise _invalid(str(spiffe_id), "is of no kind that this trust domain has")
    kind = WorkloadKind(first)
    grammar = _OWN_NAME if kind is WorkloadKind.AGENT else _OWN_ID
    if len(rest) != 1 or not grammar.fullmatch(rest[0]):
        raise _invalid(str(spiffe_id), f"must be /{kind}/ and one short name")
    return WorkloadPath(kind, rest[0])


def _tenant_path(spiffe_id: SpiffeId, rest: list[str]) -> WorkloadPath:
    tenant, names = rest[:1], rest[1:]
    if not tenant or not _OWN_NAME.fullmatch(tenant[0]):
        raise _invalid(str(spiffe_id), "names no valid tenant")
    if not 1 <= len(names) <= TENANT_PATH_SEGMENTS_MAX or not all(_OWN_ID.fullmatch(name) for name in names):
        raise _invalid(str(spiffe_id), f"must have 1 to {TENANT_PATH_SEGMENTS_MAX} short names after the tenant")
    if names[0] == WorkloadKind.AGENT and len(names) == 2 and _OWN_NAME.fullmatch(names[1]):
        return WorkloadPath(WorkloadKind.AGENT, names[1], tenant[0])
    # A tenant has agents and workloads; it never has what looks like a part of the node.
    if names[0] in (*_OF_THE_NODE, "tenant"):
        raise _invalid(str(spiffe_id), "takes the name of another kind for a tenant's workload")
    return WorkloadPath(WorkloadKind.WORKLOAD, "/".join(names), tenant[0])


def _invalid(text: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"The SPIFFE ID {text[:120]!r} {problem}.", code="invalid_spiffe_id")

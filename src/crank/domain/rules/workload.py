"""Workloads: which identities may be registered, which of them a process earns, and what a JWT-SVID says."""

import math
import re
from collections.abc import Collection, Iterable, Sequence

from crank.domain.identity import SpiffeId, WorkloadKind, make_spiffe_id, parse_trust_domain, parse_workload_path
from crank.domain.json import JsonObject
from crank.domain.trust import Attestation
from crank.domain.workload import SAYS_WHO, Selector, WorkloadEntry
from crank.errors import InvalidRequest, TooLarge

# The kernel named the process, and nothing was presented that could be borrowed; but no node proved itself for it.
ATTESTED = Attestation.NONE

# What the authority gives to parts of Crank itself is never a workload's.
PATHS = "agent/<name> or tenant/<tenant>/<name>"
PATH_CHARS_MAX = 512
SELECTORS_MAX = 16
DNS_NAMES_MAX = 8
FEDERATES_MAX = 16
HINT_CHARS_MAX = 128
TTL_SEC_MIN = 10
TTL_SEC_MAX = 3600
AUDIENCES_MAX = 16
AUDIENCE_CHARS_MAX = 1024
JWT_SEC_MAX = 300
# Tokens are bound to a key and live ten minutes at most (`rules.role`), so of a key that changes once a day hardly any
# meets the change; and a key that was copied unseen is worth no more than a day.
KEY_SEC_MAX = 86_400
_DNS_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
# By how much the clock of who made a token may differ from ours.
LEEWAY_SEC = 20
_US = 1_000_000


def workload_id(trust_domain: str, path: str) -> SpiffeId:
    """Return the identity of a workload by its path (`agent/ci`), or by the whole of it in this trust domain.

    Raises InvalidRequest (`invalid_spiffe_id`, `path_reserved`).
    """
    own = f"spiffe://{trust_domain}/"
    if len(path) > PATH_CHARS_MAX + len(own):
        raise InvalidRequest(f"A path is at most {PATH_CHARS_MAX} characters.", code="invalid_spiffe_id", field="path")
    made = make_spiffe_id(trust_domain, *path.removeprefix(own).removeprefix("/").split("/"))
    if parse_workload_path(made).kind in (WorkloadKind.AGENT, WorkloadKind.WORKLOAD):
        return made
    raise InvalidRequest(
        f"{str(made)[:200]} is not an identity for a workload.",
        code="path_reserved",
        field="path",
        fix=f"Choose {PATHS}; other paths are for parts of Crank itself.",
    )


def check_entry(entry: WorkloadEntry) -> None:
    """Refuse what could never be served or would be anybody's. Raises InvalidRequest, TooLarge."""
    for name, given, most in (
        ("selectors", entry.selectors, SELECTORS_MAX),
        ("dns_names", entry.dns_names, DNS_NAMES_MAX),
        ("federates_with", entry.federates_with, FEDERATES_MAX),
    ):
        if len(given) > most:
            raise TooLarge(f"An entry has at most {most} {name}.", field=name)
    if not any(selector.kind in SAYS_WHO for selector in entry.selectors):
        raise InvalidRequest(
            "These selectors say which program runs, but not who runs it; whoever may start a program can steer it.",
            code="selectors_too_wide",
            field="selectors",
            fix="Add unix:uid, unix:gid, unix:cgroup or systemd:unit.",
        )
    if entry.ttl_sec is not None and not TTL_SEC_MIN <= entry.ttl_sec <= TTL_SEC_MAX:
        raise InvalidRequest(
            f"A certificate lives from {TTL_SEC_MIN} to {TTL_SEC_MAX} seconds.", code="ttl_out_of_range", field="ttl_sec"
        )
    if len(entry.hint) > HINT_CHARS_MAX or not entry.hint.isprintable():
        raise InvalidRequest(
            f"A hint is at most {HINT_CHARS_MAX} printable characters.", code="invalid_hint", field="hint"
        )
    for name in entry.dns_names:
        if not _DNS_NAME.fullmatch(name):
            raise InvalidRequest(
                f"{name[:120]!r} is no DNS name in lower case.", code="invalid_dns_name", field="dns_names"
            )
    for domain in entry.federates_with:
        if parse_trust_domain(domain) == entry.spiffe_id.trust_domain:
            raise InvalidRequest(
                "An entry needs no word to know its own trust domain.",
                code="federates_with_itself",
                field="federates_with",
            )


def earned(entries: Iterable[WorkloadEntry], marks: Collection[Selector]) -> tuple[WorkloadEntry, ...]:
    """Return the entries all of whose selectors a process bears, in the order of their registration."""
    return tuple(entry for entry in entries if all(selector in marks for selector in entry.selectors))


def unit_of(cgroup: str) -> str | None:
    """Return the system's unit that a control group belongs to: its first part that is no slice, or None.

    What lies deeper was made by that unit itself, such as the services of a user's own manager, and proves nothing.
    """
    for part in cgroup.split("/")[1:]:
        if not part.endswith(".slice"):
            return part if part.endswith((".service", ".scope")) else None
    return None


def is_key_old(age_sec: float) -> bool:
    """Tell whether a workload's next certificate is for another key."""
    return age_sec >= KEY_SEC_MAX


def check_audience(audience: Sequence[str]) -> None:
    """Refuse what no JWT-SVID can be made out to. Raises InvalidRequest (`invalid_audience`)."""
    if not audience or len(audience) > AUDIENCES_MAX:
        raise InvalidRequest(f"Name 1 to {AUDIENCES_MAX} audiences.", code="invalid_audience", field="audience")
    if any(not 0 < len(name) <= AUDIENCE_CHARS_MAX for name in audience):
        raise InvalidRequest(
            f"An audience is 1 to {AUDIENCE_CHARS_MAX} characters.", code="invalid_audience", field="audience"
        )


def jwt_life_sec(entry: WorkloadEntry) -> int:
    """Return how long a JWT-SVID of this entry lives: it cannot be called back, so never long."""
    return JWT_SEC_MAX if entry.ttl_sec is None else min(entry.ttl_sec, JWT_SEC_MAX)


def jwt_claims(spiffe_id: SpiffeId, audience: Sequence[str], *, now_us: int, life_sec: int) -> JsonObject:
    """Return the claims of a JWT-SVID (JWT-SVID standard, section 3)."""
    issued_sec = now_us // _US
    return {
        "sub": str(spiffe_id),
        "aud": list(dict.fromkeys(audience)),
        "iat": issued_sec,
        "exp": issued_sec + life_sec,
    }


def claims_refusal(claims: JsonObject, audience: str, *, now_us: int) -> str | None:
    """Return why the claims of a JWT-SVID do not hold for this audience now, or None (JWT-SVID standard, section 5)."""
    named, now_sec = claims.get("aud"), now_us // _US
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, list) or audience not in names:
        return "it is made out to others"
    if now_sec >= _time(claims.get("exp"), otherwise=0) + LEEWAY_SEC:
        return "it has expired"
    if now_sec + LEEWAY_SEC < _time(claims.get("nbf", 0), otherwise=math.inf):
        return "it is not valid yet"
    return None


def _time(value: object, *, otherwise: float) -> float:
    """Return a NumericDate of RFC 7519; what is none counts as a time that refuses."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else otherwise

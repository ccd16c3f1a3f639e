"""Roles: those that every node has, how one is written, who may assume it, and the ceiling that it sets."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from crank.domain.credential import Credential
from crank.domain.grant import DEPTH_MAX, EVERYTHING, OF_THE_OWNER, RIGHTS_MAX, Ceiling, Right
from crank.domain.job import Refusal
from crank.domain.role import NodeCeiling, Role
from crank.domain.trust import Attestation, parse_attestation
from crank.errors import CrankError, Problem

DEFAULT_ROLE: Final = "default"
OPERATOR_ROLE: Final = "operator"
LIFETIME_SEC_MAX: Final = 600
_EVERY_KEY = "*"
_OWNER = "owner"
_US = 1_000_000

# A file of the same name under roles/ takes the place of one of these.
SHIPPED: Final[Mapping[str, Role]] = {
    role.name: role
    for role in (
        Role(
            DEFAULT_ROLE,
            "Jobs and sessions, for whoever holds a key. Taken when a token is asked for and no role is named.",
            (Right(EVERYTHING),),
            lifetime_sec=LIFETIME_SEC_MAX,
            bearer_sec=300,
            depth=1,
            who=(_EVERY_KEY, _OWNER),
        ),
        Role(
            OPERATOR_ROLE,
            "What only the owner may do: mounts, keys and the audit trail. Never without a key of its holder's.",
            OF_THE_OWNER,
            lifetime_sec=LIFETIME_SEC_MAX,
            bearer_sec=0,
            depth=0,
            who=(_OWNER,),
        ),
    )
}

# Where the operator says nothing.
OPEN: Final = NodeCeiling(OF_THE_OWNER, LIFETIME_SEC_MAX, DEPTH_MAX)


def may_assume(role: Role, credential: Credential) -> Refusal | None:
    """Return why this credential may not assume a role, or None when it may."""
    allowed = _EVERY_KEY in role.who or credential.name in role.who if credential.bounded else _OWNER in role.who
    if allowed:
        return None
    return Refusal(
        "role_not_allowed",
        f"This credential may not assume the role {role.name}.",
        "Ask the node's owner to name it under 'who' in the role's file.",
        "role",
    )


def may_identity(role: Role, identity: str) -> Refusal | None:
    """Return why this workload may not assume a role, or None when it may."""
    if role.key is not None and any(_names(one, identity) for one in role.identities):
        return None
    return Refusal(
        "role_not_allowed",
        f"The identity {identity} may not assume the role {role.name}.",
        "Ask the node's owner to name it under 'identities' in the role's file.",
        "role",
    )


def may_attested(role: Role, shown: Attestation | None) -> Refusal | None:
    """Return why whoever proved so much may not assume a role, or None; `shown` is None where they showed no certificate."""
    least = role.attestation
    if least is None or (shown is not None and shown >= least):
        return None
    has = "none was shown" if shown is None else f"this one says {shown.label}"
    return Refusal(
        "role_not_allowed",
        f"The role {role.name} needs a certificate of its holder's with attestation {least.label}, and {has}.",
        "Ask over a connection with the certificate of a machine that joined at that level.",
        "role",
    )


def _names(pattern: str, identity: str) -> bool:
    return identity == pattern or (pattern.endswith("/*") and identity.startswith(pattern[:-1]))


def ceiling(role: Role, now_us: int, *, bound: bool) -> Ceiling | Refusal:
    """Return the most that a role gives now, to a holder who proved a key (`bound`) or to any bearer."""
    seconds = role.lifetime_sec if bound else role.bearer_sec
    if seconds <= 0:
        return Refusal(
            "bearer_not_allowed",
            f"The role {role.name} gives no token that whoever holds it could use.",
            "Prove a key with the request: a DPoP header (RFC 9449), or a client certificate.",
            "role",
        )
    return Ceiling(role.rights, now_us + min(seconds, LIFETIME_SEC_MAX) * _US, role.depth)


def of_the_node(most: NodeCeiling, now_us: int) -> Ceiling:
    """Return what this node lets pass at most now, whatever a role says."""
    return Ceiling(most.rights, now_us + most.lifetime_sec * _US, most.depth)


# --- a role as it is written -------------------------------------------------------------------

_SUMMARY_CHARS_MAX = 300
_NAMES_MAX = 256
_NAME_CHARS_MAX = 63
# A prefix names a trust domain and one segment at least: nobody gives a role to a whole world by a slip.
_IDENTITY = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]{1,255}){1,16}(/\*)?")
_FIELDS: Final = frozenset({"summary", "rights", "lifetime_sec", "bearer_sec", "depth", "who", "identities", "key", "attestation"})

# Reads what one [[rights]] says; raises the fault that says what is wrong with it.
ReadRight = Callable[[Any], Right]


def parse_role(name: str, document: Mapping[str, Any], read_right: ReadRight) -> tuple[Role | None, Sequence[Problem]]:
    """Return the role that a file describes, or everything that is wrong with it."""
    problems = [
        Problem(f"{name}.{word}", "It is not a field of a role.", _FIX) for word in sorted(set(document) - _FIELDS)
    ]
    summary, who = document.get("summary"), document.get("who")
    if not isinstance(summary, str) or not 0 < len(summary) <= _SUMMARY_CHARS_MAX:
        problems.append(
            Problem(f"{name}.summary", f"It is a sentence of at most {_SUMMARY_CHARS_MAX} characters.", _FIX)
        )
    identities, key = document.get("identities", []), document.get("key")
    if not _are_identities(identities) or bool(identities) != isinstance(key, str):
        cause = "They are SPIFFE IDs or prefixes that end in '/*', and there is a 'key' by whose authority they act."
        problems.append(Problem(f"{name}.identities", cause, _FIX))
    if not _are_names(who) and not (who is None and identities):
        problems.append(
            Problem(f"{name}.who", "It is a list of names of keys, '*' for all, 'owner' for the owner.", _FIX)
        )
    numbers = {
        word: _number(name, document, word, most, usual, problems)
        for word, most, usual in (
            ("lifetime_sec", LIFETIME_SEC_MAX, LIFETIME_SEC_MAX),
            ("bearer_sec", LIFETIME_SEC_MAX, 0),
            ("depth", DEPTH_MAX, 0),
        )
    }
    rights = _rights(name, document.get("rights"), read_right, problems)
    level = _level(name, document.get("attestation"), problems)
    if problems:
        return None, problems
    return Role(
        name, str(summary), rights, **numbers, who=tuple(who or ()), identities=tuple(identities), key=key,
        attestation=level,
    ), ()  # fmt: skip


def parse_ceiling(
    name: str, document: Mapping[str, Any], read_right: ReadRight
) -> tuple[NodeCeiling | None, Sequence[Problem]]:
    """Return the ceiling that a file describes, or everything that is wrong with it; what it leaves out stays as it was."""
    known = {"lifetime_sec", "depth", "rights"}
    problems = [Problem(f"{name}.{word}", "It is not a field of a policy.", _FIX) for word in sorted(set(document) - known)]
    lifetime_sec = _number(name, document, "lifetime_sec", LIFETIME_SEC_MAX, LIFETIME_SEC_MAX, problems)
    if lifetime_sec == 0:
        problems.append(Problem(f"{name}.lifetime_sec", f"It is a whole number from 1 to {LIFETIME_SEC_MAX}.", _FIX))
    depth = _number(name, document, "depth", DEPTH_MAX, DEPTH_MAX, problems)
    rights: tuple[Right, ...] = OF_THE_OWNER
    if "rights" in document:
        rights = _rights(name, document["rights"], read_right, problems)
    return (None if problems else NodeCeiling(rights, lifetime_sec, depth)), problems


_FIX = "Correct the file; docs/reference/tokens.md describes it."


def _are_names(who: Any) -> bool:
    return (
        isinstance(who, list)
        and 0 < len(who) <= _NAMES_MAX
        and all(isinstance(one, str) and 0 < len(one) <= _NAME_CHARS_MAX for one in who)
    )


def _are_identities(identities: Any) -> bool:
    return (
        isinstance(identities, list)
        and len(identities) <= _NAMES_MAX
        and all(isinstance(one, str) and _IDENTITY.fullmatch(one) for one in identities)
    )


def _number(name: str, document: Mapping[str, Any], word: str, most: int, usual: int, problems: list[Problem]) -> int:
    found = document.get(word, usual)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= most:
        problems.append(Problem(f"{name}.{word}", f"It is a whole number from 0 to {most}.", _FIX))
        return usual
    return found


def _level(name: str, found: Any, problems: list[Problem]) -> Attestation | None:
    if found is None:
        return None
    try:
        return parse_attestation(str(found), field=f"{name}.attestation")
    except CrankError as fault:
        problems.append(Problem(f"{name}.attestation", fault.message, fault.fix or _FIX))
        return None


def _rights(name: str, source: Any, read_right: ReadRight, problems: list[Problem]) -> tuple[Right, ...]:
    if not isinstance(source, list) or not 0 < len(source) <= RIGHTS_MAX:
        problems.append(Problem(f"{name}.rights", f"It has 1 to {RIGHTS_MAX} [[rights]].", _FIX))
        return ()
    found = []
    for place, entry in enumerate(source):
        try:
            found.append(read_right(entry))
        except CrankError as fault:
            problems.append(Problem(f"{name}.rights[{place}]", fault.message, _FIX))
    return tuple(found)

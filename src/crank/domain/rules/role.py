"""Roles: those that every node has, who may assume one, and the ceiling that it sets."""

from collections.abc import Mapping
from typing import Final

from crank.domain.credential import Credential
from crank.domain.grant import EVERYTHING, OF_THE_OWNER, Ceiling, Right
from crank.domain.job import Refusal
from crank.domain.role import Role

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

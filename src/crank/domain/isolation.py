"""The words for how well a job is walled in, strongest first, and their order.

There is no word for no isolation: a machine that can give none of these runs no script at all.
"""

from enum import StrEnum

from crank.errors import InvalidRequest, SandboxError


class Tier(StrEnum):
    """What a worker's sandbox stands on, tried rather than guessed.

    NAMESPACES  user, mount, pid, ipc, uts and network namespaces with Landlock, a filter, limits and a control group
    LANDLOCK    no user namespaces: Landlock, a filter and limits; the network rests on one full layer, the filter
    """

    NAMESPACES = "namespaces"
    LANDLOCK = "landlock"


STRONGEST_FIRST = (Tier.NAMESPACES, Tier.LANDLOCK)
TIER_DEFAULT = Tier.NAMESPACES


def is_allowed(tier: Tier, lowest: Tier) -> bool:
    """Tell whether a tier is at least as strong as the lowest that the operator allows."""
    return STRONGEST_FIRST.index(tier) <= STRONGEST_FIRST.index(lowest)


def require(tier: Tier, lowest: Tier) -> None:
    """Refuse a tier that is weaker than the operator allows. Raises SandboxError (`tier_not_allowed`)."""
    if not is_allowed(tier, lowest):
        raise SandboxError(
            f"This machine gives jobs the tier '{tier}', and the operator allows nothing below '{lowest}'.",
            code="tier_not_allowed",
            fix=f"Run 'crank doctor' to see what keeps '{lowest}' from working, or allow the weaker tier with "
            f"CRANK_SANDBOX_TIER={tier}.",
        )


def parse_tier(text: str) -> Tier:
    """Read a tier's name. Raises InvalidRequest; `none` is refused with the reason."""
    if text in set(Tier):
        return Tier(text)
    if text == "none":
        raise InvalidRequest(
            "There is no tier 'none': code of strangers never runs without walls.",
            code="invalid_tier",
            fix=f"Use {' or '.join(Tier)}; 'crank doctor' says which this machine can give.",
        )
    raise InvalidRequest(f"The tier {text[:40]!r} is not known.", code="invalid_tier", fix=f"Use {' or '.join(Tier)}.")

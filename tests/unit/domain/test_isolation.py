"""Tiers: a few words in an order, and none for no isolation."""

import pytest

from crank.domain.isolation import Tier, is_allowed, parse_tier, require
from crank.errors import InvalidRequest, SandboxError


@pytest.mark.parametrize(
    ("tier", "lowest", "allowed"),
    [
        (Tier.NAMESPACES, Tier.NAMESPACES, True),
        (Tier.NAMESPACES, Tier.LANDLOCK, True),
        (Tier.LANDLOCK, Tier.LANDLOCK, True),
        (Tier.LANDLOCK, Tier.NAMESPACES, False),
    ],
)
def test_a_stronger_tier_is_allowed_where_a_weaker_is(tier: Tier, lowest: Tier, allowed: bool) -> None:
    """The operator's lowest tier lets it and everything stronger in, nothing weaker."""
    assert is_allowed(tier, lowest) is allowed


def test_a_weaker_tier_is_refused_with_what_to_do() -> None:
    """A worker that cannot give what the operator wants says so, and how to allow less."""
    require(Tier.NAMESPACES, Tier.LANDLOCK)
    with pytest.raises(SandboxError) as caught:
        require(Tier.LANDLOCK, Tier.NAMESPACES)
    assert caught.value.error_code == "tier_not_allowed"
    assert "CRANK_SANDBOX_TIER=landlock" in caught.value.fix


@pytest.mark.parametrize("tier", list(Tier))
def test_every_tier_has_a_place_in_the_order(tier: Tier) -> None:
    """A new tier cannot be forgotten in the order, and its name is read back."""
    assert is_allowed(tier, tier)
    assert parse_tier(str(tier)) is tier


def test_no_isolation_is_refused_with_the_reason() -> None:
    """Asking for no walls is answered with why there is no such thing."""
    with pytest.raises(InvalidRequest, match="never runs without walls"):
        parse_tier("none")


@pytest.mark.parametrize("text", ["", "Namespaces", "gvisor", "none "])
def test_an_unknown_word_is_refused(text: str) -> None:
    """Any other word is refused, and the known ones are named."""
    with pytest.raises(InvalidRequest) as caught:
        parse_tier(text)
    assert "landlock" in caught.value.fix

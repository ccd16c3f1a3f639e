"""Which tier is taken: the strongest that stands, never one below what is allowed."""

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from crank.domain.isolation import Tier
from crank.errors import SandboxError
from crank.sandbox import layers, tiers
from crank.sandbox.link import LauncherLink


@dataclass
class _Machine:
    """A machine where some tiers stand: its launchers are only started and let go here."""

    stands: set[Tier]
    tried: list[Tier] = field(default_factory=list)
    closed: list[Tier] = field(default_factory=list)

    def launch(self, tier: Tier) -> LauncherLink:
        self.tried.append(tier)
        return cast("LauncherLink", _Link(self, tier))


@dataclass
class _Link:
    machine: _Machine
    tier: Tier

    def close(self) -> None:
        self.machine.closed.append(self.tier)


@pytest.fixture(autouse=True)
def _rehearse(monkeypatch: pytest.MonkeyPatch) -> None:
    def rehearse(link: Any) -> None:
        if link.tier not in link.machine.stands:
            raise layers.missing("user_namespace" if link.tier is Tier.NAMESPACES else "landlock", "it is not there")

    monkeypatch.setattr(tiers, "rehearse", rehearse)


def test_the_strongest_is_taken_though_a_weaker_is_allowed() -> None:
    """Allowing less does not give less."""
    machine = _Machine({Tier.NAMESPACES, Tier.LANDLOCK})
    assert tiers.strongest(Tier.LANDLOCK, machine.launch).tier is Tier.NAMESPACES
    assert machine.tried == [Tier.NAMESPACES]
    assert machine.closed == []


def test_the_next_is_taken_where_it_is_allowed() -> None:
    """The launcher of the tier that does not stand is let go."""
    machine = _Machine({Tier.LANDLOCK})
    assert tiers.strongest(Tier.LANDLOCK, machine.launch).tier is Tier.LANDLOCK
    assert machine.closed == [Tier.NAMESPACES]


def test_a_weaker_one_that_is_not_allowed_is_refused_and_named() -> None:
    """The fault is that of the missing wall, and its fix offers what would work."""
    machine = _Machine({Tier.LANDLOCK})
    with pytest.raises(SandboxError) as refused:
        tiers.strongest(Tier.NAMESPACES, machine.launch)
    assert refused.value.error_code == "layer_user_namespace"
    assert "CRANK_SANDBOX_TIER=landlock" in (refused.value.fix or "")
    assert machine.closed == [Tier.NAMESPACES, Tier.LANDLOCK]


@pytest.mark.parametrize("lowest", list(Tier))
def test_where_nothing_stands_the_first_wall_is_named(lowest: Tier) -> None:
    """A fix that would not help is not offered."""
    machine = _Machine(set())
    with pytest.raises(SandboxError) as refused:
        tiers.strongest(lowest, machine.launch)
    assert refused.value.error_code == "layer_user_namespace"
    assert "CRANK_SANDBOX_TIER" not in (refused.value.fix or "")
    assert machine.closed == [Tier.NAMESPACES, Tier.LANDLOCK]

"""Profiles as this machine gives them: the operator's ceilings hold wherever a profile is read."""

from pathlib import Path

import pytest

from crank.bootstrap.profiles import Profiles
from crank.cli.profile import list_profiles
from crank.config import load

CEILING_BYTES = 64 << 20


@pytest.fixture
def ceilings(tmp_path: Path) -> dict[str, str]:
    """Give an environment with a low ceiling for memory and one for time that lowers nothing."""
    return {
        "CRANK_HOME": str(tmp_path),
        "CRANK_LIMIT_MEMORY_BYTES": str(CEILING_BYTES),
        "CRANK_LIMIT_WALL_SEC": "86400",
    }


def test_a_ceiling_holds_for_every_profile(ceilings: dict[str, str]) -> None:
    """Each profile comes with its memory lowered, keeps the rest, and its own word is still known."""
    here, plain = Profiles(load(environment=ceilings)), Profiles(load(environment={"CRANK_HOME": "/nowhere"}))
    for name in here.names():
        own = plain.load(name).limits
        assert here.load(name).limits.memory_bytes == CEILING_BYTES
        assert here.load(name).limits.wall_sec == own.wall_sec
        assert here.lowered(name) == {"memory_bytes": own.memory_bytes}
        assert plain.lowered(name) == {}


def test_the_list_says_what_was_lowered(
    ceilings: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`crank profile list` tells a person each limit that is lower here than in the profile."""
    for name, value in ceilings.items():
        monkeypatch.setenv(name, value)
    assert list_profiles() == 0
    assert f"python-core: memory_bytes is {CEILING_BYTES} here; the profile itself has 536870912" in (
        capsys.readouterr().err
    )

"""Profiles: the shipped files are good, and a bad one has all its mistakes told at once."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from crank.domain.profile import parse_profile
from crank.domain.quantity import MIB
from crank.errors import ProfileError

FOLDER = Path(__file__).resolve().parents[3] / "profiles"
SHIPPED = sorted(FOLDER.glob("*.toml"))


def source(**changes: Any) -> dict[str, Any]:
    """Return a small good profile with changes."""
    return {
        "schema": 1,
        "name": "tiny",
        "capability": "python.run.tiny",
        "version": "1.0.0",
        "python": "3.11",
        "summary": "Nothing but Python.",
        "locks": {"cpu": "locks/tiny.txt"},
        **changes,
    }


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_profiles_are_good(file: Path) -> None:
    """Every profile in the tree is read, proves itself, and has its lock file with hashes."""
    profile = parse_profile(tomllib.loads(file.read_text("utf-8")), origin=file.name)
    assert profile.name == file.stem
    assert profile.self_tests
    for lock in profile.locks.values():
        text = (FOLDER / lock).read_text("utf-8")
        assert "--hash=sha256:" in text
        assert "://" not in text, "a lock names no address"


def test_all_mistakes_are_told_at_once() -> None:
    """Nobody corrects a file five times."""
    with pytest.raises(ProfileError) as caught:
        parse_profile(
            source(schema=2, surprise=1, packages="x", limits={"wall_sec": -1, "nonsense": 2}, locks={}, name=""),
            origin="tiny.toml",
        )
    fields = {problem.field for problem in caught.value.problems}
    assert fields == {
        f"tiny.toml: {name}"
        for name in ("schema", "surprise", "packages", "limits.wall_sec", "limits.nonsense", "locks", "name")
    }
    assert all(problem.fix for problem in caught.value.problems)


@pytest.mark.parametrize("limits", [{"memory_bytes": True}, {"memory_bytes": "1 GiB"}, {"processes": 0}, 3])
def test_limits_are_numbers_in_range(limits: object) -> None:
    """A limit that is no number in its range is refused."""
    with pytest.raises(ProfileError):
        parse_profile(source(limits=limits), origin="tiny.toml")


@pytest.mark.parametrize(
    "tests", [{}, [{}], [{"name": "a"}], [{"name": "a", "code": 1}], [{"name": "a", "code": "", "x": ""}]]
)
def test_self_tests_are_complete(tests: object) -> None:
    """A self-test has a name and code, and nothing unknown."""
    with pytest.raises(ProfileError):
        parse_profile(source(self_test=tests), origin="tiny.toml")


def test_values_arrive() -> None:
    """What the file says is what the profile holds."""
    profile = parse_profile(
        source(limits={"memory_bytes": 64 * MIB, "wall_sec": 3}, self_test=[{"name": "a", "code": "1"}]), origin="t"
    )
    assert (profile.limits.memory_bytes, profile.limits.wall_sec) == (64 * MIB, 3.0)
    assert profile.self_tests[0].expect == "ok"

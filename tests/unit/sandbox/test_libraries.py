"""The host's shared libraries come from a closed list, and give way to what is shown anyway."""

from pathlib import Path

import pytest

from crank.sandbox import libraries
from crank.sandbox.plan import is_free


def test_only_what_is_there_is_found() -> None:
    """Every place exists; a folder of the root that is a link stays one."""
    places, links = libraries.find()
    assert places
    assert all(Path(place).exists() for place in places)
    assert all(Path(f"/{name}").is_symlink() for name in links)
    assert not [place for place in places if Path(place).is_symlink() and place.count("/") == 1]


def test_nothing_secret_is_on_the_list() -> None:
    """No accounts, no keys, nobody's home."""
    places, _ = libraries.find()
    secrets = ("/etc/shadow", "/etc/passwd", "/etc/ssl/private/x", "/root", "/home", "/var/lib", "/usr/bin/sh")
    assert not [secret for secret in secrets if libraries.lies_in(secret, places)]


def test_what_comes_anyway_is_left_out() -> None:
    """A layer that holds a place of the list is enough."""
    places, _ = libraries.find(["/usr/lib"])
    assert "/usr/lib" not in places


def test_what_is_on_the_list_is_not_the_callers_to_show() -> None:
    """A layer of the system's own libraries would be one that may be shown as the job's own."""
    assert [libraries.comes_anyway(place) for place in ("/usr/lib", "/usr/lib/python3", "/usr/local/lib", "/usr")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("path", "places", "lies"),
    [("/a", ["/a"], True), ("/a/b", ["/a"], True), ("/ab", ["/a"], False), ("/a", ["/a/b"], False), ("/a", [], False)],
)
def test_lying_in_a_place_goes_by_whole_names(path: str, places: list[str], lies: bool) -> None:
    """A name that only begins alike is another place."""
    assert libraries.lies_in(path, places) is lies


@pytest.mark.parametrize(
    ("place", "free"),
    [
        ("/srv/app", True),
        ("/home/a b/.venv", True),
        ("/var/lib/app", True),
        ("/", False),
        ("/usr", False),
        ("/var", False),
        ("/etc", False),
        ("/etc/x", False),
        ("/proc/self", False),
        ("/tmp/x", False),
        ("/var/tmp/x", False),
        ("/.crank", False),
        ("/scratch", False),
        ("/a/../etc", False),
        ("/a/./b", False),
        ("/a//b", False),
        ("/a/", False),
        ("a", False),
        ("/a\0", False),
        ("/\n", True),
        ("/x/..", False),
        ("/x/..y", True),
        ("/" + "x" * 5_000, False),
    ],
)
def test_a_layer_lies_only_where_the_sandbox_has_nothing_of_its_own(place: str, free: bool) -> None:
    """Plain absolute paths outside the sandbox's own folders, and not around the libraries."""
    assert is_free(place) is free

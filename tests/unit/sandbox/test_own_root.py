"""What a cell shows is listed by its outermost mounts, and the loader is told of libraries without loading any."""

from pathlib import Path

from crank.sandbox import own_root


def _mapped() -> set[str]:
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if ".so" in line}


def test_only_the_outermost_mounts_are_listed() -> None:
    """No place lies in another, none is one that was named as the child's own, and the root is not among them."""
    places = [mount.place for mount in own_root.shown(["/proc"])]
    assert len(places) == len(set(places))
    assert not {"/", "/proc"} & set(places)
    assert not [(one, other) for one in places for other in places if one.startswith(f"{other}/")]


def test_a_folder_with_mounts_inside_is_not_whole() -> None:
    """A folder that an overlay could not show in full is marked, and so is what is no folder."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    mounted = {line.split(" ")[4] for line in lines}
    for mount in own_root.shown([]):
        inside = [place for place in mounted if place.startswith(f"{mount.place}/")]
        assert mount.whole is (Path(mount.place).is_dir() and not inside)


def test_naming_libraries_loads_none() -> None:
    """What is not loaded stays so."""
    before = _mapped()
    own_root.name_libraries()
    assert _mapped() == before

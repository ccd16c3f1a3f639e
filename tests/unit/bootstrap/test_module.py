"""What of a machine an author's functions are shown: what their module is imported from, and no home."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import crank
from crank.bootstrap.module import describe
from crank.config import Settings, load
from crank.errors import CrankError
from crank.ports import ModuleBuild
from crank.sandbox.plan import is_free
from crank.worker.app import function_offers
from tests.support import author_tools

_OFFERS = function_offers(author_tools.app, "mine:app")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder with a module, in which one stands, as `crank worker serve` does; the owner's home is elsewhere."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "mine.py").write_text("", "utf-8")
    (folder / "beside.py").write_text("", "utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("HOME", str(tmp_path / "owner"))
    return folder


def _settings(home: Path) -> Settings:
    home.mkdir(parents=True, exist_ok=True)
    return replace(load(), home=home)


def _shown(build: ModuleBuild) -> set[Path]:
    return {path for _, path in build.layers}


def test_the_module_is_shown_with_what_lies_beside_it(place: Path, tmp_path: Path) -> None:
    """Its folder, the interpreter and Crank are shown; its folder comes first where modules are looked for."""
    build = describe(_settings(tmp_path / "node"), "mine", "mine:app", _OFFERS)
    assert place in _shown(build)
    assert build.modules == ("crank.worker.call", "mine")
    assert build.paths[0] == {path: inside for inside, path in build.layers}[place]
    for needed in (Path(os.__file__).resolve(), Path(crank.__file__).resolve()):
        assert any(needed.is_relative_to(path) for path in _shown(build)), needed
    assert Path(build.python).is_relative_to(sys.base_prefix)


def test_layers_lie_where_the_sandbox_has_room(place: Path, tmp_path: Path) -> None:
    """What lies beneath /tmp here has another place inside, and nothing lies in anything else."""
    build = describe(_settings(tmp_path / "node"), "mine", "mine:app", _OFFERS)
    places = [Path(inside) for inside, _ in build.layers]
    assert all(is_free(str(inside)) for inside in places)
    assert not [inside for inside in places if set(inside.parents) & set(places)]
    assert str({path: inside for inside, path in build.layers}[place]) == f"/host{place}"


def test_a_home_in_the_folder_is_left_out(place: Path) -> None:
    """Where the node's home lies beneath the module's folder, everything else in it is shown, also around the home."""
    (place / "state").mkdir()
    (place / "state" / "notes").write_text("", "utf-8")
    home = place / "state" / "node"
    shown = _shown(describe(_settings(home), "mine", "mine:app", _OFFERS))
    assert {place / "mine.py", place / "beside.py", place / "state" / "notes"} <= shown
    assert not [path for path in shown if home.is_relative_to(path) or path.is_relative_to(home)]


def test_an_owners_home_shows_the_module_alone(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that lies in a home itself does not bring the home along."""
    monkeypatch.setenv("HOME", str(place))
    shown = _shown(describe(_settings(tmp_path / "node"), "mine", "mine:app", _OFFERS))
    assert place / "mine.py" in shown
    assert not [path for path in shown if (place / "beside.py").is_relative_to(path)]


def test_where_one_stands_is_not_shown_for_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A working folder that does not hold the module is nobody's business."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.syspath_prepend(str(elsewhere))
    assert elsewhere not in _shown(describe(_settings(tmp_path / "node"), "mine", "mine:app", _OFFERS))


def test_a_package_is_shown_whole(place: Path, tmp_path: Path) -> None:
    """A module inside a package is found through the package's own folder."""
    (place / "pack").mkdir()
    (place / "pack" / "__init__.py").write_text("", "utf-8")
    build = describe(_settings(tmp_path / "node"), "mine", "pack.inner:app", _OFFERS)
    assert build.modules[-1] == "pack.inner"
    assert place in _shown(build)


def test_ceilings_are_the_highest_of_all_functions(place: Path, tmp_path: Path) -> None:
    """One kind of sandbox serves every function; each call is lowered to its own limits."""
    build = describe(_settings(tmp_path / "node"), "mine", "mine:app", _OFFERS)
    assert build.limits.wall_sec == max(offer.limits.wall_sec for offer in _OFFERS)
    assert build.limits.memory_bytes == max(offer.limits.memory_bytes for offer in _OFFERS)


def test_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The mistake is in the command that was typed."""
    with pytest.raises(CrankError, match="There is no module no_such"):
        describe(_settings(tmp_path / "node"), "mine", "no_such:app", _OFFERS)

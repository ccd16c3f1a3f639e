"""Finds what an author's module is imported from on this machine, and describes it for the sandbox that imports it.

Shown are the interpreter, the folders where this process looks for modules, and the folder of the author's module,
at the same places as here, so that imports just work; never a whole home, and never Crank's own.
"""

import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import crank
from crank.config import Settings, interpreter
from crank.domain.profile import Limits
from crank.errors import CrankError
from crank.ports import ModuleBuild
from crank.sandbox.plan import is_free
from crank.worker.offers import FunctionOffer

# Beneath this folder stands what lies here where a sandbox has something of its own.
_MOVED = Path("/host")
_SHARED_PREFIXES = {Path("/"), Path("/usr"), Path("/usr/local")}
# A folder that holds a home is shown entry by entry; with more entries than this, the module alone is.
_ENTRIES_MAX = 32


def describe(settings: Settings, name: str, target: str, offers: Sequence[FunctionOffer]) -> ModuleBuild:
    """Return the module of `module:app` as a sandbox is to show it. Raises CrankError (`no_such_app`)."""
    module = target.partition(":")[0]
    own = _own_places(module)
    shown: list[Path] = [*_interpreter(), *own, Path(crank.__file__).resolve().parent]
    paths: list[Path] = []
    for entry in _entries(own):
        paths.append(entry)
        shown += _without_homes(entry, settings, own)
    layers = tuple((str(_place(path)), path) for path in _outermost(shown))
    return ModuleBuild(
        name=name,
        modules=("crank.worker.call", module),
        python=str(_place(_executable())),
        version=f"{sys.version_info.major}.{sys.version_info.minor}",
        paths=tuple(dict.fromkeys(str(_place(path)) for path in paths)),
        layers=layers,
        limits=_highest([offer.limits for offer in offers]),
    )


def _own_places(module: str) -> list[Path]:
    """Return the file, or the folders, that the module's outermost package is loaded from."""
    top = module.partition(".")[0]
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise CrankError(f"There is no module {top}.", code="no_such_app", fix="Name it module:app.")
    if spec.submodule_search_locations is not None:
        return [Path(place).resolve() for place in spec.submodule_search_locations]
    return [Path(spec.origin).resolve()] if spec.origin is not None else []


def _executable() -> Path:
    return Path(getattr(sys, "_base_executable", "") or interpreter()).resolve()


def _interpreter() -> list[Path]:
    base = Path(sys.base_prefix).resolve()
    # A prefix that everything shares holds more than an interpreter.
    return [_executable(), base / "lib"] if base in _SHARED_PREFIXES else [_executable(), base]


def _entries(own: Sequence[Path]) -> Iterator[Path]:
    """Yield where modules are looked for, without the interpreter's own library, which it finds by itself."""
    standard = Path(os.__file__).resolve().parent
    here = Path.cwd()
    for text in sys.path:
        entry = Path(text).resolve()
        if not text or not entry.is_dir() or entry in (standard, standard / "lib-dynload"):
            continue
        # `crank worker serve` looks where one stands; that counts only if the module is there.
        if entry != here or any(path.parent == entry for path in own):
            yield entry


def _without_homes(entry: Path, settings: Settings, own: Sequence[Path]) -> list[Path]:
    home, ours = Path.home().resolve(), settings.home.resolve()
    beside = [path for path in own if path.parent == entry]
    if entry == home or entry in home.parents or entry.is_relative_to(ours):
        return beside
    if entry not in ours.parents:
        return [entry]
    found = [path.resolve() for path in _around(entry, ours)]
    return found if len(found) <= _ENTRIES_MAX else beside


def _around(folder: Path, hidden: Path) -> Iterator[Path]:
    """Yield what lies in a folder beside the hidden one."""
    for child in sorted(folder.iterdir()):
        if child in hidden.parents:
            yield from _around(child, hidden)
        elif child != hidden and (child.is_file() or child.is_dir()):
            yield child


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Return each path once, without those that come with another."""
    every = sorted({path for path in paths if path.exists()})
    return [path for path in every if not any(other in path.parents for other in every)]


def _place(path: Path) -> Path:
    """Return where inside a path of this machine is shown."""
    return path if is_free(str(path)) else _MOVED / path.relative_to("/")


def _highest(limits: Sequence[Limits]) -> Limits:
    """Return limits below which each of these stays."""
    names = [field.name for field in fields(Limits)]
    return Limits(**{name: max(getattr(each, name) for each in limits) for name in names})

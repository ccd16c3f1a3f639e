"""The public names of the package are few and exactly these."""

import importlib.metadata
from pathlib import Path

import crank


def test_public_names_are_exact() -> None:
    """A new public name is a promise; it is made here, in sight."""
    assert sorted(crank.__all__) == sorted(set(crank.__all__))
    assert set(crank.__all__) == {
        "AsyncClient",
        "Client",
        "ClientOptions",
        "JobResult",
        "Worker",
        "__version__",
        "errors",
    }


def test_public_names_exist() -> None:
    """Every promised name can be imported."""
    for name in crank.__all__:
        assert getattr(crank, name) is not None


def test_version_is_one() -> None:
    """The package and its metadata tell the same version."""
    assert importlib.metadata.version("crank") == crank.__version__


def test_types_are_shipped() -> None:
    """Type checkers of users see our types (PEP 561)."""
    assert (Path(crank.__file__).parent / "py.typed").is_file()

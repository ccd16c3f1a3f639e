"""Foreign judges, built once and run as programs of their own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.judges import install


@pytest.fixture(scope="session")
def judge() -> Callable[[str], Path]:
    """Return a function from a judge's name to the interpreter that runs its programs; see install.py."""
    return install.interpreter

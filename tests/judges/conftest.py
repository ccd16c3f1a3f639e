"""Foreign judges, built once and run as programs of their own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.judges import install

# A folder with tests of its own, for the judge's own pytest: here nothing of what it imports is installed.
collect_ignore = ["inspect"]


@pytest.fixture(scope="session")
def judge() -> Callable[[str], Path]:
    """Return a function from a judge's name to the interpreter that runs its programs; see install.py."""
    return install.interpreter

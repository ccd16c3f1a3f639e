"""What every test has in common: an environment that is not the developer's, and profiles built once."""

import os
import signal
from pathlib import Path

import pytest
from _pytest.nodeid import coerce_node_id
from hypothesis import HealthCheck, settings

REPO = Path(__file__).resolve().parents[1]

for _name in [name for name in os.environ if name.startswith("CRANK_") and not name.startswith("CRANK_TEST_")]:
    if _name not in {"CRANK_SOAK_KILLS", "CRANK_SOAK_JOBS", "CRANK_SOAK_DOCUMENTS", "CRANK_SOAK_DRILL_SEC"}:
        del os.environ[_name]

# A busy machine is no fault of a test: only what it finds counts, not how long an example took.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
# Whoever starts tests in the background may ignore Ctrl-C for them, and all that they start would ignore it, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def builds() -> Path:
    """Return the folder of built profiles that all tests share; `make profiles-small` fills it."""
    return Path(os.environ.get("CRANK_TEST_BUILDS", REPO / ".cache" / "profiles"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Name a folder for a node's state, not made yet."""
    return tmp_path / "home"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, with its reason, what was not asked for; keep the tests of one node on one process."""
    without_ml = pytest.mark.skip(reason="python-ml is large; CRANK_TEST_ML=1 builds and tests it")
    without_soak = pytest.mark.skip(reason="runs long; make soak runs it")
    soak_wanted = "soak" in (config.option.markexpr or "")
    for item in items:
        if item.get_closest_marker("profile_ml") and not os.environ.get("CRANK_TEST_ML"):
            item.add_marker(without_ml)
        if item.get_closest_marker("soak") and not soak_wanted:
            item.add_marker(without_soak)
        _group(config, item)


def _group(config: pytest.Config, item: pytest.Item) -> None:
    """Name an item's group where xdist looks for it: xdist 3.8 writes it to a place that pytest 9.2 does not read."""
    groups = sorted({str(mark.args[0]) for mark in item.iter_markers("xdist_group")})
    name = f"{item.nodeid}@{'_'.join(groups)}"
    if groups and getattr(config.option, "loadgroup", False) and hasattr(item, "_id"):
        item._id = coerce_node_id(name)

"""The tier without namespaces keeps the promises of every sandbox; what it cannot is listed here, with the reason."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.rootfs import make_build, make_rootfs

from crank.domain.profile import Limits
from crank.ports import SandboxRunner, SandboxSpec
from crank.sandbox.tiers import LandlockRunner
from crank.testing.contracts_lasting import LastingExecution
from crank.testing.contracts_limits import SandboxLimits
from crank.testing.contracts_sandbox import SandboxExecution

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def rootfs() -> Iterator[Path]:
    """Give a root with a bare Python at a place that the account of jobs can reach; pytest's own belong to one."""
    place = Path(tempfile.mkdtemp(prefix="tests-of-crank-"))
    place.chmod(0o755)
    yield make_rootfs(place / "rootfs")
    shutil.rmtree(place)


class _OnLandlock:
    rootfs: Path

    @pytest.fixture(autouse=True)
    def _root(self, rootfs: Path) -> None:
        self.rootfs = rootfs

    def make_runner(self) -> SandboxRunner:
        return LandlockRunner()

    def make_spec(self, **limits: float) -> SandboxSpec:
        return SandboxSpec(make_build(self.rootfs), replace(Limits(wall_sec=20.0), **limits))  # type: ignore[arg-type]


class TestLandlockRunner(_OnLandlock, SandboxExecution):
    """The runner without namespaces, as whoever runs the tests."""


class TestLandlockLimits(_OnLandlock, SandboxLimits):
    """The same limits end a job with the same reasons."""


class TestLandlockLasting(_OnLandlock, LastingExecution):
    """Sessions last here, too."""

    def make_spec(self, **limits: float) -> SandboxSpec:
        return replace(super().make_spec(**limits), lasting=True)

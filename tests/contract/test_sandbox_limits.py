"""The real sandbox ends a job by each limit with that limit's reason, and by none that was kept."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.rootfs import make_build, make_rootfs

from crank.domain.profile import Limits
from crank.ports import SandboxRunner, SandboxSpec
from crank.sandbox.runner import NamespaceRunner
from crank.testing.contracts_limits import SandboxLimits


@pytest.mark.system
class TestNamespaceLimits(SandboxLimits):
    """The real runner, as whoever runs the tests."""

    rootfs: Path

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _root(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        cls.rootfs = make_rootfs(tmp_path_factory.mktemp("sandbox") / "rootfs")

    def make_runner(self) -> SandboxRunner:
        return NamespaceRunner()

    def make_spec(self, **limits: float) -> SandboxSpec:
        return SandboxSpec(make_build(self.rootfs), replace(Limits(wall_sec=20.0), **limits))  # type: ignore[arg-type]

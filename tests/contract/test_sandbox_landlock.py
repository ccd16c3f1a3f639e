"""The tier without namespaces keeps the promises of every sandbox; what it cannot is listed here, with the reason."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.rootfs import make_build, make_rootfs

from crank.domain.outcome import Reason
from crank.domain.profile import Limits
from crank.ports import SandboxRunner, SandboxSpec
from crank.sandbox.tiers import LandlockRunner
from crank.testing.contracts_lasting import LastingExecution
from crank.testing.contracts_limits import SandboxLimits
from crank.testing.contracts_sandbox import SandboxExecution

pytestmark = pytest.mark.system

LEFT_OUT = {
    "a-job-that-copes-with-a-full-folder-goes-on": "Without a mount of its own a folder is never full: the job is ended.",
}


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

    @pytest.fixture(autouse=True)
    def _left_out(self, request: pytest.FixtureRequest) -> None:
        call = getattr(request.node, "callspec", None)
        reason = LEFT_OUT.get(call.id) if call is not None else None
        if reason is not None:
            pytest.skip(reason)

    async def test_a_full_folder_ends_the_job(self) -> None:
        """No write is refused where no mount bounds a folder; the job ends instead, however it would have coped."""
        code = "import time\nopen('/scratch/x', 'wb').write(bytes(8 << 20))\ntime.sleep(10)\n"
        outcome = await self._under(code, {"disk_bytes": 4 << 20})
        assert outcome.end.reason is Reason.DISK


class TestLandlockLasting(_OnLandlock, LastingExecution):
    """Sessions last here, too."""

    def make_spec(self, **limits: float) -> SandboxSpec:
        return replace(super().make_spec(**limits), lasting=True)

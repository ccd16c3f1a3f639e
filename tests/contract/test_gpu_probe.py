"""Both GPU probes keep the promises of `ports.GpuProbe`, on whatever machine the tests run."""

from crank.adapters.nvml import NvmlProbe
from crank.ports import GpuProbe
from crank.testing.contracts_gpu import GpuProbeContract
from crank.testing.fake_gpu import FakeGpuProbe, fake_gpu


class TestNvmlProbe(GpuProbeContract):
    """The driver's library, or its absence."""

    def make(self) -> GpuProbe:
        return NvmlProbe()


class TestFakeGpuProbe(GpuProbeContract):
    """The one for tests."""

    def make(self) -> GpuProbe:
        return FakeGpuProbe([fake_gpu(0), fake_gpu(1)])

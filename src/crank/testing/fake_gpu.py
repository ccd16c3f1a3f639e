"""GPUs for machines without one."""

from collections.abc import Sequence

from crank.domain.quantity import GIB
from crank.domain.worker import GpuDevice


def fake_gpu(index: int, *, model: str = "Test GPU 80GB") -> GpuDevice:
    """Return a device as the driver would describe it."""
    return GpuDevice(index, f"GPU-{index:04d}", model, 80 * GIB, (f"/dev/nvidia{index}", "/dev/nvidiactl"))


class FakeGpuProbe:
    """The GpuProbe port with the devices it was given."""

    def __init__(self, devices: Sequence[GpuDevice] = ()) -> None:
        self._devices = tuple(devices)

    def devices(self) -> Sequence[GpuDevice]:
        """Return the given devices."""
        return self._devices

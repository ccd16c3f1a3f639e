"""Finds NVIDIA GPUs through the driver's own library (NVML), where there is one.

Multi-Instance GPU slices are not told apart yet: a device is handed out whole, slices or not.
"""

from collections.abc import Sequence
from pathlib import Path

import pynvml

from crank.domain.worker import GpuDevice

# What a CUDA program opens beside the device itself.
_SHARED_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")


class NvmlProbe:
    """The GpuProbe port on NVML. Makes no CUDA context, so no device memory is used."""

    def __init__(self, *, device_folder: Path = Path("/dev")) -> None:
        self._device_folder = device_folder

    def devices(self) -> Sequence[GpuDevice]:
        """Return the GPUs that can be used now; empty where there is no driver or no device node."""
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            return ()
        try:
            found = [self._device(index) for index in range(pynvml.nvmlDeviceGetCount())]
        except pynvml.NVMLError:
            return ()
        finally:
            pynvml.nvmlShutdown()
        return [device for device in found if device is not None]

    def _device(self, index: int) -> GpuDevice | None:
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            minor = pynvml.nvmlDeviceGetMinorNumber(handle)
            own = f"/dev/nvidia{minor}"
            # A container may see the driver without being given the device.
            if not self._exists(own):
                return None
            return GpuDevice(
                index=index,
                uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
                model=_text(pynvml.nvmlDeviceGetName(handle)),
                memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
                nodes=(own, *(node for node in _SHARED_NODES if self._exists(node))),
            )
        except pynvml.NVMLError:
            # One broken or forbidden device does not hide the others.
            return None

    def _exists(self, node: str) -> bool:
        return (self._device_folder / Path(node).name).exists()


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

"""Which job holds which GPU: one device is never handed to two jobs at once."""

from collections import Counter
from collections.abc import Sequence

from crank.domain.worker import GpuDevice


def offered_model(devices: Sequence[GpuDevice]) -> str | None:
    """Return the model that this worker offers: the commonest one, then the first by name; None without a GPU.

    A lease names no model, so devices of other models in the same machine are not handed out.
    """
    if not devices:
        return None
    counts = Counter(device.model for device in devices)
    return min(counts, key=lambda model: (-counts[model], model))


class DevicePool:
    """Hands the GPUs of the offered model to one job each."""

    def __init__(self, devices: Sequence[GpuDevice]) -> None:
        model = offered_model(devices)
        self._free = sorted((device for device in devices if device.model == model), key=lambda d: d.index)
        self._taken: dict[str, GpuDevice] = {}

    @property
    def free(self) -> int:
        """Return how many devices no job holds."""
        return len(self._free)

    def take(self) -> GpuDevice | None:
        """Hand out a device, or return None when every one is held."""
        if not self._free:
            return None
        device = self._free.pop(0)
        self._taken[device.uuid] = device
        return device

    def give_back(self, device: GpuDevice) -> None:
        """Take a device back; doing it twice changes nothing."""
        if self._taken.pop(device.uuid, None) is not None:
            self._free.append(device)
            self._free.sort(key=lambda d: d.index)

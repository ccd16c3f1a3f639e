"""What a worker gathers before its walls stand."""

from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from crank.bootstrap import worker
from crank.domain.worker import GpuDevice

_GPUS = (
    GpuDevice(0, "GPU-a", "Model A", 80 << 30, ("/dev/nvidia0", "/dev/nvidiactl")),
    GpuDevice(1, "GPU-b", "Model A", 80 << 30, ("/dev/nvidia1",)),
)


def _probe(monkeypatch: pytest.MonkeyPatch, found: Sequence[GpuDevice] | Exception) -> None:
    class Probe:
        def devices(self) -> Sequence[GpuDevice]:
            if isinstance(found, Exception):
                raise found
            return found

    monkeypatch.setattr(worker, "NvmlProbe", Probe)


@pytest.mark.parametrize("found", [(), _GPUS], ids=["none", "two"])
def test_gpus_are_found_by_a_child(monkeypatch: pytest.MonkeyPatch, found: tuple[GpuDevice, ...]) -> None:
    """What the child sees arrives whole, and with no GPU the answer is an empty one."""
    _probe(monkeypatch, found)
    with capture_logs() as said:
        assert worker.find_devices() == found
    assert said == []


def test_a_broken_driver_takes_only_the_child(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """When the driver's library fails the worker goes on without GPUs, and says so."""
    _probe(monkeypatch, RuntimeError("the driver is broken"))
    with capture_logs() as said:
        assert worker.find_devices() == ()
    assert [each["event"] for each in said] == ["gpu_probe_failed"]
    assert "the driver is broken" in capfd.readouterr().err

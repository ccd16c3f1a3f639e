"""The promises of `ports.GpuProbe` as tests; they hold on a machine with GPUs and on one without."""

from crank.ports import GpuProbe


class GpuProbeContract:
    """What every GpuProbe promises."""

    def make(self) -> GpuProbe:
        """Return a probe."""
        raise NotImplementedError

    def test_devices_are_told_apart_and_can_be_opened(self) -> None:
        """Every device has a name, memory, an identity of its own and at least one file to open."""
        devices = self.make().devices()
        assert len({device.uuid for device in devices}) == len(devices)
        for device in devices:
            assert device.model
            assert device.memory_bytes > 0
            assert device.nodes
            assert all(node.startswith("/dev/") for node in device.nodes)

    def test_asking_twice_gives_the_same(self) -> None:
        """Looking changes nothing."""
        probe = self.make()
        assert list(probe.devices()) == list(probe.devices())

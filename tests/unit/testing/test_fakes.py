"""The fakes do what tests rely on."""

import threading

import pytest

from crank.errors import Unavailable
from crank.testing.fakes import FakeClock, FakeFailpoints, FakeIdSource


def test_time_passes_only_when_told() -> None:
    """Advancing moves both clocks; a jump moves only the one that people read."""
    clock = FakeClock(now_us=0, monotonic_sec=0.0)
    clock.advance(1.5)
    clock.jump_wall(-3_600)
    assert clock.now_us() == 1_500_000 - 3_600_000_000
    assert clock.monotonic_sec() == 1.5
    with pytest.raises(ValueError, match="never goes back"):
        clock.advance(-1)


def test_ids_repeat_from_run_to_run() -> None:
    """Two sources make the same ids, and jitter takes turns."""
    first, second = FakeIdSource(jitters=(0.1, 0.9)), FakeIdSource()
    assert [first.uuid7(), first.secret()] == [second.uuid7(), second.secret()]
    assert [first.jitter() for _ in range(3)] == [0.1, 0.9, 0.1]


async def test_moments_can_be_awaited_held_and_made_to_fail() -> None:
    """A thread waits at a held moment until it is let go; a fault is raised once."""
    points = FakeFailpoints()
    points.hold("here")
    thread = threading.Thread(target=points.reach, args=("here",))
    thread.start()
    await points.reached("here")
    assert thread.is_alive()
    points.release("here")
    thread.join(10)
    assert not thread.is_alive()
    points.raise_at("here", Unavailable("on purpose"))
    with pytest.raises(Unavailable):
        points.reach("here")
    points.reach("here")
    assert points.count("here") == 3
    with pytest.raises(TimeoutError):
        points.wait_for("never", timeout_sec=0.01)

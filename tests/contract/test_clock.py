"""Real and fake clocks and sources of ids keep the same promises."""

from crank.adapters.clock import SystemClock, SystemIdSource
from crank.ports import Clock, IdSource
from crank.testing.contracts_clock import ClockContract, IdSourceContract
from crank.testing.fakes import FakeClock, FakeIdSource


class TestSystemClock(ClockContract):
    """The machine's clocks."""

    def make(self) -> Clock:
        return SystemClock()


class TestFakeClock(ClockContract):
    """The one that tests move."""

    def make(self) -> Clock:
        return FakeClock()


class TestSystemIdSource(IdSourceContract):
    """The machine's chance."""

    def make(self) -> IdSource:
        return SystemIdSource()


class TestFakeIdSource(IdSourceContract):
    """The same ids in every run."""

    def make(self) -> IdSource:
        return FakeIdSource()

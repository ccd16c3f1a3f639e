"""A worker's own identity that a test renews at will."""

from crank.errors import CrankError
from crank.wire import Trust


class FakeIdentity:
    """The OwnIdentity port: `due_sec` until each renewal; `faults` are raised first, one a try."""

    def __init__(self, *, due_sec: float = 1800.0, faults: list[CrankError] | None = None) -> None:
        self.due_sec = due_sec
        self.faults = faults if faults is not None else []
        self.renewals = 0
        self.tries = 0
        self.doubts = 0
        self.trusted: list[Trust] = []

    def due_in_sec(self) -> float:
        """Return in how many seconds a renewal is due."""
        return self.due_sec

    async def renew(self) -> float:
        """Count a renewal, or raise the next of the faults."""
        self.tries += 1
        if self.faults:
            raise self.faults.pop(0)
        self.renewals += 1
        return self.due_sec

    def doubt(self) -> None:
        """Count that the certificate was not believed."""
        self.doubts += 1

    def believe(self, trust: Trust) -> None:
        """Keep what was said."""
        self.trusted.append(trust)

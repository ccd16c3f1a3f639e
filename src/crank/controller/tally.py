"""What happened since this controller started, counted for /metrics. Nothing else rests on these numbers.

Words that a worker says become labels only where Crank knows them, so that no worker can make the
number of time series grow.
"""

import bisect
import threading
from collections import Counter
from collections.abc import Sequence

from crank.domain.isolation import Tier
from crank.domain.outcome import LAYERS, Outcome, Reason
from crank.domain.quantity import GIB, MIB

OTHER = "other"
# `process` stands in records from before functions of worker authors were walled in; `none`: no code ran.
_TIERS = frozenset({*map(str, Tier), "process", "none"})
MEMORY_BYTES_BOUNDS = tuple(float(size) for size in (16 * MIB, 32 * MIB, 64 * MIB, 128 * MIB, 256 * MIB, 512 * MIB,
                                                     GIB, 2 * GIB, 4 * GIB, 8 * GIB, 32 * GIB))  # fmt: skip
SETUP_SEC_BOUNDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Histogram:
    """How many values lay at or below each bound, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self._counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """Return how many values there were."""
        return sum(self._counts)

    def cumulative(self) -> list[tuple[float, int]]:
        """Return each bound with how many values lay at or below it."""
        seen, pairs = 0, []
        for bound, count in zip(self.bounds, self._counts, strict=False):
            seen += count
            pairs.append((bound, seen))
        return pairs


class Tally:
    """Counters since the start. `ended` may be called in the store's thread, all else in the event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: Counter[tuple[str, str]] = Counter()
        self.denials: Counter[tuple[str, str]] = Counter()
        self.memory_bytes = Histogram(MEMORY_BYTES_BOUNDS)
        # Certificates by the kind of their holder, and what became of requests to renew one.
        self.issued: Counter[str] = Counter()
        self.renewals: Counter[str] = Counter()
        self.links_renewed = 0
        self.setup_sec = {"hit": Histogram(SETUP_SEC_BOUNDS), "miss": Histogram(SETUP_SEC_BOUNDS)}

    def ended(self, reason: Reason, tier: str = "none") -> None:
        """Count the end of a job."""
        with self._lock:
            self._ends[str(reason), tier if tier in _TIERS else OTHER] += 1

    @property
    def ends(self) -> dict[tuple[str, str], int]:
        """Return how many jobs ended so far, by reason and tier."""
        with self._lock:
            return dict(self._ends)

    def completed(self, outcome: Outcome) -> None:
        """Count an outcome that settled its job: its end, what it used, what was refused."""
        self.ended(outcome.end.reason, outcome.tier)
        for denial in outcome.denials:
            self.denials[denial.layer if denial.layer in LAYERS else OTHER, denial.told_by] += denial.count
        if outcome.usage.peak_memory_bytes is not None:
            self.memory_bytes.observe(outcome.usage.peak_memory_bytes)
        if outcome.tier in set(Tier):
            self.setup_sec["hit" if outcome.usage.pool_hit else "miss"].observe(outcome.usage.setup_sec)

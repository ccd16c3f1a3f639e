"""How often each one may ask for something that costs: some at once, then one in so many seconds."""

from collections import OrderedDict

from crank.errors import Unavailable

NAMES_MAX = 10_000


class Pace:
    """A bucket for each name. The names are of proven peers, so a stranger fills none."""

    def __init__(self, *, burst: int, every_sec: float) -> None:
        self._burst = burst
        self._every_sec = every_sec
        # When each bucket would be full again.
        self._full_at_sec: OrderedDict[str, float] = OrderedDict()

    def take(self, name: str, now_sec: float) -> float | None:
        """Take one; return None, or after how many seconds there is one again."""
        full_at_sec = max(now_sec, self._full_at_sec.get(name, now_sec)) + self._every_sec
        wait_sec = full_at_sec - now_sec - self._burst * self._every_sec
        if wait_sec > 1e-9:
            return wait_sec
        self._full_at_sec[name] = full_at_sec
        self._full_at_sec.move_to_end(name)
        while len(self._full_at_sec) > NAMES_MAX:
            self._full_at_sec.popitem(last=False)
        return None


def too_often(wait_sec: float) -> Unavailable:
    """Return the refusal of a renewal that comes too soon."""
    return Unavailable(
        "This identity was renewed often just now.",
        code="renewed_too_often",
        fix="Wait for as long as Retry-After says; a certificate is to be renewed at half of its life.",
        retry_after_sec=max(1, round(wait_sec + 0.5)),
    )

"""Who knocks at the door for joining: how often each may, and what was refused and not yet recorded."""

import ipaddress
from collections import OrderedDict, deque

from crank.errors import Unavailable

# A person pastes a command, and pastes it again; a machine that guesses gets nowhere at this pace.
TRIES_PER_SOURCE = 10
# A bound on work alone: whoever has a few addresses must not be able to shut the door for others.
TRIES_OF_ALL = 600
WINDOW_SEC = 60.0
_SOURCES_MAX = 1024
_RECORD_EVERY_SEC = 60.0


class Arrivals:
    """Lives as long as the controller; only the event loop touches it."""

    def __init__(self) -> None:
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()
        self._all: deque[float] = deque()
        self._recorded_sec: float | None = None
        self._silent = 0

    def admit(self, source: str, now_sec: float) -> None:
        """Count a try from an address. Raises Unavailable (`join_too_often`)."""
        own = self._tries.setdefault(_network(source), deque())
        self._tries.move_to_end(_network(source))
        if len(self._tries) > _SOURCES_MAX:
            self._tries.popitem(last=False)
        for tries in (own, self._all):
            while tries and tries[0] <= now_sec - WINDOW_SEC:
                tries.popleft()
        if len(own) >= TRIES_PER_SOURCE or len(self._all) >= TRIES_OF_ALL:
            raise Unavailable(
                "Too many tries to join.",
                code="join_too_often",
                fix="Wait a minute, then paste the command again.",
                retry_after_sec=int(WINDOW_SEC),
            )
        own.append(now_sec)
        self._all.append(now_sec)

    def refusals_to_record(self, now_sec: float) -> int:
        """Count a refusal; return how many to record now, itself included, or 0 to record none yet."""
        self._silent += 1
        if self._recorded_sec is not None and now_sec - self._recorded_sec < _RECORD_EVERY_SEC:
            return 0
        self._recorded_sec = now_sec
        count, self._silent = self._silent, 0
        return count


def _network(source: str) -> str:
    """Return what counts as one source: an IPv4 address, or a /64 of IPv6, in which a machine picks as it likes."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)

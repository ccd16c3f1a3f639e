"""Which manifests were shown of late, so that none counts twice."""

from crank.domain.rules.enrolment import SKEW_SEC

# Older than this, one is refused by its own time.
_KEPT_SEC = 2.0 * SKEW_SEC
_REMEMBERED_MAX = 10_000


class Manifests:
    """Lives as long as the controller; only the event loop touches it."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}

    def take(self, manifest_id: str, now_sec: float) -> bool:
        """Remember a manifest; tell whether it is shown for the first time."""
        while self._seen and next(iter(self._seen.values())) <= now_sec - _KEPT_SEC:
            del self._seen[next(iter(self._seen))]
        if manifest_id in self._seen:
            return False
        if len(self._seen) >= _REMEMBERED_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[manifest_id] = now_sec
        return True

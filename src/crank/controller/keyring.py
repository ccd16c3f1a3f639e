"""The memory beside the stored keys: when they last changed, and which refusals were recorded a moment ago."""


# One credential that asks the same thing over and over leaves one record in so long, with a count.
REFUSAL_RECORD_SEC = 60.0
_REMEMBERED_MAX = 1024


class Keyring:
    """Lives as long as the controller; only the event loop touches it."""

    def __init__(self) -> None:
        self.generation = 0
        self._refused: dict[tuple[str, str], tuple[float, int]] = {}

    def changed(self) -> None:
        """Say that a key was minted, changed or revoked: what was remembered of keys is void."""
        self.generation += 1

    def refusals_to_record(self, asker: str, action: str, now_sec: float) -> int:
        """Count a refusal; return how many to record now, itself included, or 0 to record none yet.

        asker  the id of a credential or a job, or the SPIFFE ID of a peer
        """
        key = (asker, action)
        recorded_sec, silent = self._refused.get(key, (None, 0))
        if recorded_sec is not None and now_sec - recorded_sec < REFUSAL_RECORD_SEC:
            self._refused[key] = (recorded_sec, silent + 1)
            return 0
        if len(self._refused) >= _REMEMBERED_MAX:
            self._refused.pop(next(iter(self._refused)))
        self._refused[key] = (now_sec, 0)
        return silent + 1

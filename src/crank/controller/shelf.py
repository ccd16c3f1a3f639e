"""The outcomes that were read last: whoever takes a thousand artifacts of one job asks for its outcome as often."""

from collections import OrderedDict

from crank.domain.ids import Digest
from crank.domain.outcome import Outcome

OUTCOMES_MAX = 4
# Of one outcome as it is stored.
OUTCOME_BYTES_MAX = 2 * 1024 * 1024


class Shelf:
    """Outcomes by the digest of their bytes, so that none can be out of date; the one used longest ago goes first.

    It says nothing about who may see one: that is settled where the job is found that names the digest.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Digest, Outcome] = OrderedDict()

    def find(self, digest: Digest) -> Outcome | None:
        """Return the outcome, or None when it is not here."""
        found = self._kept.get(digest)
        if found is not None:
            self._kept.move_to_end(digest)
        return found

    def keep(self, digest: Digest, outcome: Outcome, size_bytes: int) -> None:
        """Keep an outcome, unless it is larger than one may be here."""
        if size_bytes <= OUTCOME_BYTES_MAX:
            self._kept[digest] = outcome
            if len(self._kept) > OUTCOMES_MAX:
                self._kept.popitem(last=False)

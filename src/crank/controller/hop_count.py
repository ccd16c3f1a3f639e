"""How many hops of one token were kept: making one costs its holder nothing, keeping it costs the node a row."""

from collections import OrderedDict

from crank.domain.grant import GrantId
from crank.errors import NotAllowed

# Far more helpers than an agent has within the minutes that a token lasts.
HOPS_MAX = 1_000
_TOKENS_MAX = 4_096


class HopCount:
    """Lives as long as the controller; only the event loop touches it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[GrantId, int] = OrderedDict()

    def take(self, root: GrantId, count: int) -> None:
        """Let so many new hops of a token be kept. Raises NotAllowed (`too_many_hops`)."""
        kept = self._kept.pop(root, 0) + count
        if kept > HOPS_MAX:
            self._kept[root] = HOPS_MAX
            raise NotAllowed(
                f"More than {HOPS_MAX} tokens were made of this one.",
                code="too_many_hops",
                fix="Use those that there are, or exchange your key anew.",
            )
        self._kept[root] = kept
        if len(self._kept) > _TOKENS_MAX:
            self._kept.popitem(last=False)

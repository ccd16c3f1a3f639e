"""Who looks at our own bundle again and again, and which of it each one says it has."""

from collections import OrderedDict
from collections.abc import Sequence

# Machines that have joined, so nobody fills this but the owner.
MACHINES_MAX = 10_000


class Followers:
    """By name, those alone that proved who they are. Whoever has not looked for long is waited for no more.

    names_max  how many are remembered; those that looked last
    """

    def __init__(self, names_max: int) -> None:
        self._names_max = names_max
        self._seen: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def acknowledged(self, name: str, sequence: int, now_us: int) -> None:
        """Note that this one has the bundle of this sequence."""
        self._seen[name] = (sequence, now_us)
        self._seen.move_to_end(name)
        while len(self._seen) > self._names_max:
            self._seen.popitem(last=False)

    def behind(self, sequence: int, since_us: int) -> Sequence[str]:
        """Return those that looked since then and do not have this sequence yet."""
        return [name for name, (has, at_us) in self._seen.items() if has < sequence and at_us >= since_us]

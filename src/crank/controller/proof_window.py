"""Proofs of possession that were seen: each counts once. What is remembered is bounded, and nothing is forgotten early."""

from collections import deque

from crank.domain.rules.token import Proven
from crank.errors import NotAuthenticated, Unavailable

SEEN_MAX = 262_144
# One holder cannot shut out the others.
SEEN_OF_ONE_MAX = SEEN_MAX // 4
# Proofs tell their time in whole seconds.
_SECOND_US = 1_000_000


class ProofWindow:
    """Lives as long as the controller; only the event loop touches it."""

    def __init__(self, began_us: int = 0) -> None:
        """Take the time from which on it knows what was used."""
        self._began_us = began_us
        self._seen: set[bytes] = set()
        self._until: deque[tuple[int, bytes, str]] = deque()
        self._of: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def take(self, proven: Proven, now_us: int) -> None:
        """Let a proof count, this once. Raises NotAuthenticated (`invalid_dpop_proof`), Unavailable (`too_many_proofs`)."""
        self._forget(now_us)
        if proven.made_us + _SECOND_US <= self._began_us:
            raise NotAuthenticated(
                "This proof of possession was made before the node started, which does not know any more what was used then.",
                code="invalid_dpop_proof",
                fix="Make another proof for this request; if that is refused, too, set your clock.",
            )
        if proven.replay_key in self._seen:
            raise NotAuthenticated(
                "This proof of possession was used before.",
                code="invalid_dpop_proof",
                fix="Make a proof of its own for each request: another jti.",
            )
        if len(self._seen) >= SEEN_MAX or self._of.get(proven.jkt, 0) >= SEEN_OF_ONE_MAX:
            # Forgetting one that could still be used again would let it be.
            raise Unavailable("Too many proofs came within two minutes.", code="too_many_proofs", retry_after_sec=30)
        self._seen.add(proven.replay_key)
        self._until.append((proven.until_us, proven.replay_key, proven.jkt))
        self._of[proven.jkt] = self._of.get(proven.jkt, 0) + 1

    def _forget(self, now_us: int) -> None:
        # In the order of arrival, which is that of their ends but for what clocks differ: the first one holds up the rest.
        while self._until and self._until[0][0] < now_us:
            _, key, jkt = self._until.popleft()
            self._seen.discard(key)
            self._of[jkt] -= 1
            if not self._of[jkt]:
                del self._of[jkt]

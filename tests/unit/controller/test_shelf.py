"""The outcomes that were read last: found by the digest of their bytes, few, and none that is large."""

import hashlib

from crank.controller.shelf import OUTCOME_BYTES_MAX, OUTCOMES_MAX, Shelf
from crank.domain.ids import Digest
from crank.domain.outcome import End, Outcome, Reason


def _outcome(number: int) -> tuple[Digest, Outcome]:
    digest = Digest(hashlib.sha256(b"%d" % number).hexdigest())
    return digest, Outcome(End(Reason.EXITED, exit_code=0), result=number, has_result=True)


def test_the_last_used_stay() -> None:
    """There are never more than a few, and the one used longest ago goes first."""
    shelf = Shelf()
    made = [_outcome(number) for number in range(OUTCOMES_MAX + 1)]
    for digest, outcome in made[:-1]:
        shelf.keep(digest, outcome, 100)
    assert shelf.find(made[0][0]) is made[0][1]
    shelf.keep(*made[-1], 100)
    assert [shelf.find(digest) is outcome for digest, outcome in made] == [True, False, *[True] * (OUTCOMES_MAX - 1)]


def test_what_is_large_is_not_kept() -> None:
    """A large outcome is read again each time."""
    shelf = Shelf()
    digest, outcome = _outcome(1)
    shelf.keep(digest, outcome, OUTCOME_BYTES_MAX + 1)
    assert shelf.find(digest) is None

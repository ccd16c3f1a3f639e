"""How keys that sign tokens follow each other: published before they sign, kept while what they signed may live."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_US = 1_000_000


@dataclass(frozen=True, slots=True)
class KeyTimes:
    """A key and from when on it signs."""

    kid: str
    signs_us: int


@dataclass(frozen=True, slots=True)
class Lives:
    """How long a key signs; how long before that verifiers see it; how long after that they still do, in seconds."""

    signs_sec: float
    ahead_sec: float
    after_sec: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now.

    signer    the key that signs; None while there is none
    make_us   make a key that signs from then on; None: none is due
    drop      keys that nothing alive was signed by
    """

    signer: str | None
    make_us: int | None
    drop: tuple[str, ...]


def plan(keys: Sequence[KeyTimes], lives: Lives, now_us: int) -> Plan:
    """Decide what becomes of a set of keys. After a long pause the old key signs until its successor was seen."""
    ordered = sorted(keys, key=lambda each: each.signs_us)
    ready = [each for each in ordered if each.signs_us <= now_us]
    if not ready:
        # No key, or a clock that went back: the eldest may sign now, for nobody could otherwise.
        return Plan(ordered[0].kid, None, ()) if ordered else Plan(None, now_us, ())
    make_us = None
    if ordered[-1] is ready[-1]:
        wanted_us = ready[-1].signs_us + int(lives.signs_sec * _US)
        ahead_us = int(lives.ahead_sec * _US)
        if now_us >= wanted_us - ahead_us:
            make_us = max(wanted_us, now_us + ahead_us)
    keep_us = int(lives.after_sec * _US)
    ended = tuple(each.kid for each, after in pairwise(ready) if after.signs_us + keep_us <= now_us)
    return Plan(ready[-1].kid, make_us, ended)

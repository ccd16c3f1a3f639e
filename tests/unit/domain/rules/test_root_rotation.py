"""The change of roots: what may follow what."""

import pytest

from crank.domain.rules.root_rotation import HINTS_BEFORE_SIGNING, SKEW_SEC, may_be_followed, refusal, turn
from crank.domain.trust import Rotation, RotationPhase, RotationStep

NOW_US = 1_700_000_000_000_000
US = 1_000_000
SETTLED = Rotation(RotationPhase.SETTLED, "a")
PREPARED = Rotation(RotationPhase.PREPARED, "a", "b", prepared_us=NOW_US)
ACTIVATED = Rotation(RotationPhase.ACTIVATED, "b", "a", NOW_US + 60 * US, NOW_US)
BACK = Rotation(RotationPhase.PREPARED, "a", "b", NOW_US + 60 * US, NOW_US)
HINT_SEC = 300


def refused(rotation, step, *, now_us=NOW_US, unaware=(), force=False, hint_sec=None):
    """Return the code of the refusal, or None."""
    found = refusal(rotation, step, now_us=now_us, unaware=unaware, force=force, hint_sec=hint_sec)
    return found.code if found else None


@pytest.mark.parametrize(
    ("rotation", "allowed"),
    [(SETTLED, {"prepare"}), (PREPARED, {"activate", "abort"}), (ACTIVATED, {"retire", "abort"}), (BACK, {"activate", "abort"})],
)  # fmt: skip
@pytest.mark.parametrize("step", RotationStep)
@pytest.mark.parametrize("force", [False, True])
def test_each_phase_allows_its_steps(rotation, allowed, step, force):
    """Nothing is skipped, and force changes nothing about that."""
    later_us = NOW_US + 3600 * US
    code = refused(rotation, step, now_us=later_us, force=force)
    assert code == (None if str(step) in allowed else "rotation_phase")


def test_nobody_connected_is_left_behind():
    """The new root signs once every connected worker believes it, or when the operator insists."""
    assert refused(PREPARED, RotationStep.ACTIVATE, unaware=["w2", "w1"]) == "bundle_not_acknowledged"
    found = refusal(PREPARED, RotationStep.ACTIVATE, now_us=NOW_US, unaware=[f"w{n:02}" for n in range(12)], force=False)
    assert found is not None
    assert "12 of those connected" in found.message
    assert "w09, …" in found.message
    assert refused(PREPARED, RotationStep.ACTIVATE, unaware=["w1"], force=True) is None


@pytest.mark.parametrize(("rotation", "step"), [(ACTIVATED, RotationStep.RETIRE), (BACK, RotationStep.ABORT)])
def test_a_root_stays_until_its_last_leaf_has_expired(rotation, step):
    """Whichever root goes: not before nobody shows a certificate below it, unless the operator insists."""
    assert refused(rotation, step) == "leaves_alive"
    assert refused(rotation, step, now_us=rotation.drained_us - 1) == "leaves_alive"
    assert refused(rotation, step, now_us=rotation.drained_us) is None
    assert refused(rotation, step, force=True) is None
    assert refused(PREPARED, RotationStep.ABORT) is None


def test_the_way_forth_and_back():
    """A new root comes, signs, and the old one goes; or the old one signs again, and the new one goes."""

    def then(rotation, step, made=None):
        return turn(rotation, step, made=made, now_us=NOW_US, leaf_sec=3600.0)

    drained_us = NOW_US + int((3600 + SKEW_SEC) * US)
    prepared = then(SETTLED, RotationStep.PREPARE, "b")
    assert prepared == PREPARED
    activated = then(prepared, RotationStep.ACTIVATE)
    assert activated == Rotation(RotationPhase.ACTIVATED, "b", "a", drained_us, NOW_US)
    assert then(activated, RotationStep.RETIRE) == Rotation(RotationPhase.SETTLED, "b")
    back = then(activated, RotationStep.ABORT)
    assert back == Rotation(RotationPhase.PREPARED, "a", "b", drained_us, NOW_US)
    assert then(back, RotationStep.ABORT) == SETTLED
    assert then(back, RotationStep.ACTIVATE).current == "b"


@pytest.mark.parametrize("rotation", [PREPARED, BACK])
def test_a_new_root_is_published_for_three_hints_before_it_signs(rotation):
    """Those who follow the bundle and say nothing get time to look; how much is left is told, and force passes it by."""
    ready_us = NOW_US + HINTS_BEFORE_SIGNING * HINT_SEC * US
    found = refusal(rotation, RotationStep.ACTIVATE, now_us=NOW_US + US, unaware=(), force=False, hint_sec=HINT_SEC)
    assert found is not None
    assert "for 899 s more" in found.message
    assert refused(rotation, RotationStep.ACTIVATE, now_us=ready_us - 1, hint_sec=HINT_SEC) == "root_too_new"
    assert refused(rotation, RotationStep.ACTIVATE, now_us=ready_us, hint_sec=HINT_SEC) is None
    assert refused(rotation, RotationStep.ACTIVATE, force=True, hint_sec=HINT_SEC) is None
    assert refused(rotation, RotationStep.ACTIVATE) is None
    assert refused(PREPARED, RotationStep.ABORT, hint_sec=HINT_SEC) is None


def followed(after_sec, *, asked_sec=None, born_sec=0):
    """Tell of a process that began at NOW_US; times are counted from there."""
    return may_be_followed(
        asked_us=None if asked_sec is None else NOW_US + asked_sec * US,
        since_us=NOW_US, born_us=NOW_US + born_sec * US, hint_sec=HINT_SEC, now_us=NOW_US + after_sec * US,
    )  # fmt: skip


def test_who_may_follow_is_told_by_who_asked():
    """Whoever asked within three hints; after a restart anybody, until one hint went by; of a root just made nobody."""
    assert followed(1000, asked_sec=101)
    assert not followed(1000, asked_sec=100)
    assert followed(299, born_sec=-3600)
    assert not followed(300, born_sec=-3600)
    assert not followed(0)
    assert not followed(0, born_sec=-60)

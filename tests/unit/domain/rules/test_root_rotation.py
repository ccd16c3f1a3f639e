"""The change of roots: what may follow what."""

import pytest

from crank.domain.rules.root_rotation import SKEW_SEC, refusal, turn
from crank.domain.trust import Rotation, RotationPhase, RotationStep

NOW_US = 1_700_000_000_000_000
US = 1_000_000
SETTLED = Rotation(RotationPhase.SETTLED, "a")
PREPARED = Rotation(RotationPhase.PREPARED, "a", "b")
ACTIVATED = Rotation(RotationPhase.ACTIVATED, "b", "a", NOW_US + 60 * US)
BACK = Rotation(RotationPhase.PREPARED, "a", "b", NOW_US + 60 * US)


def refused(rotation, step, *, now_us=NOW_US, unaware=(), force=False):
    """Return the code of the refusal, or None."""
    found = refusal(rotation, step, now_us=now_us, unaware=unaware, force=force)
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
    assert activated == Rotation(RotationPhase.ACTIVATED, "b", "a", drained_us)
    assert then(activated, RotationStep.RETIRE) == Rotation(RotationPhase.SETTLED, "b")
    back = then(activated, RotationStep.ABORT)
    assert back == Rotation(RotationPhase.PREPARED, "a", "b", drained_us)
    assert then(back, RotationStep.ABORT) == SETTLED
    assert then(back, RotationStep.ACTIVATE).current == "b"

"""The change from one root to another: what may follow what, and what must have happened before."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from crank.domain.job import Refusal
from crank.domain.trust import Rotation, RotationPhase, RotationStep

# Clocks of peers may be behind by so much: a leaf that has expired here may still be shown there.
SKEW_SEC: Final = 60.0
# A new root is published for so many looks of those who follow the bundle before it signs (SPIFFE Federation,
# section 4.1, asks for three to five).
HINTS_BEFORE_SIGNING: Final = 3
# So often a joined machine looks for other roots by itself, whether or not its worker says that there are any.
MACHINE_LOOK_SEC: Final = 60.0
_NAMES_MAX = 10
_US = 1_000_000
_FROM = {
    RotationStep.PREPARE: (RotationPhase.SETTLED,),
    RotationStep.ACTIVATE: (RotationPhase.PREPARED,),
    RotationStep.RETIRE: (RotationPhase.ACTIVATED,),
    RotationStep.ABORT: (RotationPhase.PREPARED, RotationPhase.ACTIVATED),
}
_STANDS = {
    RotationPhase.SETTLED: "there is one root, and no new one is prepared",
    RotationPhase.PREPARED: "a new root is published and does not sign yet",
    RotationPhase.ACTIVATED: "the new root signs, and the old one is still published",
}


def refusal(
    rotation: Rotation,
    step: RotationStep,
    *,
    now_us: int,
    unaware: Sequence[str],
    force: bool,
    hint_sec: int | None = None,
) -> Refusal | None:
    """Return why this step may not be taken now, or None.

    unaware   connected workers and machines that have not acknowledged the bundle as it stands
    force     the operator knows that peers will be cut off; never changes what may follow what
    hint_sec  how often those look who follow the bundle and acknowledge nothing; None: nobody does
    """
    if rotation.phase not in _FROM[step]:
        allowed = ", ".join(other for other in RotationStep if rotation.phase in _FROM[other])
        return Refusal(
            "rotation_phase",
            f"The step {step} cannot be taken: {_STANDS[rotation.phase]}.",
            f"What can be done now: {allowed}.",
            "step",
        )
    if force:
        return None
    if step is RotationStep.ACTIVATE and unaware:
        return _not_acknowledged(unaware)
    if step is RotationStep.ACTIVATE and hint_sec is not None:
        left_sec = readers_left_sec(rotation, hint_sec=hint_sec, now_us=now_us)
        return _too_new(left_sec) if left_sec > 0 else None
    ends_other = step is RotationStep.RETIRE or (
        step is RotationStep.ABORT and rotation.phase is RotationPhase.PREPARED
    )
    if ends_other and rotation.drained_us is not None and now_us < rotation.drained_us:
        return _leaves_alive((rotation.drained_us - now_us) / _US)
    return None


def readers_left_sec(rotation: Rotation, *, hint_sec: int, now_us: int) -> float:
    """Return for how long readers of the bundle need not have seen the new root yet; 0 where there is none."""
    if rotation.prepared_us is None:
        return 0.0
    return max(0.0, (rotation.prepared_us - now_us) / _US + HINTS_BEFORE_SIGNING * hint_sec)


def turn(rotation: Rotation, step: RotationStep, *, made: str | None, now_us: int, leaf_sec: float) -> Rotation:
    """Return how it stands after a step that was not refused.

    made      mark of the root that PREPARE made
    leaf_sec  the longest life of a leaf that was signed until now
    """
    drained_us = now_us + int((leaf_sec + SKEW_SEC) * _US)
    if step is RotationStep.PREPARE:
        return Rotation(RotationPhase.PREPARED, rotation.current, made, prepared_us=now_us)
    assert rotation.other is not None, "refused before"
    if step is RotationStep.ACTIVATE:
        return Rotation(RotationPhase.ACTIVATED, rotation.other, rotation.current, drained_us, rotation.prepared_us)
    if step is RotationStep.ABORT and rotation.phase is RotationPhase.ACTIVATED:
        # The new root has signed: it stays published until that has expired.
        return Rotation(RotationPhase.PREPARED, rotation.other, rotation.current, drained_us, rotation.prepared_us)
    return replace(rotation, phase=RotationPhase.SETTLED, other=None, drained_us=None, prepared_us=None)


def may_be_followed(*, asked_us: int | None, since_us: int, born_us: int, hint_sec: int, now_us: int) -> bool:
    """Tell whether somebody may follow the bundle who acknowledges nothing, with a credential or without.

    asked_us  when such a one asked last; None: nobody did
    since_us  since when that is known; born_us  since when there is a root to ask for
    """
    if asked_us is not None:
        return now_us - asked_us < HINTS_BEFORE_SIGNING * hint_sec * _US
    # Whoever asked a process before this one asks again within one hint.
    is_older = born_us < since_us - SKEW_SEC * _US
    return is_older and now_us - since_us < hint_sec * _US


def _not_acknowledged(unaware: Sequence[str]) -> Refusal:
    named = ", ".join(sorted(unaware)[:_NAMES_MAX]) + (", …" if len(unaware) > _NAMES_MAX else "")
    return Refusal(
        "bundle_not_acknowledged",
        f"{len(unaware)} of those connected have not said yet that they believe the new root: {named}.",
        "Wait a moment and try again, or stop those workers; with --force they lose this node until they start anew.",
        "step",
    )


def _too_new(left_sec: float) -> Refusal:
    return Refusal(
        "root_too_new",
        "Others may follow this node's bundle without saying what they have (federated domains do), and for "
        f"{left_sec:.0f} s more they need not have seen the new root.",
        "Try again then; with --force they refuse this trust domain until they look again.",
        "step",
    )


def _leaves_alive(left_sec: float) -> Refusal:
    return Refusal(
        "leaves_alive",
        f"Certificates below the root that would go may be valid for {left_sec:.0f} s more.",
        "Try again then; with --force whoever still shows one is refused from now on.",
        "step",
    )

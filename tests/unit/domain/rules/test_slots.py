"""Slots: a job that waits lends its place, and only to jobs that others wait for."""

import pytest

from crank.domain.rules.slots import free


@pytest.mark.parametrize(
    ("slots", "held", "waiting", "called", "ordinary", "called_for"),
    [
        (1, 0, 0, 0, 1, 1),
        (1, 1, 0, 0, 0, 0),
        (1, 1, 1, 0, 0, 1),
        (1, 2, 1, 1, 0, 0),
        (1, 2, 2, 1, 0, 1),
        (1, 3, 2, 2, 0, 0),
        (2, 2, 1, 1, 1, 1),
        (2, 3, 1, 1, 0, 0),
        (2, 2, 2, 0, 0, 2),
        (2, 2, 0, 2, 0, 0),
        (2, 4, 0, 2, 0, 0),
    ],
)
def test_places(slots: int, held: int, waiting: int, called: int, ordinary: int, called_for: int) -> None:
    """As many ordinary jobs as there are places, and one more called job for each that waits."""
    assert free(slots, held, waiting, called) == ordinary
    assert free(slots, held, waiting, called, called_for=True) == called_for

"""How long a call waits: never long enough for a host to cut it."""

import pytest

from crank.domain.job import ENDED, Status
from crank.domain.rules.patience import WAIT_SEC_DEFAULT, next_step, wait_sec


@pytest.mark.parametrize(("asked", "waits"), [(None, WAIT_SEC_DEFAULT), (0, 0), (3.5, 3.5), (40, 39.5), (900, 39.5), (-1, 0)])
def test_a_wait_ends_before_the_host_does(asked, waits):
    """The longest wait leaves time for the answer within 40 s."""
    assert wait_sec(asked) == waits


@pytest.mark.parametrize("status", list(Status))
def test_only_what_goes_on_has_a_next_step(status):
    """A job that has not ended says how it is followed; one that has says nothing."""
    step = next_step(status, "j1")
    assert (step is None) == (status in ENDED)
    assert step is None or "j1" in step

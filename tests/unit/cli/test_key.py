"""How long a key lasts, as a person says it."""

import pytest

from crank.cli.key import duration_sec
from crank.errors import InvalidRequest


@pytest.mark.parametrize(("text", "sec"), [("90m", 5400), ("12h", 43_200), ("30d", 2_592_000), ("4w", 2_419_200)])
def test_times_are_read(text, sec):
    """Minutes, hours, days and weeks."""
    assert duration_sec(text) == sec


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5h", "1y", "9999999d", "1d ", "١d"])
def test_what_is_no_time_is_refused(text):
    """No guess is made of anything else."""
    with pytest.raises(InvalidRequest):
        duration_sec(text)

"""How long a key lasts and what it may be used for, as a person says it."""

import pytest

from crank.cli.key import duration_sec, rights_of
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


def test_rights_are_read():
    """A name, a version behind an @, and schemas that hold for all of them; nothing said is everything."""
    schema = '{"required": ["to"]}'
    assert rights_of((), ()) is None
    assert rights_of(("document.*", "document.convert@1.2.0"), ()) == [
        {"identifier": "document.*"},
        {"identifier": "document.convert", "version": "1.2.0"},
    ]
    assert rights_of(("*",), (schema,)) == [{"identifier": "*", "constraints": [{"required": ["to"]}]}]


@pytest.mark.parametrize(("capabilities", "constraints"), [((), ("{}",)), (("*",), ("[]",)), (("*",), ("{",))])
def test_what_bounds_nothing_is_refused(capabilities, constraints):
    """A schema for no capability, and what is no schema."""
    with pytest.raises(InvalidRequest):
        rights_of(capabilities, constraints)

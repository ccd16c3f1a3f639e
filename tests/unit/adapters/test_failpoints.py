"""Failpoints: read strictly, act once, cost nothing when there are none."""

import signal
import subprocess
import sys

import pytest

from crank.adapters.failpoints import EnvFailpoints, NoFailpoints
from crank.errors import ConfigurationError

_PROGRAM = """
import sys
from crank.adapters.failpoints import EnvFailpoints
points = EnvFailpoints(sys.argv[1])
for name in sys.argv[2:]:
    points.reach(name)
    print(name, flush=True)
"""


def _reach(spec: str, *names: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, spec, *names], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout


def test_a_process_is_killed_at_its_moment() -> None:
    """Moments before it pass; at it the process is gone as if the power had failed."""
    assert _reach("b:kill", "a", "b", "c") == (-signal.SIGKILL, "a\n")


def test_the_third_time_is_the_third_time() -> None:
    """@3 lets the moment pass twice."""
    assert _reach("a:exit@3", "a", "a", "a", "a") == (70, "a\na\n")


def test_every_mistake_is_listed() -> None:
    """A text that cannot be read is refused whole, with each part that is wrong."""
    with pytest.raises(ConfigurationError) as caught:
        EnvFailpoints("a:explode,b,c:kill@0,d:kill")
    assert len(caught.value.problems) == 3


def test_without_failpoints_nothing_happens() -> None:
    """An empty text and the production class do nothing."""
    EnvFailpoints("").reach("a")
    NoFailpoints().reach("a")

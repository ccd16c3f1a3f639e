"""What a run used, where no control group counts it: of the job's own process to the nanosecond, of the tree as it was seen."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from crank.domain.outcome import End, Reason
from crank.domain.profile import Limits
from crank.sandbox.assembly import Standing
from crank.sandbox.counters import Counters
from crank.sandbox.watch import TreeReading

_WORK = "import sys\nfor line in sys.stdin:\n    sum(range(200_000))\n    print('done', flush=True)\n"


@dataclass
class _Tree:
    """A tree that is seen as the test says."""

    seen: TreeReading = field(default_factory=lambda: TreeReading(0.0, 0, 1))

    def read(self, **_: Any) -> TreeReading:
        return self.seen

    def passed(self, _: Limits) -> End | None:
        return None


@dataclass
class _Cell:
    """What `Counters` takes of a cell that stands."""

    guest: int
    tree: _Tree = field(default_factory=_Tree)
    group: None = None


@pytest.fixture
def guest() -> Iterator[tuple["subprocess.Popen[str]", _Cell, Counters]]:
    """Give a process that works when told, as the guest of a cell without a group."""
    with subprocess.Popen([sys.executable, "-c", _WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        cell = _Cell(os.pidfd_open(process.pid))
        try:
            yield process, cell, Counters(cast(Standing, cast(Any, cell)))
        finally:
            process.kill()
            os.close(cell.guest)


def _work(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("on\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def test_a_short_run_used_some_time(guest: tuple["subprocess.Popen[str]", _Cell, Counters]) -> None:
    """What takes less than a hundredth of a second is not nothing, and is counted from the run's beginning on."""
    process, _, counters = guest
    _work(process)
    counters.begin(Limits())
    assert counters.usage()["cpu_sec"] < 0.001
    _work(process)
    assert 0.0005 < counters.usage()["cpu_sec"] < time.process_time() + 10


def test_what_was_seen_of_the_tree_counts_where_it_is_more(guest: tuple["subprocess.Popen[str]", _Cell, Counters]) -> None:
    """Children of the guest have their own clocks: what looking at all of them brought is not lost for the guest's."""
    _, cell, counters = guest
    counters.begin(Limits())
    cell.tree.seen = TreeReading(7.5, 1, 1)
    assert counters.look(Limits(), until=0.0) is None
    assert counters.usage()["cpu_sec"] == 7.5


def test_the_clock_of_a_reaped_process_is_nobody_elses(guest: tuple["subprocess.Popen[str]", _Cell, Counters]) -> None:
    """Once the guest is gone, what was read last stands, whoever gets its number."""
    process, _, counters = guest
    counters.begin(Limits())
    _work(process)
    used = counters.usage()["cpu_sec"]
    process.kill()
    process.wait()
    assert counters.usage()["cpu_sec"] == used


def test_a_tree_beyond_a_limit_ends_its_run(guest: tuple["subprocess.Popen[str]", _Cell, Counters]) -> None:
    """Memory and processes that are seen beyond what a run may have are its end, with the limit as the reason."""
    _, cell, counters = guest
    limits = Limits()
    counters.begin(limits)
    for seen, reason in (
        (TreeReading(0.0, limits.memory_bytes + 1, 1), Reason.MEMORY),
        (TreeReading(0.0, 0, limits.processes + 1), Reason.PROCESSES),
    ):
        cell.tree.seen = seen
        over = counters.look(limits, until=0.0)
        assert over is not None
        assert over.reason is reason
    assert (counters.refused(), counters.usage()["tasks_peak"]) == ((0, 0), limits.processes + 1)

"""What one run of a cell has used: read where the kernel counts the tree, looked at from outside where it does not."""

import contextlib
import math
import os
import time
from typing import Any

from crank.domain.outcome import End
from crank.domain.profile import Limits
from crank.sandbox import verdict
from crank.sandbox.assembly import Standing


class Counters:
    """Of one cell; `begin` starts a run's count."""

    def __init__(self, standing: Standing) -> None:
        self._group = standing.group
        self._tree = standing.tree
        self._guest = _Clock(standing.guest)
        self._cpu_sec = self._cpu_before = self._guest_before = 0.0
        self._refused_before = (0, 0)
        self._peaks: tuple[int | None, int | None] = (None, None)

    @property
    def cpu_sec(self) -> float:
        """Return the CPU time of the run as of the last look."""
        return self._cpu_sec - self._cpu_before

    def begin(self, limits: Limits) -> None:
        """Count from here on: what was used and refused before is not the coming run's."""
        if self._group is not None:
            self._refused_before = self._read_group()
        else:
            self._read_tree(limits, math.inf)
            self._guest_before = self._guest.read()
        self._cpu_before = self._cpu_sec

    def look(self, limits: Limits, *, until: float) -> End | None:
        """Read what the tree has used; return the end of a run that has passed a limit.

        until  when to have done with it, where looking takes its time
        """
        if self._group is None:
            return self._read_tree(limits, until)
        memory_kills, process_refusals = self.refused()
        over = verdict.memory_end(limits) if memory_kills else self._tree.passed(limits)
        return verdict.processes_end(limits) if process_refusals else over

    def refused(self) -> tuple[int, int]:
        """Return how often the kernel killed for memory and refused a process in this run. Raises OSError."""
        if self._group is None:
            return 0, 0
        now = self._read_group()
        return now[0] - self._refused_before[0], now[1] - self._refused_before[1]

    def last_refused(self) -> tuple[int, int]:
        """Return the same of a cell that is gone, as far as it still can be read."""
        with contextlib.suppress(OSError):
            return self.refused()
        return 0, 0

    def usage(self) -> dict[str, Any]:
        """Return what the run has used, as its report names it."""
        # From outside the kernel tells of CPU time in hundredths of a second, but of one process to the nanosecond.
        of_guest = 0.0 if self._group is not None else self._guest.read() - self._guest_before
        memory_bytes, tasks = self._peaks
        return {"cpu_sec": max(0.0, self.cpu_sec, of_guest), "peak_memory_bytes": memory_bytes, "tasks_peak": tasks}

    def _read_group(self) -> tuple[int, int]:
        assert self._group is not None, "asked only where one counts"
        reading = self._group.read()
        # The sandbox's own first process is not the job's.
        tasks_peak = None if reading.tasks_peak is None else max(0, reading.tasks_peak - 1)
        self._cpu_sec, self._peaks = reading.cpu_sec, (reading.peak_memory_bytes, tasks_peak)
        return reading.memory_kills, reading.process_refusals

    def _read_tree(self, limits: Limits, until: float) -> End | None:
        tree = self._tree.read(tasks_max=limits.processes, until=until)
        self._cpu_sec = max(self._cpu_sec, tree.cpu_sec)
        memory_bytes, tasks = self._peaks
        self._peaks = max(memory_bytes or 0, tree.memory_bytes), max(tasks or 0, tree.tasks)
        if tree.memory_bytes > limits.memory_bytes:
            return verdict.memory_end(limits)
        return verdict.processes_end(limits) if tree.tasks > limits.processes else self._tree.passed(limits)


class _Clock:
    """The CPU time of one process, its ended threads included (clock_getcpuclockid(3))."""

    def __init__(self, process: int) -> None:
        """Take a pidfd."""
        self._process = process
        self._pid = _pid_of(process)
        self._last_sec = 0.0

    def read(self) -> float:
        """Return it in seconds; of a process that is gone, what was read last."""
        if self._pid > 0:
            with contextlib.suppress(OSError):
                # The kernel's number of another process's clock: its id inverted, 2 for "as scheduled".
                read_sec = time.clock_gettime((~self._pid << 3) | 2)
                # Looked at afterwards: until it was reaped, the number was no other's.
                if _pid_of(self._process) == self._pid:
                    self._last_sec = read_sec
        return self._last_sec


def _pid_of(process: int) -> int:
    """Return which process a pidfd is of (proc_pid_fdinfo(5)); not above 0 when it is gone."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open(f"/proc/self/fdinfo/{process}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, 4096)
        finally:
            os.close(descriptor)
        for line in text.splitlines():
            if line.startswith(b"Pid:"):
                return int(line.split()[1])
    return 0

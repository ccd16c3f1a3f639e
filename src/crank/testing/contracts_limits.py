"""What every runner that really runs code promises of its limits: each ends a job with a reason of its own,
and none ends a job that stays below it.

A code that copes with a refusal goes on: a limit is told as the end only where it was the end.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from crank.domain.outcome import Clock, Outcome, Reason
from crank.ports import SandboxRunner, SandboxSpec
from crank.testing.contracts_sandbox import RecordingSink

_MIB = 1 << 20
_SOON_SEC = 30.0


@dataclass(frozen=True, slots=True)
class LimitCase:
    """One script, the limits that it runs under, and how that must end."""

    name: str
    code: str
    reason: Reason
    clock: Clock | None = None
    limits: dict[str, float] = field(default_factory=dict)


_ENDS = (
    LimitCase(
        "a job that sleeps ends by the idle clock",
        "import time\nprint('begun', flush=True)\ntime.sleep(60)\n",
        Reason.TIMEOUT, Clock.IDLE, {"idle_sec": 0.4},
    ),
    LimitCase(
        "a job that works in silence ends by the clock of silence",
        "print('begun', flush=True)\nwhile True:\n    pass\n",
        Reason.TIMEOUT, Clock.NO_OUTPUT, {"no_output_sec": 0.4},
    ),
    LimitCase(
        "the wall clock is told where it comes first",
        "import time\ntime.sleep(60)\n",
        Reason.TIMEOUT, Clock.WALL, {"wall_sec": 0.4, "idle_sec": 5, "no_output_sec": 5},
    ),
    LimitCase(
        "too many open files",
        "held = [open('/dev/null') for _ in range(1000)]\n",
        Reason.FILES, None, {"open_files": 64},
    ),
    LimitCase(
        "too large a file",
        "with open('/scratch/big', 'wb') as file:\n    for _ in range(64):\n        file.write(bytes(1 << 20))\n",
        Reason.FILE_SIZE, None, {"file_bytes": 2 * _MIB, "disk_bytes": 64 * _MIB, "memory_bytes": 512 * _MIB},
    ),
    LimitCase(
        "too much in a folder",
        # Where no mount bounds the folder a burst between two looks is possible, and what stays is seen.
        "for number in range(64):\n    open(f'/scratch/{number}', 'wb').write(bytes(1 << 20))\nimport time\ntime.sleep(3)\n",
        Reason.DISK, None, {"file_bytes": 4 * _MIB, "disk_bytes": 4 * _MIB, "memory_bytes": 512 * _MIB},
    ),
    LimitCase(
        "too many files in a folder",
        "for number in range(100_000):\n    open(f'/out/{number}', 'wb').close()\n",
        Reason.INODES, None, {"inodes": 200},
    ),
    LimitCase(
        "too many threads",
        "import threading, time\nfor _ in range(1000):\n    threading.Thread(target=time.sleep, args=(30,), daemon=True).start()\n",
        Reason.PROCESSES, None, {"processes": 16},
    ),
)  # fmt: skip
_GOES_ON = (
    LimitCase(
        "work without output is not idle",
        "import time\nuntil = time.monotonic() + 4\nwhile time.monotonic() < until:\n    pass\n",
        Reason.EXITED, None, {"idle_sec": 2.5},
    ),
    LimitCase(
        "output without work is not idle and not silent",
        "import time\nfor _ in range(16):\n    print('.', end='', flush=True)\n    time.sleep(0.2)\n",
        Reason.EXITED, None, {"idle_sec": 2.5, "no_output_sec": 2.5},
    ),
    LimitCase(
        "a job that copes with too few open files goes on",
        "held = []\ntry:\n    while True:\n        held.append(open('/dev/null'))\nexcept OSError:\n    held.clear()\n",
        Reason.EXITED, None, {"open_files": 64},
    ),
    LimitCase(
        "a job that copes with a full folder goes on",
        "import os\ntry:\n    open('/scratch/a', 'wb').write(bytes(8 << 20))\nexcept OSError:\n    os.remove('/scratch/a')\n",
        Reason.EXITED, None, {"file_bytes": 16 * _MIB, "disk_bytes": 4 * _MIB},
    ),
    LimitCase(
        "an exception that only sounds like a limit is what it is",
        "raise ValueError('No space left on device')\n",
        Reason.RAISED,
    ),
)  # fmt: skip


class SandboxLimits:
    """Limits of one run; a subclass gives the runner and the spec."""

    def make_runner(self) -> SandboxRunner:
        """Return a runner that was not started."""
        raise NotImplementedError

    def make_spec(self, **limits: float) -> SandboxSpec:
        """Return a spec with some limits changed."""
        raise NotImplementedError

    async def _under(self, code: str, limits: Mapping[str, float]) -> Outcome:
        runner = self.make_runner()
        await runner.start()
        try:
            session = await runner.open(self.make_spec(**{"wall_sec": 15.0, **limits}))
            try:
                return await asyncio.wait_for(session.run_python(code, None, RecordingSink()), _SOON_SEC)
            finally:
                await session.close()
        finally:
            await runner.stop()

    @pytest.mark.parametrize("case", _ENDS, ids=lambda case: case.name.replace(" ", "-"))
    async def test_a_limit_ends_the_job_with_its_reason(self, case: LimitCase) -> None:
        """The reason and the clock are those of the limit that was passed, with a sentence that says how much."""
        outcome = await self._under(case.code, case.limits)
        assert (outcome.end.reason, outcome.end.clock) == (case.reason, case.clock), _told(outcome)
        assert outcome.end.message

    @pytest.mark.parametrize("case", _GOES_ON, ids=lambda case: case.name.replace(" ", "-"))
    async def test_below_a_limit_nothing_happens(self, case: LimitCase) -> None:
        """What stays below a limit, or copes with its refusal, ends as it would without one."""
        outcome = await self._under(case.code, case.limits)
        assert (outcome.end.reason, outcome.end.clock) == (case.reason, None), _told(outcome)

    async def test_output_before_a_clock_is_kept(self) -> None:
        """The clocks of idleness and silence leave what was printed before them."""
        for name in ("idle_sec", "no_output_sec"):
            outcome = await self._under("import time\nprint('begun', flush=True)\ntime.sleep(60)\n", {name: 2})
            assert outcome.stdout.text == "begun\n"
            assert 2 <= outcome.usage.wall_sec < 12

    async def test_a_host_that_was_wanted_is_evidence(self) -> None:
        """A job that asks for the network is refused at once, and the host that it named is kept as its own word."""
        code = "import socket\nsocket.create_connection(('example.com', 443), timeout=12)\n"
        outcome = await self._under(code, {})
        assert outcome.end.reason is Reason.RAISED, _told(outcome)
        denials = [denial for denial in outcome.denials if denial.layer == "network"]
        assert any("example.com" in denial.action and denial.told_by == "job" for denial in denials), outcome.denials
        assert outcome.usage.wall_sec < 10

    async def test_what_the_kernel_refused_is_its_own_word(self) -> None:
        """A process limit that a control group holds is counted by the kernel, however much the job tells."""
        code = "import threading, time\nfor _ in range(1000):\n"
        code += "    threading.Thread(target=time.sleep, args=(30,), daemon=True).start()\n"
        outcome = await self._under(code, {"processes": 16})
        witnesses = {denial.told_by for denial in outcome.denials if denial.layer == "cgroup"}
        # Without control groups a supervisor watches instead, and there is no counter to cite.
        assert witnesses == ({"kernel"} if "cgroup" in outcome.layers else set())

    async def test_an_outcome_names_its_walls(self) -> None:
        """Tier and proven layers stand in every outcome, and the most threads at one time where the host can count."""
        code = "import threading\nmeet = threading.Barrier(4)\nfor _ in range(3):\n"
        code += "    threading.Thread(target=meet.wait).start()\nmeet.wait()\n"
        outcome = await self._under(code, {})
        assert outcome.tier in ("namespaces", "landlock")
        assert {"seccomp", "landlock"} <= set(outcome.layers)
        # Seen from time to time where no control group counts, so it may have missed them there.
        assert outcome.usage.tasks_peak is None or 1 <= outcome.usage.tasks_peak <= 4
        if "cgroup" in outcome.layers and outcome.usage.tasks_peak is not None:
            assert outcome.usage.tasks_peak == 4


def _told(outcome: Outcome) -> str:
    return f"{outcome.end} {outcome.stderr.text[-500:]}"

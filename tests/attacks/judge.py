"""How a case is judged, wherever it ran: by what became of it, of its neighbour and of the job after it."""

from dataclasses import dataclass, replace
from typing import Any

from crank.domain.outcome import Outcome
from tests.attacks.case import ANY, Case

# The soak measures how late the machine lets anybody be, and judges to a quarter of a second beyond that; elsewhere
# nobody does, and other tests run beside: there an end may be late, and not go missing.
OVERTIME_SEC = 0.25
LATE_SEC = 3.0
GROWTH_BYTES = 32 << 20
WALL_SEC = 20.0

# Runs beside every attack; it has a secret of its own and must come to the one right answer.
VICTIM = Case(
    "V00 neighbour",
    """
import hashlib, os
with open("/scratch/secret", "w") as target:
    target.write("NEIGHBOUR-" + "SECRET")
h = b""
for n in range(20_000):
    h = hashlib.sha256(h + bytes([n % 256])).digest()
[h.hex()[:16], open("/scratch/secret").read() == "NEIGHBOUR-" + "SECRET", os.listdir("/scratch"), os.listdir("/out")]
""",
    result=["77482d52cb72a4f1", True, ["secret"], []],
)

# Runs after every attack: a right answer, empty folders, nobody else, and an environment without anything of others.
NEXT = Case(
    "V01 next",
    """
import os, signal, threading
sum(range(10)), [sorted(os.listdir(place)) for place in ("/scratch", "/out", "/tmp", "/dev/shm")], [
    len([name for name in os.listdir("/proc") if name.isdigit()]) <= 2, threading.active_count(), os.getcwd(),
    signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, os.getpriority(os.PRIO_PROCESS, 0),
    [name for name in os.environ if "CANARY" in name or "CRANK" in name]]
""",
    result=[45, [[], [], [], []], [True, 1, "/scratch", True, 0, []]],
)

# The same where there are no namespaces: no job may list processes, and variables tell it where its folders are.
NEXT_BARE = replace(
    NEXT,
    code=NEXT.code.replace('len([name for name in os.listdir("/proc") if name.isdigit()]) <= 2', "processes_are_closed()")
    .replace('"CRANK" in name]', '"CRANK" in name and name not in ("CRANK_IN", "CRANK_OUT", "CRANK_SCRATCH")]')
    .replace(
        "import os, signal, threading\n",
        "import os, signal, threading\ndef processes_are_closed():\n    try:\n        return not os.listdir('/proc')\n"
        "    except PermissionError:\n        return True\n",
    ),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of one job, however it was seen. `everything` is all text that came back."""

    reason: str
    code: int | None
    result: Any
    stdout: str
    stderr: str
    message: str | None
    wall_sec: float
    artifacts: tuple[str, ...]
    everything: str


def seen_outcome(outcome: Outcome) -> Seen:
    """Return what a runner gave."""
    return Seen(
        reason=outcome.end.reason.value,
        code=outcome.end.exit_code,
        result=outcome.result,
        stdout=outcome.stdout.text,
        stderr=outcome.stderr.text,
        message=outcome.end.message,
        wall_sec=outcome.usage.wall_sec,
        artifacts=tuple(sorted(artifact.path for artifact in outcome.artifacts)),
        everything=repr(outcome),
    )


def seen_document(document: dict[str, Any]) -> Seen:
    """Return what the API gave."""
    end = document["end"]
    return Seen(
        reason=end["reason"],
        code=end["exit_code"],
        result=document["result"],
        stdout=document["stdout"],
        stderr=document["stderr"],
        message=end["message"],
        wall_sec=(document["metrics"] or {"wall_sec": 0.0})["wall_sec"],
        artifacts=tuple(sorted(artifact["path"] for artifact in document["artifacts"])),
        everything=repr(document),
    )


def wrongs(case: Case, seen: Seen, *, wall_sec: float | None = None, machine_late_sec: float = LATE_SEC) -> list[str]:
    """Return everything that was not as it must be about one job itself.

    machine_late_sec  how long the machine kept even a process waiting that wanted nothing
    """
    wrong = []
    tail = f"message {seen.message!r}, stderr {seen.stderr[-800:]!r}"
    if seen.reason not in case.reasons:
        wrong.append(f"it ended as {seen.reason}, {tail}")
    if case.codes and seen.code not in case.codes:
        wrong.append(f"its exit code was {seen.code}, {tail}")
    if case.result is not ANY and seen.result != case.result:
        wrong.append(f"its result was {str(seen.result)[:600]}, {tail}")
    if case.stdout not in seen.stdout:
        wrong.append(f"its stdout was {seen.stdout[-300:]!r}")
    if case.artifacts is not None and seen.artifacts != case.artifacts:
        wrong.append(f"its artifacts were {seen.artifacts}")
    if "ESCAPED" in seen.stdout:
        wrong.append("it got through")
    if "NEIGHBOUR-SECRET" in seen.everything:
        wrong.append("it read its neighbour's secret")
    limit_sec = wall_sec or dict(case.limits).get("wall_sec", WALL_SEC)
    if seen.wall_sec > limit_sec + OVERTIME_SEC + machine_late_sec:
        wrong.append(f"it ran {seen.wall_sec:.2f} s instead of {limit_sec:g} s (the machine: {machine_late_sec:.2f} s)")
    return wrong

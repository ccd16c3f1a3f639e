"""How it ended is decided from facts, in an order that no job can talk its way around."""

import signal
from dataclasses import replace
from typing import Any

import pytest

from crank.domain.outcome import Clock, Denial, End, Reason
from crank.domain.profile import Limits
from crank.sandbox.verdict import CLOSED_EARLY_EXIT, Claim, Facts, counted, decide, timeout_end

_LIMITS = Limits()
_DONE = Claim("done", 0)


def _exit(code: int) -> int:
    return code << 8


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (Facts(status=_exit(0), claim=_DONE), Reason.EXITED),
        (Facts(status=_exit(3), claim=Claim("exit", 3)), Reason.EXITED),
        (Facts(status=_exit(0)), Reason.EXITED),
        (Facts(status=_exit(1), claim=Claim("raised", 1, error="ValueError: x")), Reason.RAISED),
        (Facts(status=_exit(1), claim=Claim("raised", 1, hint="memory")), Reason.MEMORY),
        (Facts(status=_exit(1), claim=Claim("raised", 1, hint="disk")), Reason.DISK),
        (Facts(status=_exit(1), claim=Claim("raised", 1, hint="processes"), counted=False), Reason.PROCESSES),
        (Facts(status=_exit(1), claim=Claim("raised", 1, hint="inodes")), Reason.INODES),
        (Facts(status=_exit(1), claim=Claim("raised", 1, hint="open_files")), Reason.FILES),
        (Facts(status=_exit(1), claim=Claim("raised", 1, hint="file_size")), Reason.FILE_SIZE),
        (Facts(status=_exit(1), claim=Claim("raised", 1, hint="some other word")), Reason.RAISED),
        (Facts(status=_exit(1), claim=Claim("raised", 1), disk_full=True, inodes_full=True), Reason.RAISED),
        (Facts(status=_exit(1), claim=Claim("raised", 1, hint="disk"), inodes_full=True), Reason.INODES),
        (Facts(status=_exit(1), claim=Claim("raised", 1, hint="disk"), disk_full=True), Reason.DISK),
        (Facts(status=_exit(1), claim=Claim("raised", 1, hint="inodes"), disk_full=True), Reason.DISK),
        (Facts(status=_exit(1), claim=Claim("raised", 1, hint="disk"), disk_full=True, inodes_full=True), Reason.DISK),
        (Facts(status=signal.SIGXFSZ), Reason.FILE_SIZE),
        (Facts(status=signal.SIGSEGV), Reason.SIGNALLED),
        (Facts(status=signal.SIGKILL), Reason.SIGNALLED),
        (Facts(status=signal.SIGSYS), Reason.POLICY),
        (Facts(status=signal.SIGXCPU), Reason.TIMEOUT),
        (Facts(status=signal.SIGKILL, memory_kills=1), Reason.MEMORY),
        (Facts(status=None, memory_kills=1), Reason.MEMORY),
        (Facts(status=_exit(0), claim=_DONE, memory_kills=1), Reason.MEMORY),
        (Facts(status=_exit(0), claim=_DONE, process_refusals=1), Reason.PROCESSES),
        (Facts(status=_exit(0), claim=_DONE, violation="twice"), Reason.PROTOCOL_VIOLATION),
        (Facts(status=_exit(3), claim=_DONE), Reason.PROTOCOL_VIOLATION),
        (Facts(status=_exit(CLOSED_EARLY_EXIT)), Reason.PROTOCOL_VIOLATION),
        (Facts(status=None), Reason.SANDBOX_FAILED),
        (Facts(status=signal.SIGRTMIN + 3), Reason.SIGNALLED),
    ],
)
def test_the_reason_follows_from_the_facts(facts: Facts, reason: Reason) -> None:
    """Each set of facts has one reason, and each reason a sentence wherever it is not a plain success."""
    end = decide(facts, _LIMITS)
    assert end.reason is reason
    assert end.message or facts.claim is not None or end.exit_code == 0


@pytest.mark.parametrize("claim", [None, _DONE, Claim("raised", 1, hint="memory"), Claim("exit", 0)])
@pytest.mark.parametrize("status", [None, _exit(0), _exit(1), signal.SIGKILL])
def test_our_own_kill_stands(claim: Claim | None, status: int | None) -> None:
    """Whatever the guest claims, a kill of ours is the end that is told."""
    cause = timeout_end(_LIMITS, Clock.WALL)
    facts = Facts(cause=cause, claim=claim, status=status, violation="x", memory_kills=1, process_refusals=1)
    assert decide(facts, _LIMITS) == cause


_ORDER: list[tuple[str, dict[str, Any], Reason]] = [
    ("a kill of ours", {"cause": timeout_end(_LIMITS, Clock.IDLE)}, Reason.TIMEOUT),
    ("the kernel killed for memory", {"memory_kills": 1}, Reason.MEMORY),
    ("the kernel refused a process", {"process_refusals": 1}, Reason.PROCESSES),
    ("the guest broke its word", {"violation": "x"}, Reason.PROTOCOL_VIOLATION),
]


@pytest.mark.parametrize("place", range(len(_ORDER)))
@pytest.mark.parametrize("hint", [None, "memory", "disk", "inodes", "processes", "open_files", "file_size"])
def test_each_line_outranks_all_below_it(place: int, hint: str | None) -> None:
    """With every lower fact true as well, and whatever the guest claims, the highest fact is told."""
    known: dict[str, Any] = {}
    for _, facts, _ in _ORDER[place:]:
        known.update(facts)
    claim = Claim("raised", 1, error="E: x", hint=hint)
    end = decide(Facts(status=_exit(1), claim=claim, disk_full=True, inodes_full=True, **known), _LIMITS)
    assert end.reason is _ORDER[place][2]


def test_only_what_the_kernel_said_is_its_evidence() -> None:
    """Kills, refusals and signals count as the kernel's word; what the job claims does not."""
    claim = Claim("raised", 1, error="MemoryError", hint="memory")
    assert counted(Facts(status=_exit(1), claim=claim, disk_full=True)) == ()
    assert counted(Facts(status=None, memory_kills=2, process_refusals=30)) == (
        Denial("cgroup", "more memory", 2, "kernel"),
        Denial("cgroup", "another process or thread", 30, "kernel"),
    )
    for number, layer in ((signal.SIGSYS, "seccomp"), (signal.SIGXFSZ, "limits"), (signal.SIGXCPU, "limits")):
        (denial,) = counted(Facts(status=number))
        assert (denial.layer, denial.count, denial.told_by) == (layer, 1, "kernel")
    assert counted(Facts(status=signal.SIGKILL)) == ()


@pytest.mark.parametrize("clock", list(Clock))
def test_every_clock_has_a_sentence_of_its_own(clock: Clock) -> None:
    """A timeout names its clock, and no two clocks read alike."""
    end = timeout_end(_LIMITS, clock, lifetime_sec=7.5)
    others = {timeout_end(_LIMITS, other, lifetime_sec=7.5).message for other in Clock if other is not clock}
    assert end.reason is Reason.TIMEOUT
    assert end.clock is clock
    assert end.message not in others


def test_the_sentence_is_ours_and_the_jobs_words_stand_behind_it() -> None:
    """A limit that an exception points at is told with the limit, then with the exception, cut."""
    facts = Facts(status=_exit(1), claim=Claim("raised", 1, error="OSError: " + "x" * 9_000, hint="open_files"))
    message = decide(facts, replace(_LIMITS, open_files=99)).message or ""
    assert message.startswith("A process of the job needed more than its 99 open files. It ended with: OSError: x")
    assert len(message) == 2_000


def test_a_signal_has_its_name() -> None:
    """A signal is told by its name, as people know it."""
    assert decide(Facts(status=signal.SIGSEGV), _LIMITS).signal == "SIGSEGV"


def test_long_errors_are_cut() -> None:
    """An exception's text does not become a record without end."""
    end = decide(Facts(status=_exit(1), claim=Claim("raised", 1, error="E: " + "x" * 10_000)), _LIMITS)
    assert len(end.message or "") == 2_000


def test_a_note_about_the_result_is_the_message() -> None:
    """A script that ran well but whose result was not kept says so and still succeeded."""
    end = decide(Facts(status=_exit(0), claim=Claim("done", 0, note="It was not kept.")), _LIMITS)
    assert end == End(Reason.EXITED, exit_code=0, message="It was not kept.")

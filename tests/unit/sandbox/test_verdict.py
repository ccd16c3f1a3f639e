"""How it ended is decided from facts, in an order that no job can talk its way around."""

import signal

import pytest

from crank.domain.outcome import Clock, End, Reason
from crank.domain.profile import Limits
from crank.sandbox.verdict import CLOSED_EARLY_EXIT, Claim, Facts, decide, timeout_end

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
        (Facts(status=_exit(1), claim=Claim("raised", 1, hint="processes")), Reason.PROCESSES),
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

"""How an attempt ended, decided from facts. What the job says about itself can only fill in a plain end.

The order is the argument: our own kill first, then what the kernel refused or killed, then a broken word
of the guest, then its exit. A job cannot talk its way from a lower line to a better one.
"""

import os
import signal
from dataclasses import dataclass

from crank.domain.outcome import Clock, End, Reason
from crank.domain.profile import Limits

MESSAGE_CHARS_MAX = 2_000
CLOSED_EARLY_EXIT = 97


@dataclass(frozen=True, slots=True)
class Claim:
    """What the guest said last.

    how    `done`, `exit` or `raised`
    code   the exit code that the process must then have
    error  one line, `ValueError: …`
    hint   which limit an uncaught exception points at: `memory`, `disk`, `processes`, or None
    note   why a result could not be kept
    """

    how: str
    code: int
    error: str | None = None
    hint: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the supervisor saw.

    cause      why it killed the tree, if it did
    violation  how the guest broke its protocol, if it did
    status     the guest's wait status, None when the init died without telling
    """

    cause: End | None = None
    violation: str | None = None
    status: int | None = None
    claim: Claim | None = None
    memory_kills: int = 0
    process_refusals: int = 0
    counted: bool = True


def memory_end(limits: Limits) -> End:
    """Say that the tree needed more memory than it may have."""
    mib = limits.memory_bytes / (1 << 20)
    return End(Reason.MEMORY, message=f"The job needed more than its {mib:g} MiB of memory.")


def processes_end(limits: Limits) -> End:
    """Say that the tree wanted more processes or threads than it may have."""
    return End(Reason.PROCESSES, message=f"The job needed more than its {limits.processes} processes and threads.")


def output_end(limits: Limits) -> End:
    """Say that the job wrote more than it may."""
    return End(Reason.OUTPUT, message=f"The job wrote more than {limits.output_flood_bytes} bytes of output.")


def timeout_end(limits: Limits, clock: Clock) -> End:
    """Say which clock ran out."""
    if clock is Clock.CPU:
        return End(Reason.TIMEOUT, clock=clock, message=f"The job used more than its {limits.cpu_sec:g} s of CPU time.")
    return End(Reason.TIMEOUT, clock=clock, message=f"The job ran longer than its {limits.wall_sec:g} s.")


def violation_end(cause: str) -> End:
    """Say that the job wrote into the channel that carries its result."""
    return End(Reason.PROTOCOL_VIOLATION, message=f"The job disturbed its result channel: {cause}")


def decide(facts: Facts, limits: Limits) -> End:
    """Return the one statement of how it ended."""
    if facts.cause is not None:
        return facts.cause
    if facts.memory_kills:
        return memory_end(limits)
    if facts.process_refusals:
        return processes_end(limits)
    if facts.violation is not None:
        return violation_end(facts.violation)
    if facts.status is None:
        return End(Reason.SANDBOX_FAILED, message="The sandbox ended before the job did.")
    if os.WIFSIGNALED(facts.status):
        return _signalled(os.WTERMSIG(facts.status))
    return _exited(os.WEXITSTATUS(facts.status), facts.claim, limits)


def _signalled(number: int) -> End:
    # Real-time signals between the first and the last have numbers but no names.
    name = next((known.name for known in signal.Signals if known == number), f"SIG{number}")
    if number == signal.SIGSYS:
        return End(Reason.POLICY, signal=name, message="The job made a system call that is never allowed.")
    if number == signal.SIGXCPU:
        return End(Reason.TIMEOUT, signal=name, clock=Clock.CPU, message="A process used up its CPU time.")
    return End(Reason.SIGNALLED, signal=name, message=f"The job was ended by {name}.")


def _exited(code: int, claim: Claim | None, limits: Limits) -> End:
    if claim is None:
        if code == CLOSED_EARLY_EXIT:
            return violation_end("it was closed before the end.")
        return End(Reason.EXITED, exit_code=code, message=None if code == 0 else f"The job ended with code {code}.")
    if code != claim.code:
        return violation_end(f"it told of the end {claim.code}, but the process ended with {code}.")
    if claim.how == "raised":
        return _raised(claim, limits)
    message = claim.note or (None if code == 0 else f"The job ended with code {code}.")
    return End(Reason.EXITED, exit_code=code, message=message)


def _raised(claim: Claim, limits: Limits) -> End:
    error = (claim.error or "")[:MESSAGE_CHARS_MAX] or None
    if claim.hint == "memory":
        return End(Reason.MEMORY, exit_code=claim.code, message=memory_end(limits).message)
    if claim.hint == "disk":
        return End(Reason.DISK, exit_code=claim.code, message=f"A writable folder is full: {error}")
    if claim.hint == "processes":
        return End(Reason.PROCESSES, exit_code=claim.code, message=processes_end(limits).message)
    return End(Reason.RAISED, exit_code=claim.code, message=error)

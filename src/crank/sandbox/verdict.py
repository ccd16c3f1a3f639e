"""How an attempt ended, decided from facts. What the job says about itself can only fill in a plain end.

The order is the argument: our own kill first, then what the kernel refused or killed, then a broken word
of the guest, then its exit. A job cannot talk its way from a lower line to a better one.
"""

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from crank.domain.outcome import Clock, Denial, End, Reason
from crank.domain.profile import Limits

MESSAGE_CHARS_MAX = 2_000
CLOSED_EARLY_EXIT = 97


@dataclass(frozen=True, slots=True)
class Claim:
    """What the guest said last.

    how    `done`, `exit` or `raised`
    code   the exit code that the process must then have
    error  one line, `ValueError: …`
    hint   which limit an uncaught exception points at: `memory`, `disk`, `inodes`, `processes`, `open_files`,
           `file_size`, or None; any other word counts as None
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
    disk_full, inodes_full   /scratch or /out had no room for bytes, or for another file, when the tree was dead
    """

    cause: End | None = None
    violation: str | None = None
    status: int | None = None
    claim: Claim | None = None
    memory_kills: int = 0
    process_refusals: int = 0
    counted: bool = True
    disk_full: bool = False
    inodes_full: bool = False


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


def disk_end(limits: Limits) -> End:
    """Say that a writable folder took no more bytes."""
    mib = limits.disk_bytes / (1 << 20)
    return End(Reason.DISK, message=f"The job needed more than the {mib:g} MiB of /scratch or of /out.")


def inodes_end(limits: Limits) -> End:
    """Say that a writable folder took no more files."""
    return End(
        Reason.INODES, message=f"The job needed more than the {limits.inodes} files and folders of /scratch or of /out."
    )


def open_files_end(limits: Limits) -> End:
    """Say that a process wanted more open descriptors than it may have."""
    return End(Reason.FILES, message=f"A process of the job needed more than its {limits.open_files} open files.")


def file_size_end(limits: Limits) -> End:
    """Say that one file grew beyond what a file may have."""
    mib = limits.file_bytes / (1 << 20)
    return End(Reason.FILE_SIZE, message=f"The job wrote a file of more than its {mib:g} MiB.")


def timeout_end(limits: Limits, clock: Clock, *, lifetime_sec: float | None = None) -> End:
    """Say which clock ran out; lifetime_sec is that of the session, for the clock LIFETIME."""
    lifetime = "its whole time" if lifetime_sec is None else f"its {lifetime_sec:g} s"
    sentences = {
        Clock.WALL: f"The job ran longer than its {limits.wall_sec:g} s.",
        Clock.CPU: f"The job used more than its {limits.cpu_sec:g} s of CPU time.",
        Clock.IDLE: f"The job did nothing for {limits.idle_sec:g} s: it used no CPU time and wrote nothing.",
        Clock.NO_OUTPUT: f"The job printed nothing for {limits.no_output_sec:g} s.",
        Clock.LIFETIME: f"The session lived for {lifetime}.",
    }
    return End(Reason.TIMEOUT, clock=clock, message=sentences[clock])


def violation_end(cause: str) -> End:
    """Say that the job wrote into the channel that carries its result."""
    return End(Reason.PROTOCOL_VIOLATION, message=f"The job disturbed its result channel: {cause}")


def counted(facts: Facts) -> tuple[Denial, ...]:
    """Return the evidence that the kernel itself gave: what it killed, refused or signalled."""
    signalled = facts.status is not None and os.WIFSIGNALED(facts.status)
    number = os.WTERMSIG(facts.status or 0) if signalled else 0
    told = (
        ("cgroup", "more memory", facts.memory_kills),
        ("cgroup", "another process or thread", facts.process_refusals),
        ("seccomp", "a system call that is never allowed", int(number == signal.SIGSYS)),
        ("limits", "a larger file", int(number == signal.SIGXFSZ)),
        ("limits", "more CPU time", int(number == signal.SIGXCPU)),
    )
    return tuple(Denial(layer, action, count, "kernel") for layer, action, count in told if count > 0)


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
        return _signalled(os.WTERMSIG(facts.status), limits)
    return _exited(os.WEXITSTATUS(facts.status), facts, limits)


def _signalled(number: int, limits: Limits) -> End:
    # Real-time signals between the first and the last have numbers but no names.
    name = next((known.name for known in signal.Signals if known == number), f"SIG{number}")
    if number == signal.SIGSYS:
        return End(Reason.POLICY, signal=name, message="The job made a system call that is never allowed.")
    if number == signal.SIGXCPU:
        return End(Reason.TIMEOUT, signal=name, clock=Clock.CPU, message="A process used up its CPU time.")
    if number == signal.SIGXFSZ:
        return replace(file_size_end(limits), signal=name)
    return End(Reason.SIGNALLED, signal=name, message=f"The job was ended by {name}.")


def _exited(code: int, facts: Facts, limits: Limits) -> End:
    claim = facts.claim
    if claim is None:
        if code == CLOSED_EARLY_EXIT:
            return violation_end("it was closed before the end.")
        return End(Reason.EXITED, exit_code=code, message=None if code == 0 else f"The job ended with code {code}.")
    if code != claim.code:
        return violation_end(f"it told of the end {claim.code}, but the process ended with {code}.")
    if claim.how == "raised":
        return _raised(claim, facts, limits)
    message = claim.note or (None if code == 0 else f"The job ended with code {code}.")
    return End(Reason.EXITED, exit_code=code, message=message)


_HINTED: Mapping[str, Callable[[Limits], End]] = {
    "memory": memory_end,
    "disk": disk_end,
    "inodes": inodes_end,
    "processes": processes_end,
    "open_files": open_files_end,
    "file_size": file_size_end,
}


def _raised(claim: Claim, facts: Facts, limits: Limits) -> End:
    error = (claim.error or "")[:MESSAGE_CHARS_MAX] or None
    ending = _HINTED.get(_which_full(claim.hint, facts) or "")
    if ending is None:
        return End(Reason.RAISED, exit_code=claim.code, message=error)
    end = ending(limits)
    # The sentence is ours; what the job said of it stands behind, cut.
    message = f"{end.message} It ended with: {error}" if error else end.message
    return replace(end, exit_code=claim.code, message=(message or "")[:MESSAGE_CHARS_MAX])


def _which_full(hint: str | None, facts: Facts) -> str | None:
    """Believe a hint as far as the supervisor's own facts go.

    The job sees one error for bytes and files, and one for processes and for a lock that another holds.
    """
    if hint == "processes" and facts.counted:
        # A refused process would have been counted, and would have decided before this.
        return None
    if hint in ("disk", "inodes") and facts.disk_full != facts.inodes_full:
        return "disk" if facts.disk_full else "inodes"
    return hint

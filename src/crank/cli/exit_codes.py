"""What the exit status of `crank` means. Scripts rely on it: a number is never used for something else."""

from collections.abc import Mapping
from enum import IntEnum

from crank import errors
from crank.errors import CrankError


class ExitCode(IntEnum):
    """One number for each kind of end."""

    OK = 0
    JOB_FAILED = 1
    USAGE = 2
    CONFIGURATION = 3
    NOT_ALLOWED = 4
    NOT_FOUND = 5
    UNAVAILABLE = 6
    TIMED_OUT = 7
    CONFLICT = 8
    LOST = 9
    DEFECT = 70
    INTERRUPTED = 130


MEANINGS: Mapping[ExitCode, str] = {
    ExitCode.OK: "it worked",
    ExitCode.JOB_FAILED: "the job's own code failed, or a check did not pass",
    ExitCode.USAGE: "the command line or the request is wrong",
    ExitCode.CONFIGURATION: "settings, a port, the database or a profile cannot be used",
    ExitCode.NOT_ALLOWED: "not authenticated or not allowed",
    ExitCode.NOT_FOUND: "the named thing does not exist",
    ExitCode.UNAVAILABLE: "the node is not there or busy, or no worker can run this",
    ExitCode.TIMED_OUT: "the job ran out of time",
    ExitCode.CONFLICT: "it contradicts something already accepted",
    ExitCode.LOST: "the job was lost; whether it ran to its end is unknown",
    ExitCode.DEFECT: "a defect in Crank",
    ExitCode.INTERRUPTED: "interrupted or cancelled",
}

_BY_STATUS: Mapping[str, ExitCode] = {
    "succeeded": ExitCode.OK,
    "failed": ExitCode.JOB_FAILED,
    "timed_out": ExitCode.TIMED_OUT,
    "cancelled": ExitCode.INTERRUPTED,
    "refused": ExitCode.UNAVAILABLE,
    "lost": ExitCode.LOST,
}

# The first class that a fault belongs to decides.
_BY_FAULT: tuple[tuple[type[CrankError], ExitCode], ...] = (
    (errors.NotAuthenticated, ExitCode.NOT_ALLOWED),
    (errors.NotAllowed, ExitCode.NOT_ALLOWED),
    (errors.UntrustedPeer, ExitCode.NOT_ALLOWED),
    (errors.NotFound, ExitCode.NOT_FOUND),
    (errors.Conflict, ExitCode.CONFLICT),
    (errors.ConfigurationError, ExitCode.CONFIGURATION),
    (errors.StoreError, ExitCode.CONFIGURATION),
    (errors.ProfileError, ExitCode.CONFIGURATION),
    (errors.SandboxError, ExitCode.CONFIGURATION),
    (errors.Unavailable, ExitCode.UNAVAILABLE),
    (errors.ProtocolError, ExitCode.UNAVAILABLE),
    (errors.InvalidRequest, ExitCode.USAGE),
    (errors.TooLarge, ExitCode.USAGE),
)
REFUSAL_CODES = frozenset({"unsatisfied-capability", "no-local-satisfier"})


def of_status(status: str) -> ExitCode:
    """Return the exit code for a job that stands so; a job that goes on is no failure."""
    return _BY_STATUS.get(status, ExitCode.OK)


def of_fault(fault: CrankError) -> ExitCode:
    """Return the exit code for a fault."""
    if fault.error_code in REFUSAL_CODES:
        return ExitCode.UNAVAILABLE
    return next((code for kind, code in _BY_FAULT if isinstance(fault, kind)), ExitCode.DEFECT)

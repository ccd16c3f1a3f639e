"""The one tree of faults, each with a stable code that is never used again for something else.

    CrankError
    ├── InvalidRequest      the caller sent something that can never work
    │   └── NotSupported    a field that is part of the contract but that no step honours yet
    ├── NotAuthenticated    no credential, or one that this node does not know
    ├── NotAllowed          a known caller asked for something that is not theirs
    ├── NotFound            the named thing does not exist (or is not the caller's to see)
    ├── Conflict            the request contradicts something already accepted
    ├── TooLarge            a limit on size or count was passed
    ├── Unavailable         it may work later: busy, starting, draining, disk full
    ├── ConfigurationError  the operator's settings are wrong; lists every mistake
    ├── StoreError          the durable store cannot be used (corrupt, newer, unreadable)
    ├── ProtocolError       a peer said something the wire protocol does not allow
    ├── SandboxError        the sandbox could not be built or proven; the job did not run
    ├── ProfileError        an environment profile cannot be built or does not keep its promise
    ├── UntrustedPeer       the other side of a connection could not prove who it is
    └── CapabilityError     a worker author's function says that it failed, with a code it declared

A fault carries two messages (Dropshot's habit): `message` for the caller, `detail` for the log.
Refusals that are decisions, not faults, are values: see `crank.domain.job.Refusal`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where, why, and what to do about it."""

    field: str
    cause: str
    fix: str


class CrankError(Exception):
    """Root of every fault that Crank raises on purpose."""

    code: ClassVar[str] = "internal_error"
    default_fix: ClassVar[str] = "Report this with the log of the node; it is a defect in Crank."

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        field: str | None = None,
        fix: str | None = None,
        detail: str | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = code or type(self).code
        self.field = field
        self.fix = fix or type(self).default_fix
        self.detail = detail
        self.problems = tuple(problems)


class InvalidRequest(CrankError):
    """The caller sent something that can never work."""

    code = "invalid_request"
    default_fix = "Correct the request and send it again."


class NotSupported(InvalidRequest):
    """The field is part of the contract, but nothing in this version honours it."""

    code = "not_supported"
    default_fix = "Leave the field out, or use its default."


class NotAuthenticated(CrankError):
    """No credential was sent, or this node does not know it."""

    code = "not_authenticated"
    default_fix = "Send 'Authorization: Bearer <secret>'; the secret is in the node's token file."


class NotAllowed(CrankError):
    """The caller is known, but asked for something that is not theirs."""

    code = "not_allowed"
    default_fix = "Ask for something this credential may use."


class NotFound(CrankError):
    """The named thing does not exist, or is not the caller's to see."""

    code = "not_found"
    default_fix = "Check the name; list what exists first."


class Conflict(CrankError):
    """The request contradicts something that was already accepted."""

    code = "conflict"
    default_fix = "Read the current state and decide again."


class TooLarge(CrankError):
    """A limit on size or count was passed."""

    code = "too_large"
    default_fix = "Send less, or upload big files as blobs first."


class Unavailable(CrankError):
    """It may work later."""

    code = "unavailable"
    default_fix = "Try again in a few seconds."

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        fix: str | None = None,
        detail: str | None = None,
        retry_after_sec: int = 2,
    ) -> None:
        super().__init__(message, code=code, fix=fix, detail=detail)
        self.retry_after_sec = retry_after_sec


class ConfigurationError(CrankError):
    """The operator's settings are wrong; `problems` lists every mistake found."""

    code = "configuration_error"
    default_fix = "Correct the settings named below; all mistakes found are listed."


class StoreError(CrankError):
    """The durable store cannot be used."""

    code = "store_error"
    default_fix = "Restore a backup, or move the damaged database away and start afresh."


class ProtocolError(CrankError):
    """A peer said something that the wire protocol does not allow."""

    code = "protocol_error"
    default_fix = "Run the same version of Crank on both sides."


class SandboxError(CrankError):
    """The sandbox could not be built or proven, so the job did not run."""

    code = "sandbox_error"
    default_fix = "Run 'crank doctor' on the worker's machine; it names the missing layer."


class ProfileError(CrankError):
    """An environment profile cannot be built, or does not keep its promise."""

    code = "profile_error"
    default_fix = "Run 'crank profile check' and read which promise failed."


class UntrustedPeer(CrankError):
    """The other side of a connection could not prove who it is."""

    code = "untrusted_peer"
    default_fix = "Join this worker to the controller again, with that controller's own authority."


class CapabilityError(CrankError):
    """A worker author's function says that it failed; `code` is one that the capability declared."""

    code = "capability_failed"
    default_fix = "Read what the capability's error code means, correct the args and try again."

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, code=code)

"""How a fault of one side of the link is told to the other: a verdict and a code, never an exception."""

from collections.abc import Mapping
from typing import Literal

from crank.errors import (
    Conflict,
    CrankError,
    InvalidRequest,
    NotFound,
    NotSupported,
    SandboxError,
    TooLarge,
    Unavailable,
)

Verdict = Literal["done", "invalid", "not_supported", "not_found", "conflict", "too_large", "unavailable", "failed"]

# The most precise class first: the first that a fault belongs to names it.
_FAULTS: Mapping[Verdict, type[CrankError]] = {
    "not_supported": NotSupported,
    "invalid": InvalidRequest,
    "not_found": NotFound,
    "conflict": Conflict,
    "too_large": TooLarge,
    "unavailable": Unavailable,
    "failed": SandboxError,
}


def verdict_of(fault: CrankError) -> Verdict:
    """Return the word for a fault."""
    return next((verdict for verdict, kind in _FAULTS.items() if isinstance(fault, kind)), "failed")


def fault_of(verdict: str, code: str | None, message: str | None) -> CrankError:
    """Return the fault that a word and its code tell of; one that is no fault of the caller may pass."""
    known = {word: kind for word, kind in _FAULTS.items() if word != "failed"}
    kind: type[CrankError] = known.get(verdict, Unavailable)  # type: ignore[call-overload]
    return kind(message or "The worker could not do this.", code=code)

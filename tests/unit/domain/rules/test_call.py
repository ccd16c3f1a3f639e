"""Calls: a fault keeps its kind, its code and its sentence on the way over the link."""

import pytest

from crank import errors
from crank.domain.rules.call import fault_of, verdict_of
from crank.errors import CrankError, SandboxError, Unavailable

TOLD = [
    errors.InvalidRequest, errors.NotSupported, errors.NotFound, errors.Conflict, errors.TooLarge, errors.Unavailable,
]  # fmt: skip


@pytest.mark.parametrize("kind", TOLD)
def test_a_fault_comes_back_as_what_it_was(kind: type[CrankError]) -> None:
    """The caller's own faults, and what may pass, cross unchanged."""
    fault = fault_of(verdict_of(kind("Why.")), "a_code", "Why.")
    assert (type(fault), fault.error_code, fault.message) == (kind, "a_code", "Why.")


@pytest.mark.parametrize("kind", [SandboxError, CrankError, errors.ProtocolError])
def test_the_workers_own_faults_may_pass(kind: type[CrankError]) -> None:
    """What went wrong in a worker is nobody's request's fault: it is told as unavailable, with its code."""
    fault = fault_of(verdict_of(kind("Why.")), "a_code", None)
    assert (type(fault), fault.error_code) == (Unavailable, "a_code")

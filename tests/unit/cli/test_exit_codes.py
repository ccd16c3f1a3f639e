"""Exit codes are a promise to scripts."""

import pytest

from crank import errors
from crank.cli.exit_codes import MEANINGS, ExitCode, of_fault, of_status
from crank.domain.job import Status
from crank.errors import CrankError


def test_numbers_never_change() -> None:
    """These numbers are documented; changing one breaks scripts."""
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0, "JOB_FAILED": 1, "USAGE": 2, "CONFIGURATION": 3, "NOT_ALLOWED": 4, "NOT_FOUND": 5,
        "UNAVAILABLE": 6, "TIMED_OUT": 7, "CONFLICT": 8, "LOST": 9, "DEFECT": 70, "INTERRUPTED": 130,
    }  # fmt: skip
    assert set(MEANINGS) == set(ExitCode)


@pytest.mark.parametrize(
    "status", [status for status in Status if status.value in {"failed", "timed_out", "cancelled", "refused", "lost"}]
)
def test_every_bad_end_is_told(status: Status) -> None:
    """A job that did not succeed never gives exit code 0."""
    assert of_status(status) is not ExitCode.OK


def test_every_fault_has_an_exit_code() -> None:
    """No kind of fault that a user can meet counts as a defect of Crank."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CrankError)]
    for kind in kinds:
        if kind not in (CrankError, errors.CapabilityError):  # a root, and one that only a job raises
            assert of_fault(kind("x")) is not ExitCode.DEFECT, kind


def test_a_refusal_is_a_lack_of_workers() -> None:
    """A request that no worker can run exits 6, not 2: the request itself was in order."""
    assert of_fault(errors.InvalidRequest("x", code="unsatisfied-capability")) is ExitCode.UNAVAILABLE

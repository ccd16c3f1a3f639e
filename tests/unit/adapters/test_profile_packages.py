"""Explaining pip's failures, and refusing what must not be in a profile."""

from pathlib import Path

import pytest

from crank.adapters.profile_store import packages
from crank.errors import ProfileError


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("WARNING: Retrying: NewConnectionError('Failed to establish a new connection')", "cannot be reached"),
        ("socket.gaierror: [Errno -3] Temporary failure in name resolution", "cannot be reached"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no configured package source"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "not the one that was locked"),
        ("/x/bin/python: No module named pip", "has no pip"),
        ("ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED]", "not trusted"),
        ("something new", "pip failed"),
    ],
)
def test_pips_failures_have_a_cause_and_a_fix(line: str, cause: str) -> None:
    """Each usual failure is told in our words, with what to do about it."""
    told, fix = packages.explain(["Collecting torch==2.13.0", line])
    assert cause in told
    assert fix


def test_being_offline_wins_over_its_consequence() -> None:
    """pip ends with 'no matching distribution' when it is offline; the cause is told, not the symptom."""
    cause, _fix = packages.explain(["NewConnectionError", "ERROR: No matching distribution found for six"])
    assert "cannot be reached" in cause


def _torch(rootfs: Path, version_file: str) -> Path:
    place = rootfs / "opt" / "site" / "torch"
    place.mkdir(parents=True)
    (place / "version.py").write_text(version_file, encoding="utf-8")
    return rootfs


@pytest.mark.parametrize(
    ("text", "accelerator", "right"),
    [
        ("cuda: Optional[str] = None\n", "cpu", True),
        ("cuda = None\n", "cpu", True),
        ("cuda: Optional[str] = '13.0'\n", "cpu", False),
        ("cuda: Optional[str] = '13.0'\n", "gpu", True),
        ("cuda: Optional[str] = None\n", "gpu", False),
        ("debug = False\n", "cpu", False),
    ],
)
def test_torch_must_be_built_for_the_accelerator(tmp_path: Path, text: str, accelerator: str, right: bool) -> None:
    """The build is read from torch's own version file; one that does not say is refused."""
    rootfs = _torch(tmp_path, f"debug = False\n{text}hip = None\n")
    if right:
        packages.check_torch(rootfs, accelerator)
        return
    with pytest.raises(ProfileError) as caught:
        packages.check_torch(rootfs, accelerator)
    assert caught.value.error_code == "wrong_torch_build"


def test_a_profile_without_torch_needs_no_proof(tmp_path: Path) -> None:
    """Nothing is asked of a root that has no torch."""
    packages.check_torch(tmp_path, "cpu")


def test_a_program_moves_and_leaves_a_link(tmp_path: Path) -> None:
    """The program lies once, on the path, and its package still finds it."""
    carried = tmp_path / "opt" / "site" / "carrier" / "files" / "tool"
    carried.parent.mkdir(parents=True)
    carried.write_bytes(b"\x7fELF tool")
    (tmp_path / "opt" / "site" / "docs").mkdir()
    (tmp_path / "opt" / "site" / "docs" / "tool").write_text("about the tool", encoding="utf-8")
    packages.place_programs(tmp_path, ["tool"])
    assert (tmp_path / "usr" / "bin" / "tool").read_bytes() == b"\x7fELF tool"
    assert carried.readlink() == Path("../../../../usr/bin/tool")
    assert carried.read_bytes() == b"\x7fELF tool"


def test_a_program_that_nothing_carries_is_refused(tmp_path: Path) -> None:
    """A profile cannot promise a program that its packages do not bring."""
    (tmp_path / "opt" / "site").mkdir(parents=True)
    with pytest.raises(ProfileError, match="0 programs named 'tool'"):
        packages.place_programs(tmp_path, ["tool"])

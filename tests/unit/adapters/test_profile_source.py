"""Reading profiles and locks: what is accepted, what is refused, what a digest stands for."""

import dataclasses
from pathlib import Path

import pytest

from crank.adapters.profile_store import source
from crank.errors import InvalidRequest, NotFound, ProfileError
from tests.support.profiles import PROFILES, TinyProfiles

HASH = "--hash=sha256:" + "0" * 64


@pytest.fixture
def tiny(tmp_path: Path) -> TinyProfiles:
    """Return an empty folder of tiny profiles."""
    return TinyProfiles(tmp_path)


def test_a_lock_maps_names_to_versions() -> None:
    """Continued lines, comments and spelling of names are read as pip reads them."""
    text = f"# made by a tool\nTyping_Extensions==4.1 \\\n    {HASH} \\\n    {HASH}\n    # via x\nsix==1.0 {HASH}\n"
    assert source.parse_lock(text, origin="x.txt") == {"typing-extensions": "4.1", "six": "1.0"}


@pytest.mark.parametrize(
    "line",
    [
        "six==1.0",
        f"six>=1.0 {HASH}",
        f"--index-url https://index.example {HASH}",
        f"six @ https://files.example/six.whl {HASH}",
        f"./six.whl {HASH}",
        f"six==1.0 ; python_version>'3' {HASH}",
        "six==1.0 --hash=md5:00",
        f"six==1.0 {HASH}\nsix==1.1 {HASH}",
    ],
)
def test_a_lock_can_only_pin_with_hashes(line: str) -> None:
    """No option, address, path, marker, range, weak hash or second version gets through."""
    with pytest.raises(ProfileError):
        source.parse_lock(line, origin="x.txt")


def test_an_unknown_profile_is_not_found(tiny: TinyProfiles) -> None:
    """The refusal names the profiles that there are."""
    tiny.profile("tiny", f"six==1.0 {HASH}")
    with pytest.raises(NotFound) as caught:
        source.read_profile(tiny.source, "huge")
    assert caught.value.error_code == "unknown_profile"
    assert "tiny" in caught.value.fix


def test_a_profile_name_cannot_leave_the_folder(tiny: TinyProfiles) -> None:
    """A name with a path in it is refused before any file is looked at."""
    with pytest.raises(InvalidRequest):
        source.read_profile(tiny.source, "../tiny")


def test_a_file_must_carry_its_own_name(tiny: TinyProfiles) -> None:
    """A copied profile that still has the old name is a mistake, not an alias."""
    tiny.profile("tiny", f"six==1.0 {HASH}")
    (tiny.source / "tiny.toml").rename(tiny.source / "other.toml")
    with pytest.raises(ProfileError, match="its name is 'tiny'"):
        source.read_profile(tiny.source, "other")


def test_what_is_not_toml_is_a_profile_error(tiny: TinyProfiles) -> None:
    """The fault names the file and the place."""
    (tiny.source / "tiny.toml").write_bytes(b"name = \xff")
    with pytest.raises(ProfileError, match=r"tiny\.toml is not TOML"):
        source.read_profile(tiny.source, "tiny")


@pytest.mark.parametrize("promise", ["numpy", "six==2.0"])
def test_a_promise_must_be_locked(tiny: TinyProfiles, promise: str) -> None:
    """A package that the lock lacks, or has in another version, cannot be promised."""
    tiny.profile("tiny", f"six==1.0 {HASH}", packages=[promise])
    profile = source.read_profile(tiny.source, "tiny")
    with pytest.raises(ProfileError, match="promises"):
        source.read_lock(tiny.source, profile, "cpu")


@pytest.mark.parametrize("name", ["nvidia-cublas", "triton", "cuda_bindings"])
def test_a_cpu_lock_holds_nothing_of_cuda(tiny: TinyProfiles, name: str) -> None:
    """The mistake is found before gigabytes are fetched."""
    tiny.profile("tiny", f"{name}==1.0 {HASH}")
    with pytest.raises(ProfileError) as caught:
        source.read_lock(tiny.source, source.read_profile(tiny.source, "tiny"), "cpu")
    assert caught.value.error_code == "cuda_in_cpu_lock"


def test_a_variant_that_is_not_there_is_named(tiny: TinyProfiles) -> None:
    """Asking for gpu where only cpu is locked says which variants there are."""
    tiny.profile("tiny", f"six==1.0 {HASH}")
    with pytest.raises(ProfileError) as caught:
        source.read_lock(tiny.source, source.read_profile(tiny.source, "tiny"), "gpu")
    assert (caught.value.error_code, caught.value.fix) == ("unknown_variant", "Use one of: cpu.")


def test_a_limit_changes_the_promise_and_not_the_content(tiny: TinyProfiles) -> None:
    """Another limit gives another digest without another installation."""
    tiny.profile("tiny", f"six==1.0 {HASH}")
    profile = source.read_profile(tiny.source, "tiny")
    lock = source.read_lock(tiny.source, profile, "cpu")
    wider = dataclasses.replace(profile, limits=dataclasses.replace(profile.limits, processes=65))
    contents = [source.content_digest(one, lock, accelerator="cpu", interpreter="a") for one in (profile, wider)]
    assert contents[0] == contents[1]
    assert source.promise_digest(profile, contents[0]) != source.promise_digest(wider, contents[0])


def test_lock_accelerator_and_interpreter_change_the_content(tiny: TinyProfiles) -> None:
    """Whatever decides what lies in the root is part of its name."""
    tiny.profile("tiny", f"six==1.0 {HASH}")
    profile = source.read_profile(tiny.source, "tiny")
    lock = source.read_lock(tiny.source, profile, "cpu")
    other_lock = dataclasses.replace(lock, content=lock.content + b"\n")
    digests = {
        source.content_digest(profile, lock, accelerator="cpu", interpreter="a"),
        source.content_digest(profile, other_lock, accelerator="cpu", interpreter="a"),
        source.content_digest(profile, lock, accelerator="gpu", interpreter="a"),
        source.content_digest(profile, lock, accelerator="cpu", interpreter="b"),
    }
    assert len(digests) == 4


def test_the_projects_own_profiles_and_locks_agree() -> None:
    """Every profile of the project reads, promises what its locks hold, tests itself, and names no source."""
    names = source.profile_names(PROFILES)
    assert names == ("python-core", "python-docs", "python-interpreter", "python-ml")
    for name in names:
        profile = source.read_profile(PROFILES, name)
        assert profile.self_tests
        for accelerator in profile.locks:
            lock = source.read_lock(PROFILES, profile, accelerator)
            assert b"://" not in lock.content
            assert accelerator == "gpu" or set(lock.pins) == {
                source.normalised(package.partition("==")[0]) for package in profile.packages
            }
    assert source.read_profile(PROFILES, "python-core").programs == ()


def test_the_cpu_torch_is_locked_by_one_hash() -> None:
    """One version and one wheel: no other build of torch can satisfy the lock."""
    text = (PROFILES / "locks" / "python-ml.cpu.txt").read_text(encoding="utf-8")
    block = text[text.index("torch==2.13.0") :]
    assert block.count("--hash=sha256:") == 1

"""The store of builds without building: what it finds, keeps and refuses."""

import errno
import json
import os
from pathlib import Path

import pytest

from crank.adapters.profile_store import interpreter, source, store
from crank.domain.ids import Digest
from crank.errors import ProfileError
from tests.support.profiles import TinyProfiles

HASH = "--hash=sha256:" + "0" * 64


@pytest.fixture
def tiny(tmp_path: Path) -> TinyProfiles:
    """Return one tiny profile that was never built."""
    made = TinyProfiles(tmp_path)
    made.profile("tiny", f"six==1.0 {HASH}\n")
    return made


def test_nothing_is_found_before_it_is_built(tiny: TinyProfiles) -> None:
    """Looking makes nothing, not even the folder."""
    assert tiny.store().names() == ("tiny",)
    assert tiny.store().find("tiny", "cpu") is None
    assert tiny.store().remove("tiny", "cpu") is False
    assert not tiny.builds.exists()


@pytest.mark.parametrize("record", ["", "{", json.dumps({"digest": "0" * 64})])
def test_a_build_with_a_wrong_record_is_no_build(tiny: TinyProfiles, record: str) -> None:
    """A record that is cut short, or of other content, is not believed."""
    looking = tiny.store()
    profile = looking.load("tiny")
    lock = source.read_lock(tiny.source, profile, "cpu")
    folder = looking._folder("tiny-cpu", looking._content(profile, lock, "cpu"))
    folder.mkdir(parents=True)
    (folder / store.RECORD).write_text(record, encoding="utf-8")
    assert looking.find("tiny", "cpu") is None


def test_another_python_is_refused(tiny: TinyProfiles) -> None:
    """A profile for a Python that this machine does not run says so."""
    path = tiny.source / "tiny.toml"
    path.write_text(path.read_text(encoding="utf-8").replace('"3.11"', '"3.99"'), encoding="utf-8")
    with pytest.raises(ProfileError, match=r"needs Python 3\.99"):
        tiny.store().find("tiny", "cpu")


def test_an_interpreter_that_does_not_run_is_named(tmp_path: Path) -> None:
    """A missing interpreter is a fault with a fix, not a traceback."""
    with pytest.raises(ProfileError) as caught:
        interpreter.ask(tmp_path / "python-gone")
    assert caught.value.error_code == "no_interpreter"


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    """The operating system's refusal becomes a code, a cause and a fix."""
    with pytest.raises(ProfileError) as caught, store._disk_faults(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.error_code == "disk_full"


def test_a_folder_that_cannot_be_made_is_told(tiny: TinyProfiles) -> None:
    """A file where the folder of builds should be is a fault with a fix."""
    tiny.builds.write_text("in the way", encoding="utf-8")
    with pytest.raises(ProfileError) as caught:
        tiny.store().build("tiny", "cpu", lambda _line: None)
    assert caught.value.error_code == "build_failed"


def test_old_builds_are_forgotten_but_for_one(tiny: TinyProfiles) -> None:
    """The build before the newest stays, because a running node may use it; older ones go."""
    keeping = tiny.store()
    for age, name in enumerate(("aaaa", "bbbb", "cccc", "dddd")):
        record = tiny.builds / f"tiny-cpu-{name}000000000000" / store.RECORD
        record.parent.mkdir(parents=True)
        record.write_text("{}", encoding="utf-8")
        os.utime(record, (1_000 - age, 1_000 - age))
    keeping._forget_old("tiny-cpu", Digest("cccc" + "0" * 60))
    assert sorted(path.name[9:13] for path in tiny.builds.iterdir()) == ["aaaa", "cccc"]


def test_a_build_killed_half_way_is_swept(tiny: TinyProfiles) -> None:
    """What a killed build left behind goes with the next one of the same variant, and no other."""
    for name in ("tiny-cpu.making-x", "tiny-gpu.making-y"):
        (tiny.builds / name).mkdir(parents=True)
    tiny.store()._sweep("tiny-cpu")
    assert [path.name for path in tiny.builds.iterdir()] == ["tiny-gpu.making-y"]

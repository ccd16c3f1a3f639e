"""A job's folders on the host's disk: measured in small steps, and removed whatever the job made of them."""

import os
from pathlib import Path

import pytest

from crank.sandbox import yard


def _deep(folder: Path, depth: int, name: str = "x" * 50) -> None:
    """Make a path that is far longer than one call takes."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def _measured(folder: Path, most: int = 100_000) -> yard.Usage:
    opened = os.open(folder, os.O_RDONLY)
    try:
        meter = yard.Meter(opened)
        meter.step(limit_sec=60.0, most=most)
        return meter.usage
    finally:
        os.close(opened)


def test_every_promised_place_is_made(tmp_path: Path) -> None:
    """A yard has a private folder for each place and a link for each mount, and nobody else may enter."""
    path = Path(yard.make(str(tmp_path), {"papers": "/usr/share"}))
    assert path.stat().st_mode & 0o777 == 0o700
    assert {place: Path(real).is_dir() for place, real in yard.places(str(path)).items()} == dict.fromkeys(
        ("/scratch", "/out", "/tmp", "/dev/shm", "/in"), True
    )
    assert os.readlink(path / "in" / "papers") == "/usr/share"


def test_bytes_and_files_are_counted(tmp_path: Path) -> None:
    """What lies in folders of folders counts; a link counts as itself, and a sparse file as what it takes."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "big").write_bytes(os.urandom(100_000))
    (tmp_path / "link").symlink_to("/usr")
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    usage = _measured(tmp_path)
    assert usage.inodes == 5
    assert 100_000 <= usage.size_bytes < 200_000


def test_counting_stops_at_the_limit(tmp_path: Path) -> None:
    """No more is looked at than it takes to know that there is too much."""
    for number in range(50):
        (tmp_path / str(number)).touch()
    assert _measured(tmp_path, most=10).inodes == 11


def test_a_step_ends_in_time_and_the_next_goes_on(tmp_path: Path) -> None:
    """A round that takes many steps comes to the same as one, and what was found counts before it ends."""
    for number in range(30):
        (tmp_path / str(number)).mkdir()
    opened = os.open(tmp_path, os.O_RDONLY)
    meter = yard.Meter(opened)
    for _ in range(100):
        meter.step(limit_sec=0.00001, most=1_000)
    os.close(opened)
    assert meter.usage.inodes == 30


@pytest.mark.parametrize("depth", [3, 500])
def test_depth_is_no_hiding_place(tmp_path: Path, depth: int) -> None:
    """Folders deeper than any path can say are counted and removed like others."""
    folder = tmp_path / "yard"
    folder.mkdir()
    _deep(folder, depth)
    assert _measured(folder).inodes == depth + 1
    assert yard.remove(str(folder))
    assert not folder.exists()


def test_closed_folders_are_counted_and_removed(tmp_path: Path) -> None:
    """A folder that its maker closed to itself is opened again by its owner."""
    folder = tmp_path / "yard"
    (folder / "closed" / "inner").mkdir(parents=True)
    (folder / "closed" / "inner" / "file").touch()
    (folder / "closed" / "inner").chmod(0)
    (folder / "closed").chmod(0)
    assert _measured(folder).inodes == 3
    assert yard.remove(str(folder))


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    """What a link points at stays."""
    kept, folder = tmp_path / "kept", tmp_path / "yard"
    kept.mkdir()
    (kept / "file").touch()
    folder.mkdir()
    (folder / "link").symlink_to(kept)
    assert yard.remove(str(folder))
    assert (kept / "file").exists()


def test_what_takes_long_is_left_to_the_keeper(tmp_path: Path) -> None:
    """Removing goes on where it stopped, under a name that tells that nobody uses it any more."""
    folder = tmp_path / "job-1"
    folder.mkdir()
    _deep(folder, 200)
    assert not yard.remove(str(folder), limit_sec=0.0)
    folder.rename(tmp_path / "gone-job-1")
    for _ in range(1_000):
        if yard.remove_let_go(str(tmp_path), limit_sec=0.005):
            break
    assert list(tmp_path.iterdir()) == []

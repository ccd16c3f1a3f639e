"""Root keys are taken away from the node whole, or stay where they are."""

import errno
import os

import pytest

from crank.adapters.authority import FileAuthority, root_keys_in
from crank.adapters.authority.files import new_key, write_key
from crank.adapters.authority.offline import move_root_keys
from crank.adapters.clock import SystemIdSource
from crank.adapters.failpoints import NoFailpoints
from crank.domain.trust import RotationStep
from crank.errors import ConfigurationError, Conflict, CrankError, InvalidRequest, NotFound
from crank.testing.contracts_authority import DOMAIN
from crank.testing.fakes import FakeClock, FakeFailpoints


class Crash(Exception):
    """The process ends here."""


@pytest.fixture
def home(tmp_path):
    """Give the home of a node that has started once."""
    started(tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def usb(tmp_path):
    """Give a folder that stands for a medium."""
    (tmp_path / "usb").mkdir()
    return tmp_path / "usb"


def started(home):
    """Start the authority of a node, or start it again."""
    authority = FileAuthority(home / "authority", trust_domain=DOMAIN, clock=FakeClock(), ids=SystemIdSource())
    authority.ensure()
    return authority


def move(home, place, *, failpoints=None, device_of=lambda path: hash(path.name), same_disk=False):
    """Move the keys; each folder is a medium of its own unless a test says otherwise."""
    return move_root_keys(
        home / "authority",
        place,
        home=home,
        same_disk=same_disk,
        failpoints=failpoints or NoFailpoints(),
        device_of=device_of,
    )


def refused(kind: type[CrankError], code, home, place, **more):
    """Make sure of a refusal that leaves the keys as they were and nothing behind; return it."""
    keys = {path: path.read_bytes() for path in root_keys_in(home / "authority")}
    there = {path: path.lstat().st_ino for path in place.glob("**/*")} if place.is_dir() else {}
    with pytest.raises(kind) as caught:
        move(home, place, **more)
    assert caught.value.error_code == code
    assert caught.value.fix
    assert {path: path.read_bytes() for path in root_keys_in(home / "authority")} == keys
    assert ({path: path.lstat().st_ino for path in place.glob("**/*")} if place.is_dir() else {}) == there
    return caught.value


def test_each_root_key_is_moved_and_fits_its_root(home, usb):
    """Two roots during a change: two files, named by domain and mark, for their owner alone; the node goes on as it was."""
    before = started(home).turn_root(RotationStep.PREPARE)
    keys = {path.read_bytes() for path in root_keys_in(home / "authority")}
    moved, offline = move(home, usb)
    assert offline
    assert {each.mark for each in moved} == {before.current, before.other}
    assert {each.target.name for each in moved} == {f"crank-root-{DOMAIN}-{each.mark}.pem" for each in moved}
    assert {path.read_bytes() for path in usb.iterdir()} == keys
    assert {path.stat().st_mode & 0o777 for path in usb.iterdir()} == {0o600}
    assert root_keys_in(home / "authority") == ()
    again = started(home)
    assert again.turn_root(RotationStep.ACTIVATE, force=True).current == before.other
    assert move(home, usb) == ((), True)


def test_the_original_is_overwritten_before_it_goes(home, usb, tmp_path):
    """Another name of the same file shows what is left on the disk: nothing of the key."""
    (key,) = root_keys_in(home / "authority")
    os.link(key, tmp_path / "block")
    octets = key.read_bytes()
    move(home, usb)
    assert (tmp_path / "block").read_bytes() == bytes(len(octets))


@pytest.mark.parametrize("moment", ["root_key.copied", "root_key.overwritten"])
def test_a_repeat_after_a_crash_finishes(home, usb, moment):
    """Whether the copy is made and the original still whole, or only its name is left: the second time is the last."""
    (key,) = root_keys_in(home / "authority")
    octets = key.read_bytes()
    failpoints = FakeFailpoints()
    failpoints.raise_at(moment, Crash())
    with pytest.raises(Crash):
        move(home, usb, failpoints=failpoints)
    assert key.exists()
    move(home, usb)
    assert not key.exists()
    (copy,) = usb.iterdir()
    assert copy.read_bytes() == octets


def test_a_copy_that_was_cut_off_is_made_anew(home, usb):
    """Half a key under the name of before is no key; the whole one takes its place."""
    mark = started(home).status().rotation.current
    (usb / f".crank-root-{DOMAIN}-{mark}.pem.new").write_bytes(b"-----BEGIN")
    move(home, usb)
    assert [path.name for path in usb.iterdir()] == [f"crank-root-{DOMAIN}-{mark}.pem"]


def test_a_medium_that_is_full_leaves_the_key_and_no_half(home, usb, monkeypatch):
    """What could not be written whole is taken away again."""
    (key,) = root_keys_in(home / "authority")
    octets = key.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        move(home, usb)
    assert key.read_bytes() == octets
    assert list(usb.iterdir()) == []


def test_a_medium_that_reads_back_something_else_ends_nothing(home, usb, monkeypatch):
    """The original is whole until the copy is proved."""
    (key,) = root_keys_in(home / "authority")
    octets = key.read_bytes()
    monkeypatch.setattr(
        "crank.adapters.authority.offline.sync", lambda folder: [path.write_bytes(b"x") for path in folder.iterdir()]
    )
    with pytest.raises(ConfigurationError) as caught:
        move(home, usb)
    assert caught.value.error_code == "root_key_copy_bad"
    assert key.read_bytes() == octets


def test_where_others_could_read_it_no_copy_stays(home, usb, monkeypatch):
    """A file system without permissions shows each file to everybody; the key does not stay there."""
    (key,) = root_keys_in(home / "authority")

    def cannot(descriptor, mode):
        os.chmod(descriptor, 0o644)
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", cannot)
    refused(ConfigurationError, "root_key_readable", home, usb)
    assert key.exists()


def test_the_same_file_system_takes_a_word_more(home, usb):
    """A folder beside the node is not offline, and what is done all the same says so."""
    refused(InvalidRequest, "root_key_same_disk", home, usb, device_of=lambda path: 1)
    moved, offline = move(home, usb, device_of=lambda path: 1, same_disk=True)
    assert (len(moved), offline) == (1, False)


@pytest.mark.parametrize("name", ["home", "home/authority/offline", "link", "absent", "file"])
def test_a_place_that_is_none_is_refused(home, tmp_path, name):
    """Inside the home, also by a link that leads there; absent; no folder."""
    (tmp_path / "link").symlink_to(home / "authority")
    (tmp_path / "file").touch()
    refused(InvalidRequest, "root_key_folder_unusable", home, tmp_path / name, same_disk=True)


@pytest.mark.parametrize("taken", ["another", "link", "same"])
def test_a_file_of_that_name_is_not_replaced(home, usb, tmp_path, taken):
    """Another content, a link, even one to a copy, and the very original under another name are all left alone."""
    (key,) = root_keys_in(home / "authority")
    target = usb / f"crank-root-{DOMAIN}-{started(home).status().rotation.current}.pem"
    if taken == "another":
        target.write_bytes(b"precious")
    elif taken == "link":
        (tmp_path / "copy").write_bytes(key.read_bytes())
        target.symlink_to(tmp_path / "copy")
    else:
        os.link(key, target)
    refused(Conflict, "root_key_file_taken", home, usb)


def test_one_of_two_that_cannot_be_moved_keeps_both(home, usb):
    """All are looked at before any is touched."""
    rotation = started(home).turn_root(RotationStep.PREPARE)
    (usb / f"crank-root-{DOMAIN}-{rotation.current}.pem").write_bytes(b"precious")
    refused(Conflict, "root_key_file_taken", home, usb)


def test_a_key_that_fits_no_root_is_named(home, usb):
    """A stranger's key, or that of a root which went: nothing is moved before somebody looks."""
    write_key(home / "authority" / "offline" / "root-key-000000000000.pem", new_key())
    found = refused(Conflict, "root_key_stray", home, usb)
    assert "root-key-000000000000.pem" in found.fix


def test_a_root_that_is_not_finished_keeps_its_key(home, usb):
    """While a root is being made its key may be written anew under the same name."""
    mark = started(home).status().rotation.current
    (home / "authority" / mark / "authority.pem").unlink()
    refused(Conflict, "root_key_stray", home, usb)


def test_a_certificate_that_was_swapped_is_seen(home, usb):
    """The key must be that of the certificate beside it, not only of its folder's name."""
    rotation = started(home).turn_root(RotationStep.PREPARE)
    folder = home / "authority"
    (folder / rotation.current / "root.pem").write_bytes((folder / str(rotation.other) / "root.pem").read_bytes())
    refused(ConfigurationError, "identity_damaged", home, usb)


def test_a_key_that_others_may_read_or_that_is_noise_is_told(home, usb):
    """As everywhere, with the file's name."""
    (key,) = root_keys_in(home / "authority")
    key.chmod(0o644)
    assert "chmod 600" in str(refused(ConfigurationError, "identity_damaged", home, usb).fix)
    key.chmod(0o600)
    key.write_bytes(b"noise")
    refused(ConfigurationError, "identity_damaged", home, usb)


def test_a_home_without_a_node_is_told_of(tmp_path, usb):
    """Nobody believes that a key was taken away which lies in another home."""
    refused(NotFound, "authority_missing", tmp_path, usb)

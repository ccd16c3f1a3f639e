"""Which folders a worker is shown, and who owns them afterwards."""

import os
from pathlib import Path

import pytest

from crank.bootstrap import confinement
from crank.config import Settings, load
from crank.sandbox.confine import View

ACCOUNT = 199_998

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Give settings whose worker has an identity."""
    found = load(environment={"CRANK_HOME": str(tmp_path / "home")})
    found.identity_dir.mkdir(parents=True)
    for name in ("key.pem", "cert.pem", "ca.pem"):
        (found.identity_dir / name).write_text(name)
        (found.identity_dir / name).chmod(0o600)
    return found


@needs_root
def test_own_folders_are_given_and_nothing_else(settings: Settings) -> None:
    """The spool belongs to the account; the key only it may read; the folder and the certificates stay the controller's."""
    spool = confinement.spool_dir(settings)
    (spool / "scratch").mkdir(parents=True)
    (spool / "scratch" / "old").write_text("of a worker that ran as root")
    confinement.give_folders(settings, ACCOUNT)
    confinement.give_folders(settings, ACCOUNT)
    owners = {path: path.stat().st_uid for path in (spool, spool / "scratch", spool / "scratch" / "old")}
    assert set(owners.values()) == {ACCOUNT}
    identity = settings.identity_dir
    assert (identity.stat().st_uid, identity.stat().st_gid, identity.stat().st_mode & 0o777) == (0, ACCOUNT, 0o750)
    key = (identity / "key.pem").stat()
    assert (key.st_uid, key.st_mode & 0o777) == (ACCOUNT, 0o600)
    assert (identity / "cert.pem").stat().st_uid == 0
    assert settings.home.stat().st_uid == 0


@needs_root
def test_traps_in_the_spool_give_nothing_away(settings: Settings, tmp_path: Path) -> None:
    """A link is given itself and not what it leads to; a file with a second name is left as it is."""
    spool = confinement.spool_dir(settings)
    spool.mkdir(parents=True)
    secret, folder = tmp_path / "secret", tmp_path / "folder"
    secret.write_text("root's")
    folder.mkdir()
    (folder / "inside").write_text("root's")
    (spool / "link").symlink_to(secret)
    (spool / "way").symlink_to(folder)
    os.link(secret, spool / "second-name")
    confinement.give_folders(settings, ACCOUNT)
    assert {path.stat().st_uid for path in (secret, folder, folder / "inside")} == {0}


def test_without_an_account_nothing_changes_hands(settings: Settings) -> None:
    """An ordinary user's worker keeps its folders as they are; only the spool is made."""
    confinement.give_folders(settings, None)
    assert confinement.spool_dir(settings).stat().st_uid == os.geteuid()
    assert (settings.identity_dir / "key.pem").stat().st_mode & 0o777 == 0o600


def test_a_worker_sees_no_folder_of_the_controller(settings: Settings) -> None:
    """Nothing that is shown holds the home, and of the home only identity and spool are named."""
    view = confinement.worker_view(settings)
    of_home = {path for path in (*view.readable, *view.writable) if settings.home in (path, *path.parents)}
    assert of_home == {settings.identity_dir, confinement.spool_dir(settings)}
    assert settings.home in view.hidden
    assert (view.ports, view.network) == ((), False)
    assert not view.programs


def test_a_module_brings_its_folder(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies beside an author's module is shown with it; the home beside it is hidden."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "confined_tools.py").touch()
    monkeypatch.syspath_prepend(str(project))
    view = confinement.module_view(settings, "confined_tools:app")
    assert project in view.readable
    assert view.hidden == (settings.home,)


def test_a_module_in_the_owners_home_comes_alone(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that lies in the home itself is shown, and not the keys and letters beside it."""
    (tmp_path / "lonely_tools.py").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    view = confinement.module_view(settings, "lonely_tools:app")
    assert tmp_path not in view.readable
    assert tmp_path / "lonely_tools.py" in view.readable
    assert tmp_path in view.listed


def test_the_home_is_hidden_under_every_name(settings: Settings, tmp_path: Path) -> None:
    """A home inside a shown folder is hidden there too, whichever links name the folder or the home."""
    (tmp_path / "other-name").symlink_to(tmp_path)
    linked = tmp_path / "other-name" / "home"
    view = View((tmp_path / "other-name", tmp_path), hidden=(linked,))
    assert set(confinement._under_every_name(view)) == {linked, settings.home}


def test_a_home_that_is_not_there_needs_no_hiding(tmp_path: Path) -> None:
    """What does not exist yet is not covered: a cover would need a place that cannot be made."""
    assert confinement._under_every_name(View((tmp_path,), hidden=(tmp_path / "none",))) == ()

"""What a worker's walls are made of, before they are raised."""

import os
from pathlib import Path

import pytest

from crank.errors import SandboxError
from crank.sandbox import confine, landlock, namespaces
from crank.sandbox.confine import Abilities, View, account_id, told

_WHOLE = "         0          0 4294967295\n"


def test_the_account_is_nobody_elses() -> None:
    """The worker's id lies beside the range that jobs take theirs from, on a host and in a container."""
    for id_map in (_WHOLE, "0 100000 65536\n", "0 1000 1\n1 100000 400000\n"):
        account = account_id(id_map, id_map)
        base = namespaces.slot_base(id_map)
        assert account > 0
        assert not base <= account < base + 1_000


def test_an_id_that_groups_do_not_have_is_not_taken() -> None:
    """User and group carry one number, so it must exist as both; else it is said what is missing."""
    with pytest.raises(SandboxError) as caught:
        account_id(_WHOLE, "0 0 1000\n")
    assert caught.value.error_code == "layer_identity"


def test_missing_layers_say_what_to_do() -> None:
    """Without privilege, namespaces and Landlock each missing layer names a way to get it; none claims to hold."""
    layers = {layer.name: layer for layer in told(View(()), Abilities(None, namespaces=False, landlock=0))}
    held = {name for name, layer in layers.items() if layer.holds}
    assert held == {"capabilities", "syscalls"}
    assert all(layers[name].fix for name in set(layers) - held)


@pytest.mark.parametrize(("version", "held"), [(3, 1), (4, 2), (5, 2), (6, 3), (7, 3)], ids=str)
def test_landlock_promises_what_its_version_knows(version: int, held: int) -> None:
    """Files from version 1, TCP from version 4, signals and abstract sockets from version 6."""
    layers = told(View((), ports=(7444,)), Abilities(1, namespaces=True, landlock=version))
    assert sum(layer.holds for layer in layers if layer.name.startswith("landlock")) == held


def test_what_is_hidden_is_left_out_of_the_rules(tmp_path: Path) -> None:
    """A folder that holds the node's home is granted entry by entry around it, the home in no rule."""
    home = tmp_path / "deep" / "home"
    (home / "controller").mkdir(parents=True)
    (tmp_path / "tools.py").touch()
    (tmp_path / "deep" / "more").mkdir()
    view = View((tmp_path,), hidden=(home,))
    rules = dict(confine._rules(view, Abilities(None, namespaces=False, landlock=7)))
    granted = {path for path, rights in rules.items() if path.startswith(str(tmp_path)) and rights & landlock.READ_FILE}
    assert granted == {str(tmp_path / "tools.py"), str(tmp_path / "deep" / "more")}


def test_programs_and_devices_are_not_granted(tmp_path: Path) -> None:
    """Nothing may be started unless asked for, and what may be written can hold no program, device or socket."""
    view = View((tmp_path,), writable=(tmp_path / "spool",))
    for path, rights in confine._rules(view, Abilities(None, namespaces=False, landlock=7)):
        assert not rights & (landlock.EXECUTE | landlock.MAKE_NODES | landlock.IOCTL_DEV), path


@pytest.mark.parametrize(("mode", "private"), [(0o755, False), (0o700, True), (0o750, True), (0o751, True)], ids=oct)
def test_private_folders_are_seen(tmp_path: Path, mode: int, private: bool) -> None:
    """A folder that others may not read is found, so that it can be shown as the account's own."""
    folder = tmp_path / "code"
    folder.mkdir()
    folder.chmod(mode)
    assert confine._is_private(folder, os.geteuid() + 1) is private
    assert confine._is_private(folder, os.geteuid()) is False

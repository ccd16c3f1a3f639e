"""`crank identity root-key move`: done on the node's own files, and said plainly."""

import json

import pytest

from crank.adapters.authority import FileAuthority
from crank.adapters.clock import SystemClock, SystemIdSource
from crank.cli import authority as cli_authority
from crank.cli import main
from crank.cli.exit_codes import ExitCode
from crank.config import load


@pytest.fixture
def authority(tmp_path, monkeypatch):
    """Give the authority of a node in this user's home; the node does not run."""
    monkeypatch.setenv("CRANK_HOME", str(tmp_path / "home"))
    settings = load()
    made = FileAuthority(
        settings.authority_dir, trust_domain=settings.trust_domain, clock=SystemClock(), ids=SystemIdSource()
    )
    made.ensure()
    (tmp_path / "away").mkdir()
    return made


def crank(*words):
    """Run a command of this family."""
    return main.main(["identity", "root-key", *words])


def test_what_is_not_offline_is_called_so(authority, tmp_path, capsys):
    """A folder on the node's own file system is refused, and named for what it is where it was insisted on."""
    away = tmp_path / "away"
    assert crank("move", str(away)) == ExitCode.USAGE
    told = capsys.readouterr()
    assert "root_key_same_disk" in told.err
    assert "--same-disk" in told.err
    assert crank("move", str(away), "--same-disk") == ExitCode.OK
    told = capsys.readouterr()
    (copy,) = away.iterdir()
    assert told.out == f"{copy}\n"
    assert "this is not offline" in told.err
    assert authority.status().root_keys == ()
    assert crank("move", str(away), "--same-disk") == ExitCode.OK
    assert "no root key lies beside the node" in capsys.readouterr().err


def test_a_change_of_root_reminds_of_keys_that_lie_there(capsys):
    """Each step goes on, and says with what command they are taken offline."""
    found = {
        "trust_domain": "d", "sequence": 1, "leaf_ttl_sec": 60, "phase": "prepared", "drained_at": None,
        "certificates": [], "root_keys": ["/home/old.pem", "/home/new.pem"], "unaware": [],
    }  # fmt: skip
    assert cli_authority._tell(found, as_json=False) == ExitCode.OK
    told = capsys.readouterr().err
    assert told.count("crank identity root-key move DIR") == 2
    assert "/home/old.pem" in told


def test_programs_read_what_was_moved(authority, tmp_path, capsys):
    """Root, from where and where to; whether it is on another file system."""
    mark = authority.status().rotation.current
    (key,) = authority.status().root_keys
    assert crank("move", str(tmp_path / "away"), "--same-disk", "--json") == ExitCode.OK
    target = tmp_path / "away" / f"crank-root-crank.internal-{mark}.pem"
    moved = [{"root": mark, "from": key, "to": str(target)}]
    assert json.loads(capsys.readouterr().out) == {"moved": moved, "offline": False}

"""The bundle for Claude Desktop says what the project says, is the same twice, and finds or misses Crank clearly."""

import importlib.util
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from crank import __version__
from crank.api.mcp.tools import TOOLS
from tests.judges.test_mcpb import builder
from tests.support.node import REPO

SERVER = REPO / "tools" / "mcpb" / "server.py"


def test_the_manifest_is_made_of_the_projects_facts() -> None:
    """Name, version, description and licence are those of pyproject.toml; tools are those that are served."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    made = builder().manifest()
    assert {name: made[name] for name in ("name", "version", "description", "license")} == {
        name: project[name] for name in ("name", "version", "description", "license")
    }
    assert made["version"] == __version__
    assert [tool["name"] for tool in made["tools"]] == list(TOOLS)


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    """Nothing of the machine or the moment is in the bundle, and no file but the three."""
    first, second = builder().build(tmp_path / "a"), builder().build(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as bundle:
        assert bundle.namelist() == ["manifest.json", "server/main.py", "LICENSE"]


def started(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start the bundle's program as a host does, with a home that has no Crank."""
    given = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", **environment}
    return subprocess.run([sys.executable, SERVER], env=given, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("unset", ["", "${user_config.crank_command}"])
def test_a_missing_crank_is_told(tmp_path: Path, unset: str) -> None:
    """The host's log says what is missing; nothing is written where the protocol is."""
    done = started(tmp_path, CRANK_COMMAND=unset)
    assert (done.returncode, done.stdout) == (3, "")
    assert "install it" in done.stderr


def test_crank_is_found_where_the_person_says_or_where_it_is(tmp_path: Path) -> None:
    """The program becomes the command with the one word mcp, and hands the home on only where one was set."""
    command = tmp_path / ".local" / "bin" / "crank"
    command.parent.mkdir(parents=True)
    command.write_text('#!/bin/sh\necho "$0 $* home=$CRANK_HOME"\n')
    command.chmod(0o755)
    assert started(tmp_path, CRANK_HOME="${user_config.crank_home}").stdout == f"{command} mcp home=\n"
    other = tmp_path / "other"
    os.link(command, other)
    assert started(tmp_path, CRANK_COMMAND=str(other), CRANK_HOME="/h").stdout == f"{other} mcp home=/h\n"


def test_it_needs_no_newer_python_than_it_says() -> None:
    """The program compiles under the oldest syntax that the manifest allows."""
    import ast

    ast.parse(SERVER.read_text(), feature_version=(3, 8))
    assert importlib.util.find_spec("crank") is not None

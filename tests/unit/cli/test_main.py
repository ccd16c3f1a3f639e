"""The tree of commands: what it says of itself, and how it fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crank.cli.exit_codes import ExitCode
from crank.cli.main import _GROUPS, _VERBS, main

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "cli-help.txt"


def commands() -> list[list[str]]:
    """List every command that people see."""
    singles = [[name] for name, _, _ in _VERBS]
    return [[], *singles, *([group, verb] for group, _, verbs in _GROUPS for verb, _, _ in verbs)]


def test_help_is_as_promised_golden(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option and its help stands in a file, so that no change of the command line goes unseen."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")
    text = ""
    for command in commands():
        assert main([*command, "--help"]) == ExitCode.OK
        text += f"$ crank {' '.join([*command, '--help'])}\n{capsys.readouterr().out}\n"
    lines = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    if os.environ.get("CRANK_TEST_GOLDEN") == "write":
        GOLDEN.write_text(lines)
    assert lines == GOLDEN.read_text()


def test_help_loads_no_command() -> None:
    """`crank --help` answers at once because it loads neither the node nor HTTP."""
    script = (
        "import sys; from crank.cli.main import main; main(['--help']);"
        "print([name for name in sys.modules if name.startswith(('crank.bootstrap', 'fastapi', 'httpx2'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("tokens", "hint"),
    [(["rum"], "'run'"), (["job", "lst"], "'list'"), (["zzz"], "Known:"), (["profile", "biuld"], "'build'")],
)
def test_an_unknown_command_is_usage(tokens: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A slip of the pen gets exit code 2 and the command that was meant."""
    assert main(tokens) == ExitCode.USAGE
    assert hint in capsys.readouterr().err


def test_a_usage_error_is_json_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json even a wrong option is one object on stdout."""
    assert main(["up", "--api-port", "x", "--json"]) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["code"] == "usage"


def test_all_configuration_mistakes_come_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken configuration exits 3 and lists every mistake, whatever the command."""
    (tmp_path / "crank.toml").write_text('api_prt = 1\nbind = ""\n')
    monkeypatch.setenv("CRANK_HOME", str(tmp_path))
    monkeypatch.setenv("CRANK_WORKER_SLOTS", "0")
    assert main(["node", "info", "--json"]) == ExitCode.CONFIGURATION
    problems = json.loads(capsys.readouterr().out)["error"]["problems"]
    assert {problem["field"] for problem in problems} == {
        "crank.toml: api_prt",
        "crank.toml: bind",
        "CRANK_WORKER_SLOTS",
    }


def test_no_node_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands that need a running node say so, and how to start one."""
    monkeypatch.setenv("CRANK_HOME", str(tmp_path))
    for command in (["down"], ["node", "info"], ["job", "list"], ["mount", "list"]):
        assert main(command) == ExitCode.NOT_FOUND
        assert "crank up" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is printed alone, for people and as JSON."""
    assert main(["version", "--json"]) == ExitCode.OK
    assert set(json.loads(capsys.readouterr().out)) == {"version", "python"}

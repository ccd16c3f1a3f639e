"""The page on zero trust: every control, test and command that it points at is there."""

import re
from pathlib import Path

import pytest

from crank.cli.main import _GROUPS, _VERBS, main

REPO = Path(__file__).resolve().parents[1]
PAGE = REPO / "docs" / "explanation" / "zero-trust.md"
QUOTED = re.findall(r"`([^`\n]+)`", PAGE.read_text("utf-8"))
PATHS = sorted({text for text in QUOTED if re.match(r"(src|tests|docs|features|benchmarks|profiles|tools)/", text)})
COMMANDS = sorted({text for text in QUOTED if text.startswith("crank ")})
TENETS = 7


def test_every_tenet_has_a_control_a_test_and_evidence() -> None:
    """Each of the seven sections holds a table whose rows name a source, a test and a command."""
    sections = re.findall(r"^## (\d)\. [^\n]+\n(.*?)(?=^## )", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert [int(number) for number, _ in sections] == list(range(1, TENETS + 1))
    for number, text in sections:
        rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and "Control" not in line]
        assert rows, number
        for control, test, evidence in rows:
            assert "`src/" in control, (number, control)
            assert "`tests/" in test, (number, test)
            assert "`crank " in evidence, (number, evidence)


@pytest.mark.parametrize("named", PATHS)
def test_what_it_names_exists(named: str) -> None:
    """A path is a file or folder of this tree, and a test that is named stands in its file."""
    path, _, test = named.partition("::")
    assert (REPO / path).exists()
    if test:
        assert re.search(rf"^(async )?def {re.escape(test)}\(", (REPO / path).read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A verb is one of the command line, and an option that is named is one of that verb."""
    words = command.split()[1:]
    verb = [word for word in words if not word.startswith("-")]
    known = {(name,) for name, _, _ in _VERBS} | {(group, name) for group, _, verbs in _GROUPS for name, _, _ in verbs}
    assert tuple(verb) in known
    assert main([*verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"{re.escape(word)}\b", shown) for word in words if word.startswith("-") and word != "--help")

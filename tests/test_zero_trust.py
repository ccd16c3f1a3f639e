"""The page on zero trust: every control and test that it points at is there, and every command shows what it says."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from crank.cli.main import _GROUPS, _VERBS, main
from tests.support.node import Node, running_node, until

REPO = Path(__file__).resolve().parents[1]
PAGE = REPO / "docs" / "explanation" / "zero-trust.md"
QUOTED = re.findall(r"`([^`\n]+)`", PAGE.read_text("utf-8"))
PATHS = sorted({text for text in QUOTED if re.match(r"(src|tests|docs|features|benchmarks|profiles|tools)/", text)})
COMMANDS = sorted({text for text in QUOTED if text.startswith("crank ")})
EVIDENCE = sorted(set(re.findall(r"\| `(crank [^`\n]+)` \|$", PAGE.read_text("utf-8"), re.MULTILINE)))
TENETS = 7
# They tell of other machines and domains: with one node there is a heading and nothing under it.
OF_OTHERS = {"crank federation list", "crank node list"}
# It goes on until it is told to stop.
WITHOUT_END = {"crank identity fetch --dir FOLDER --watch"}
HEADING = re.compile(r"[A-Z -]+")
_NUMBERS = count(1)


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
            assert evidence.strip("` |") in EVIDENCE, (number, evidence)


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
    words = [word for word in command.split()[1:] if not word.isupper()]
    verb = [word for word in words if not word.startswith("-")]
    known = {(name,) for name, _, _ in _VERBS} | {(group, name) for group, _, verbs in _GROUPS for name, _, _ in verbs}
    assert tuple(verb) in known
    assert main([*verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"{re.escape(word)}\b", shown) for word in words if word.startswith("-"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give a node on which something was registered, lent and minted."""
    home = tmp_path_factory.mktemp("zero-trust") / "home"
    with running_node(home) as started:
        (home.parent / "papers").mkdir()
        _said(started, "mount", "add", "papers", str(home.parent / "papers"))
        _said(started, "workload", "add", "agent/seen", "--selector", f"unix:uid:{os.geteuid()}")
        _said(started, "token", "mint")
        yield started


def _said(node: Node, *argv: str) -> str:
    done = node.crank(*argv)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def words(node: Node, tmp_path: Path) -> dict[str, Callable[[], str]]:
    """Give what a reader puts for each word in capitals: anew for each command, because some end what they name."""

    def biscuit() -> str:
        own = tmp_path / "key.pem"
        key = ec.generate_private_key(ec.SECP256R1())
        own.touch(0o600)
        own.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return _said(node, "token", "mint", "--biscuit", "--key", str(own))

    def key() -> str:
        name = f"reader-{next(_NUMBERS)}"
        _said(node, "key", "mint", name, "--capability", "document.convert")
        return name

    def serial() -> str:
        _said(node, "identity", "fetch", "--dir", str(tmp_path / "id"))
        issued = json.loads(_said(node, "identity", "list", "--json"))["identities"]
        return next(str(one["serial"]) for one in issued if one["kind"] == "agent")

    return {
        "BISCUIT": biscuit,
        "CAPABILITY": lambda: "document.convert",
        "FOLDER": lambda: str(tmp_path / "watched"),
        "JOB": lambda: str(node.client().submit({"code": "1"}, Prefer="wait=30").json()["job_id"]),
        "KEY": key,
        "PROFILE": lambda: "python-core",
        "SCHEMA": lambda: '{"properties": {"pages": {"maximum": 9}}}',
        "SERIAL": serial,
        "STEP": lambda: "prepare",
        "TOKEN": lambda: _said(node, "token", "mint"),
    }


@pytest.mark.system
@pytest.mark.xdist_group("zero-trust")
@pytest.mark.parametrize("command", EVIDENCE)
def test_its_evidence_is_shown_by_a_node(command: str, node: Node, words: dict[str, Callable[[], str]]) -> None:
    """Each command under Evidence, its words in capitals filled in, ends well on a node and prints more than a heading."""
    argv = [words[word]() if word.isupper() else word for word in command.split()[1:]]
    if command in WITHOUT_END:
        going = node.begin([sys.executable, "-m", "crank", *argv])
        until(node.said, what=f"a word of {command}")
        assert going.poll() is None
        node.end(going)
        assert "error" not in node.said()
        return
    done = node.crank(*argv)
    assert done.returncode == 0, done.stderr
    told = (done.stdout + done.stderr).strip()
    assert told
    assert "Usage: " not in told
    assert bool(HEADING.fullmatch(told)) == (command in OF_OTHERS), told

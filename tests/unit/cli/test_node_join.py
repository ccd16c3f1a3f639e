"""The command line of joining: what is pasted is taken whole or refused, and what is printed can be pasted."""

import io
import shlex
from pathlib import Path
from typing import Any

import pytest

from crank.bootstrap.joining import JoinWanted
from crank.cli import node_invite, node_join
from crank.client import Node
from crank.client.nodes import parse_node
from crank.config import load
from crank.errors import InvalidRequest

ROOT = "a" * 64
GOOD: dict[str, Any] = {
    "controller": "https://10.0.0.5:7443", "workers": "10.0.0.5:7444", "roots": (f"sha256:{ROOT}",), "token": "crank_join_x",
}  # fmt: skip


def test_a_whole_command_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its token from the line or from stdin, or without one."""
    expected = JoinWanted("https://10.0.0.5:7443", "10.0.0.5:7444", (ROOT,), "crank_join_x")  # type: ignore[arg-type]
    assert node_join._wanted(**GOOD) == expected
    monkeypatch.setattr("sys.stdin", io.StringIO("crank_join_x\n"))
    assert node_join._wanted(**{**GOOD, "token": "-"}) == expected
    without = node_join._wanted(**{**GOOD, "token": None})
    assert without is not None
    assert without.token is None
    assert "crank_join_x" not in repr(expected)
    assert node_join._wanted(None, None, (), None) is None
    assert node_join._wanted(**{**GOOD, "controller": "https://[2001:db8::1]:7443", "workers": "[2001:db8::1]:7444"})


@pytest.mark.parametrize(
    "changed",
    [
        {"controller": "http://10.0.0.5:7443"}, {"controller": "https://10.0.0.5"}, {"controller": "https://a b:1"},
        {"controller": "https://10.0.0.5:7443/x"}, {"controller": "https://u@h:1"}, {"workers": None}, {"workers": "h"},
        {"workers": "https://h:1"}, {"roots": ()}, {"roots": (ROOT,) * 5}, {"roots": ("sha256:abc",)}, {"controller": None},
    ],
)  # fmt: skip
def test_half_a_command_is_refused(changed: dict[str, Any]) -> None:
    """Before anything is made or asked."""
    with pytest.raises(InvalidRequest):
        node_join._wanted(**{**GOOD, **changed})


@pytest.mark.parametrize("text", ["", "\n", "x" * 300])
def test_no_token_on_stdin_is_told(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """An empty or endless input is no token."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    with pytest.raises(InvalidRequest):
        node_join._wanted(**{**GOOD, "token": "-"})


@pytest.mark.parametrize(
    ("bind", "names", "address", "shown"),
    [
        ("10.0.0.5", "", None, "10.0.0.5"),
        ("10.0.0.5", "box.example", "nat.example", "nat.example"),
        ("0.0.0.0", "box.example,other", None, "box.example"),
        ("2001:db8::1", "", None, "[2001:db8::1]"),
        ("127.0.0.1", "", None, "127.0.0.1"),
    ],
)
def test_what_is_printed_can_be_pasted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bind: str, names: str, address: str | None, shown: str
) -> None:
    """It names where the other machine reaches this one, and keeps the token out of the arguments."""
    settings = load({"home": tmp_path}, environment={"CRANK_BIND": bind, "CRANK_API_NAMES": names})
    monkeypatch.setattr(node_invite, "load", lambda: settings)
    info = {"api": "https://127.0.0.1:7443", "workers_api": "wss://127.0.0.1:7444"}
    monkeypatch.setattr(node_invite, "node_info", lambda _: info)
    node = Node("box-1", "box", "none", connected=False, forgotten=False, roots=(f"sha256:{ROOT}",), token="crank_join_x")
    _, command = node_invite._command(node, address)
    echoed, _, join = command.partition(" | ")
    assert echoed == "echo crank_join_x"
    words = shlex.split(join)
    assert words[:4] == ["crank", "node", "join", f"https://{shown}:7443"]
    assert words[4:] == ["--workers", f"{shown}:7444", "--root", f"sha256:{ROOT}", "--token", "-"]


def test_a_token_is_not_in_what_is_shown_of_a_node() -> None:
    """Neither in its document nor in how it is written."""
    body = {"node_id": "b-1", "name": "b", "attestation": "none", "connected": False, "forgotten_at": None, "token": "secret"}
    node = parse_node(body)
    assert node.token == "secret"
    assert "secret" not in f"{node!r}{node.document}"

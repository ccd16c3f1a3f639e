"""How attempts to break a sandbox are judged: only an error that a wall gives counts as held."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from crank.sandbox import guest_trial, trial

_CLEAN = {
    "capabilities": [],
    "no_new_privs": True,
    "filtered": True,
    "ids": [1000],
    "environment": {"HOME": "/scratch"},
    "descriptors": [0, 1, 2, 4],
}


def test_what_every_wall_refused_holds() -> None:
    """Attempts are told by group, with what refused them."""
    (group,) = trial._attempts([["files", "reading a", "ENOENT", True], ["files", "writing b", "EROFS", True]])
    assert (group.name, group.broken) == ("files", ())
    assert "reading a" in group.text
    assert "ENOENT, EROFS" in group.text


@pytest.mark.parametrize("answer", ["it was allowed", "EINVAL", "ECONNREFUSED"])
def test_anything_else_does_not_hold(answer: str) -> None:
    """Success, and errors that come from behind a wall, are told as broken, each with what was tried."""
    (group,) = trial._attempts([["network", "a socket", answer, False]])
    assert group.broken == (f"a socket: {answer}",)


@pytest.mark.parametrize(
    ("fact", "value", "told"),
    [
        ("capabilities", ["CapEff"], "CapEff"),
        ("no_new_privs", False, "gain privilege"),
        ("filtered", False, "no system call filter"),
        ("ids", [0, 1000], "as root"),
        ("environment", {"SECRET": "x"}, "SECRET"),
        ("descriptors", [0, 1, 2, 4, 9], "9"),
    ],
)
def test_each_fact_is_judged(fact: str, value: object, told: str) -> None:
    """One wrong fact about the job's own process is one sentence; without any there is none."""
    assert trial._identity(dict(_CLEAN), {"HOME"}).broken == ()
    (sentence,) = trial._identity({**_CLEAN, fact: value}, {"HOME"}).broken
    assert told in sentence


def test_outside_a_sandbox_the_same_attempts_succeed(tmp_path: Path) -> None:
    """The attempts are real: an ordinary process reads the canary and reaches the listener, and is judged broken."""
    canary = tmp_path / "canary"
    canary.write_text("found")
    program = Path(guest_trial.__file__).read_text(encoding="utf-8") + (
        "\nimport json, sys\nhost = json.loads(sys.argv[1])\n"
        "wanted = {'a socket of the family IPv4', \"a listener on this host's loopback\", 'reading ' + host['canary']}\n"
        "attempts = (each for kind in (_network, _files) for each in kind(host) if each[1] in wanted)\n"
        "print(json.dumps(list(_try(attempts))))\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        facts = {"port": listener.getsockname()[1], "canary": str(canary), "site": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-I", "-c", program, json.dumps(facts)],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        listener.setblocking(False)
        listener.accept()[0].close()
    groups = {group.name: group for group in trial._attempts(json.loads(done.stdout))}
    assert len(groups["network"].broken) == 2
    assert groups["files"].broken == (f"reading {canary}: it was allowed",)

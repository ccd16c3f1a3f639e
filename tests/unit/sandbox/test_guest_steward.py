"""What programs in an E2B sandbox print: all of it reaches who asked, whoever carries it and whenever."""

import base64
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crank.sandbox import guest_steward
from crank.sandbox.guest_cells import Cell
from crank.sandbox.guest_processes import Process
from crank.sandbox.guest_steward import Steward

HELD_BYTES_MAX = 100_000


@pytest.fixture
def line() -> Iterator[tuple[Steward, socket.socket]]:
    """A steward that is driven by hand, and our end of its line."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    child = signal.getsignal(signal.SIGCHLD)
    try:
        yield Steward(theirs), ours
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, child)
        ours.close()
        theirs.close()


def start(steward: Steward, script: str, folder: Path) -> Process:
    """Start a command whose output is asked for as request 1."""
    steward.do_start({"id": 1, "process": {"cmd": "/bin/sh", "args": ["-c", script], "cwd": str(folder)}})
    return next(iter(steward._processes.values()))


def carry(steward: Steward, ours: socket.socket) -> list[dict[str, Any]]:
    """Attach, and carry until the command is over; return every word."""
    ours.sendall(b'{"op":"attach"}\n')
    ours.setblocking(False)
    said = b""
    while steward._processes or steward._out:
        steward._turn()
        try:
            said += ours.recv(1 << 20)
        except BlockingIOError:
            continue
    return [json.loads(each) for each in said.splitlines()]


def printed(words: list[dict[str, Any]]) -> bytes:
    """Return what was printed; a long word comes in parts."""
    parts = "".join(word["part"] for word in words if "part" in word)
    whole = [word for word in words if "part" not in word] + ([json.loads(parts)] if parts else [])
    data = [word["event"]["data"]["stdout"] for word in whole if "data" in word.get("event", {})]
    return b"".join(base64.b64decode(each) for each in data)


def end(steward: Steward, process: Process) -> None:
    """Let it end, and let the time pass in which its pipes might still be written to."""
    while process.status is None:
        steward._turn()
    assert process.ended_at is not None
    process.ended_at -= 60


def test_the_last_words_wait_for_room(
    line: tuple[Steward, socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that ends while nobody carries is not over before all that lies in its pipes is taken."""
    steward, ours = line
    monkeypatch.setattr(guest_steward, "_HELD_BYTES_MAX", HELD_BYTES_MAX)
    steward._say(9, event={"text": "b" * HELD_BYTES_MAX})
    process = start(steward, "head -c 60000 /dev/zero | tr '\\0' a", tmp_path)
    end(steward, process)
    steward._turn()
    assert process.outputs
    assert printed(carry(steward, ours)) == b"a" * 60_000


def test_who_writes_on_holds_nobody_up(line: tuple[Steward, socket.socket], tmp_path: Path) -> None:
    """A program left behind that writes without end keeps the command's pipe open; the command is over nevertheless."""
    steward, ours = line
    process = start(steward, "(echo y; : > begun; exec yes) & until [ -e begun ]; do :; done", tmp_path)
    try:
        end(steward, process)
        assert printed(carry(steward, ours)).startswith(b"y\n")
    finally:
        process.send(signal.SIGKILL)


def test_a_character_in_two_pieces_is_one(tmp_path: Path) -> None:
    """What a context prints is text: a character that lies across two reads is not torn."""
    cell = Cell("default-bash", "bash", str(tmp_path), {"PATH": "/usr/bin:/bin"})
    cell.start([])
    try:
        os.write(cell.orders, b"printf '\\303'; printf '\\251\\n'; printf '\\303'; exit 0\0")
        texts, deadline = "", time.monotonic() + 30
        while cell.outputs and time.monotonic() < deadline:
            for number in list(cell.outputs):
                event = cell.read(number, 1)
                texts += event["text"] if event else ""
        assert texts == "é\n�"
    finally:
        cell.kill()
        cell.close()

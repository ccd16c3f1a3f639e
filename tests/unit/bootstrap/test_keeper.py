"""When a dead process is started again, and what must be whole on disk."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from crank.bootstrap import leash
from crank.bootstrap.files import held_lock, is_locked, make_home, node_id, read_json, write_whole
from crank.bootstrap.keeper import DELAY_MAX_SEC, DELAY_MIN_SEC, SOUND_AFTER_SEC, next_delay_sec
from crank.bootstrap.leash import Child, fault_document, parse_fault
from crank.config import Settings, load
from crank.errors import ConfigurationError, Conflict, Problem, SandboxError, StoreError, Unavailable


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Give settings whose home is made."""
    found = load(environment={"CRANK_HOME": str(tmp_path / "home")})
    make_home(found)
    return found


def test_restarts_back_off_and_recover() -> None:
    """A process that keeps dying is started ever more slowly; one that ran well begins anew."""
    delays, previous = [], None
    for _ in range(12):
        previous = next_delay_sec(previous, 0.1)
        delays.append(previous)
    assert delays[0] == DELAY_MIN_SEC
    assert delays == sorted(delays)
    assert delays[-1] == DELAY_MAX_SEC
    assert next_delay_sec(DELAY_MAX_SEC, SOUND_AFTER_SEC) == DELAY_MIN_SEC


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    """A file is replaced at once, with its mode, and nothing is left beside it."""
    path = tmp_path / "secret"
    write_whole(path, b"one", mode=0o600)
    write_whole(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["secret"]


def test_half_a_node_file_is_no_node(tmp_path: Path) -> None:
    """What is missing or broken reads as absent, never as a fault."""
    broken = tmp_path / "node.json"
    assert read_json(broken) is None
    broken.write_text('{"api": ')
    assert read_json(broken) is None
    broken.write_text("[1]")
    assert read_json(broken) is None


def test_the_home_is_private(settings: Settings) -> None:
    """Nobody else can look into a node's home."""
    assert settings.home.stat().st_mode & 0o077 == 0
    assert settings.controller_dir.stat().st_mode & 0o077 == 0


def test_a_node_keeps_its_name(settings: Settings) -> None:
    """The name is made once."""
    assert node_id(settings) == node_id(settings)


def test_two_nodes_cannot_share_a_home(settings: Settings) -> None:
    """The second one is refused, and the lock is free again when the first is gone."""
    with held_lock(settings):
        assert is_locked(settings)
        with pytest.raises(Conflict), held_lock(settings):
            pass
    assert not is_locked(settings)


def test_a_killed_node_leaves_no_lock(settings: Settings) -> None:
    """The kernel frees the lock of a process that was killed; a stale file stops nobody."""
    script = (
        "import sys, time; from crank.config import load; from crank.bootstrap.files import held_lock\n"
        "with held_lock(load()):\n    print('held', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "CRANK_HOME": str(settings.home)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert is_locked(settings)
        process.kill()
    assert not is_locked(settings)


@pytest.mark.parametrize("kind", [ConfigurationError, StoreError, SandboxError, Unavailable])
def test_a_fault_crosses_processes(kind: type) -> None:
    """What kept a process from starting reaches the person who started the node, unchanged."""
    fault = kind("It broke.", code="broken", fix="Mend it.")
    again = parse_fault(json.loads(json.dumps(fault_document(fault))))
    assert type(again) is kind
    assert (again.message, again.error_code, again.fix) == ("It broke.", "broken", "Mend it.")


def test_every_problem_crosses_processes() -> None:
    """A list of mistakes stays a list of mistakes."""
    fault = ConfigurationError("Two.", problems=[Problem("a", "b", "c"), Problem("d", "e", "f")])
    assert parse_fault(fault_document(fault)).problems == fault.problems


async def test_a_child_rings_for_as_long_as_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it says after its first line rings, also what came with that or is no line at all; its end ends the listening alone."""
    monkeypatch.setattr(leash, "BELL_PAUSE_SEC", 0.0)
    program = """
import socket, sys
end = socket.socket(fileno=int(sys.argv[1]))
end.sendall(b'{"ready": 1}\\n{"said": 1}\\n')
end.recv(1)
end.sendall(b'\\0\\xff{')
end.recv(1)
"""
    mine, its = socket.socketpair()
    process = subprocess.Popen([sys.executable, "-c", program, str(its.fileno())], pass_fds=(its.fileno(),), start_new_session=True)
    its.close()
    child = Child("test", process, mine)
    rung = asyncio.Semaphore(0)
    async with asyncio.timeout(30):
        assert await child.ready(20, bell=rung.release) == {"ready": 1}
        await rung.acquire()
        mine.send(b"x")
        await rung.acquire()
        mine.send(b"x")
        assert child._hearing is not None
        await child._hearing
        assert rung.locked()
        await child.stop(10)


async def test_a_child_that_says_more_than_anybody_hears_is_made_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that writes without end rings once until the pause is over, and what it says piles up nowhere."""
    monkeypatch.setattr(leash, "BELL_PAUSE_SEC", 3600.0)
    mine, its = socket.socketpair()
    with its, subprocess.Popen([sys.executable, "-c", ""], start_new_session=True) as process:
        child = Child("test", process, mine)
        rung: list[None] = []
        its.sendall(b'{"ready": 1}\n{"more": 1}\n')
        its.setblocking(False)
        async with asyncio.timeout(30):
            await child.ready(20, bell=lambda: rung.append(None))
            sent_bytes = 0
            for _ in range(2_000):
                with contextlib.suppress(BlockingIOError):
                    sent_bytes += its.send(b"{}\n" * 10_000)
                await asyncio.sleep(0)
            assert len(rung) == 1
            assert 0 < sent_bytes < 8 * leash.LINE_BYTES_MAX
            await child.stop(10)

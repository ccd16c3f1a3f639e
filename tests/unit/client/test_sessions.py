"""A session from a program and from the command line: real HTTPS, real use cases, a scripted sandbox."""

import asyncio
import fcntl
import io
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from crank.client import AsyncClient, Client, ClientOptions
from crank.errors import Conflict, NotFound
from crank.testing.fake_sandbox import ScriptedRun
from tests.support.desk import SECRET, open_desk
from tests.support.listeners import open_listeners
from tests.support.pair import Pair, paired, until

SCRIPT = {
    "20 + 22": ScriptedRun(has_result=True, result=42),
    "print('hi')\n": ScriptedRun(output=(("stdout", "hi\n"),)),
    "forever": ScriptedRun(output=(("stdout", "begun\n"),), end=None),
    "echo": ScriptedRun(echoes_stdin=True),
}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[tuple[ClientOptions, Pair]]:
    """Give a served desk with a worker beside it, and how to reach it."""
    (tmp_path / "token").write_text(SECRET)
    async with open_desk(tmp_path) as desk, paired(desk, SCRIPT) as pair, open_listeners(desk, tmp_path) as listeners:
        api = f"https://127.0.0.1:{listeners.api_port}"
        yield ClientOptions(api, str(listeners.authority.ca_file), str(tmp_path / "token")), pair


async def test_a_session_is_a_block(node: tuple[ClientOptions, Pair]) -> None:
    """Inside the block code shares one sandbox and files come and go; after it the session has ended."""
    options, pair = node
    async with AsyncClient(options) as client:
        async with client.session(profile="python-core", name="nb", idle_sec=60) as session:
            assert (session.state.state, session.state.name, session.state.clocks["idle_sec"]) == ("open", "nb", 60)
            assert (await session.run("20 + 22")).result == 42
            job = await session.run("20 + 22", context="other")
            assert (job.session_id, job.context) == (session.session_id, "other")
            await session.put("in/a b.txt", "ü")
            assert [one.path for one in await session.files("in")] == ["in/a b.txt"]
            assert await session.get("in/a b.txt") == "ü".encode()
            target = io.BytesIO()
            await session.download("in/a b.txt", target)
            assert target.getvalue() == "ü".encode()
            await session.remove("in")
            with pytest.raises(NotFound):
                await session.get("in/a b.txt")
            assert (await session.touch(lifetime_sec=100)).clocks["lifetime_sec"] == 100
        assert session.state.end is not None
        assert session.state.end["reason"] == "closed"
        with pytest.raises(Conflict, match="closed"):
            await session.run("20 + 22")
        assert [state.session_id for state in await client.sessions()] == [session.session_id]
    assert [code for _, code in pair.sandbox.history] == ["20 + 22", "20 + 22"]


async def test_what_runs_is_interrupted_and_written_to(node: tuple[ClientOptions, Pair]) -> None:
    """interrupt reaches what runs and says when nothing does; stdin goes to the job that was submitted for it."""
    options, _ = node
    async with AsyncClient(options) as client, client.session() as session:
        assert await session.interrupt() is False
        running = asyncio.ensure_future(session.run("forever"))
        await until(session.interrupt)
        assert (await running).end is not None
        body = await client.prepare("echo", session=session.session_id, stdin=True)
        job = await client.submit(body)

        async def begun() -> bool:
            return (await client.get(job.job_id)).status == "running"

        await until(begun)
        for _ in range(2):
            assert await client.write_stdin(job.job_id, "one ", offset_bytes=0) == 4
        assert await client.write_stdin(job.job_id, b"two", end=True) == 7
        assert (await client.wait(job.job_id)).stdout == "one two"
        with pytest.raises(Conflict):
            await client.interrupt(job.job_id)


async def test_the_synchronous_client_has_sessions_too(node: tuple[ClientOptions, Pair]) -> None:
    """The same block in ordinary code."""
    options, _ = node

    def work() -> str:
        with Client(options) as client:
            with client.session(idle_sec=60) as session:
                assert session.run("20 + 22").result == 42
                session.put("a.txt", b"x")
                assert [one.path for one in session.files()] == ["a.txt"]
                assert session.get("a.txt") == b"x"
                session.remove("a.txt")
                assert session.interrupt() is False
                assert session.touch().state == session.refresh().state == "open"
                again = client.session()
                assert again.attach(session.session_id).name is None
            assert client.sessions()[0].ended
            return session.session_id

    assert await asyncio.to_thread(work)


async def crank(home: Path, *words: str, stdin: bytes = b"") -> tuple[int, str]:
    """Run the command and return its exit code and stdout."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "crank", *words, env={**os.environ, "CRANK_HOME": str(home)},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(stdin), 60)
    assert process.returncode is not None
    return process.returncode, out.decode()


def pretend_home(folder: Path, options: ClientOptions) -> int:
    """Make a home in which the served desk is the running node; return the lock's descriptor."""
    (folder / "run").mkdir(parents=True)
    document: dict[str, Any] = {"api": options.api, "ca_file": options.ca_file, "token_file": options.token_file}
    (folder / "run" / "node.json").write_text(json.dumps({**document, "pid": os.getpid()}))
    lock = os.open(folder / "run" / "node.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


async def test_sessions_on_the_command_line(node: tuple[ClientOptions, Pair], tmp_path: Path) -> None:
    """open, run, files, show, list and close do what they say; ids and data alone go to stdout."""
    options, pair = node
    home = tmp_path / "home"
    lock = pretend_home(home, options)
    try:
        code, out = await crank(home, "session", "open", "--name", "nb", "--idle-sec", "90", "--memory", "64MiB")
        session_id = out.strip()
        assert (code, pair.sandbox.spec.limits.memory_bytes) == (0, 64 << 20)
        assert await crank(home, "session", "run", session_id, "-", stdin=b"print('hi')\n") == (0, "hi\n")
        code, _ = await crank(home, "run", "-", "--session", session_id, "--context", "other", stdin=b"20 + 22")
        assert (code, pair.sandbox.history[-1]) == (0, ("other", "20 + 22"))
        (tmp_path / "a.txt").write_text("hello")
        assert await crank(home, "session", "files", session_id, "in/a.txt", "--put", str(tmp_path / "a.txt")) == (
            0,
            "",
        )
        assert await crank(home, "session", "files", session_id) == (0, "       0 B  in/\n")
        assert await crank(home, "session", "files", session_id, "in/a.txt", "--get", "-") == (0, "hello")
        assert (await crank(home, "session", "files", session_id, "in/a.txt", "--get", str(tmp_path / "out")))[0] == 0
        assert (tmp_path / "out" / "in" / "a.txt").read_text() == "hello"
        assert await crank(home, "session", "files", session_id, "in", "--remove") == (0, "")
        code, out = await crank(home, "session", "show", session_id)
        assert (code, "nb" in out, "idle" in out) == (0, True, True)
        code, out = await crank(home, "session", "close", session_id, "--json")
        assert (code, json.loads(out)["end"]["reason"]) == (0, "closed")
        code, out = await crank(home, "session", "list")
        assert (code, session_id in out, "closed" in out) == (0, True, True)
        assert (await crank(home, "session", "run", session_id, "-", stdin=b"20 + 22"))[0] == 8
        assert (await crank(home, "session", "files", session_id, "--remove"))[0] == 2
    finally:
        os.close(lock)


async def test_a_job_is_interrupted_on_the_command_line(node: tuple[ClientOptions, Pair], tmp_path: Path) -> None:
    """crank job interrupt reaches a running job."""
    options, _ = node
    lock = pretend_home(tmp_path / "home", options)
    try:
        async with AsyncClient(options) as client:
            job = await client.submit(await client.prepare("forever"))

            async def begun() -> bool:
                return (await client.get(job.job_id)).status == "running"

            await until(begun)
            assert (await crank(tmp_path / "home", "job", "interrupt", job.job_id))[0] == 0
            ended = await client.wait(job.job_id)
            assert ended.end is not None
            assert ended.end.message == "KeyboardInterrupt"
    finally:
        os.close(lock)

"""Starts a host's command as the host would, and lists its tools: the proof that a connection works."""

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crank.config import host_environment
from crank.errors import Unavailable

LIST_SEC = 90.0
LEAVE_SEC = 10.0
LINE_BYTES_MAX = 4 * 1024 * 1024
_TOLD_CHARS_MAX = 300
PROTOCOL = "2025-06-18"


def list_tools(command: Sequence[str], environment: Mapping[str, str]) -> Sequence[str]:
    """Return the names of the tools that the command offers. Raises Unavailable (`tools_not_listed`)."""
    return asyncio.run(_list(command, environment))


async def _list(command: Sequence[str], environment: Mapping[str, str]) -> Sequence[str]:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=host_environment(environment),
            cwd=Path.home(),
            limit=LINE_BYTES_MAX,
        )
    except OSError as fault:
        raise _not_listed(f"{command[0]} cannot be started: {fault.strerror}") from fault
    assert process.stderr is not None, "piped"
    talk = asyncio.ensure_future(process.stderr.read(LINE_BYTES_MAX))
    try:
        async with asyncio.timeout(LIST_SEC):
            return await _ask(process)
    except (TimeoutError, ValueError, KeyError, TypeError, OSError, EOFError) as fault:
        await _end(process)
        said = (await talk).decode("utf-8", "replace").strip()[-_TOLD_CHARS_MAX:]
        raise _not_listed(said or str(fault) or "it did not answer in time") from fault
    finally:
        await _end(process)
        talk.cancel()


async def _ask(process: asyncio.subprocess.Process) -> Sequence[str]:
    client = {"name": "crank connect", "version": "1"}
    hello = {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": client}
    await _send(process, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
    await _answer(process, 1)
    await _send(process, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    await _send(process, {"jsonrpc": "2.0", "id": 2, "method": "tools/list"})
    found = await _answer(process, 2)
    return [str(tool["name"]) for tool in found["tools"]]


async def _send(process: asyncio.subprocess.Process, message: Mapping[str, Any]) -> None:
    assert process.stdin is not None, "piped"
    process.stdin.write(json.dumps(message).encode() + b"\n")
    await process.stdin.drain()


async def _answer(process: asyncio.subprocess.Process, wanted: int) -> Mapping[str, Any]:
    """Return the result of a request; what else the server says meanwhile is passed over."""
    assert process.stdout is not None, "piped"
    while line := await process.stdout.readline():
        message = json.loads(line)
        if isinstance(message, dict) and message.get("id") == wanted:
            result: Mapping[str, Any] = message["result"]
            return result
    raise EOFError("it ended without an answer")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close its stdin, which is how a host says goodbye; insist only when it stays."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(LEAVE_SEC):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _not_listed(cause: str) -> Unavailable:
    return Unavailable(
        f"The command that the host will start does not offer its tools: {cause}",
        code="tools_not_listed",
        fix="Run 'crank doctor', then connect again.",
    )

"""The bond between the keeper and its children: one socket pair each, so that neither outlives the other unseen.

A child tells on it, in JSON lines, that it is ready (with what only it knows, such as ports) or why it
cannot start. When the keeper dies, however it dies, the child reads the end of file and stops.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crank import errors
from crank.config import Settings, child_environment, interpreter
from crank.domain.json import JsonObject
from crank.errors import CrankError, Problem, Unavailable

LINE_BYTES_MAX = 1024 * 1024
# Between two times that a child is listened to; one that says more than that is made to wait.
BELL_PAUSE_SEC = 1.0


def fault_document(fault: CrankError) -> JsonObject:
    """Return the JSON form of a fault; `parse_fault` reads it back."""
    return {
        "code": fault.error_code,
        "kind": type(fault).__name__,
        "message": fault.message,
        "field": fault.field,
        "fix": fault.fix,
        "problems": [{"field": each.field, "cause": each.cause, "fix": each.fix} for each in fault.problems],
    }


def parse_fault(document: Mapping[str, Any]) -> CrankError:
    """Return the fault that a child told of."""
    kind = getattr(errors, str(document.get("kind")), CrankError)
    message, code, fix = str(document.get("message")), str(document.get("code")), str(document.get("fix"))
    if issubclass(kind, Unavailable):
        return Unavailable(message, code=code, fix=fix)
    problems = [Problem(**each) for each in document.get("problems") or ()]
    fault: CrankError = kind(message, code=code, fix=fix, field=document.get("field"), problems=problems)
    return fault


class Leash:
    """The child's end. Without a keeper (started by hand) it tells nothing and waits for a signal alone."""

    def __init__(self, descriptor: int | None) -> None:
        self._socket = None if descriptor is None else socket.socket(fileno=descriptor)
        self.stopping = asyncio.Event()
        # Leave when nothing runs any more, so that a fresh process takes this one's place.
        self.renewing = asyncio.Event()

    def watch(self) -> None:
        """Begin to listen for SIGTERM, SIGINT, SIGHUP and the keeper's end; call it in the event loop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self.renewing.set)
        if self._socket is not None:
            self._socket.setblocking(False)
            loop.add_reader(self._socket.fileno(), self._heard)

    def _heard(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(BlockingIOError, ConnectionError):
            if self._socket.recv(64):
                return
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self.stopping.set()

    def release(self) -> None:
        """Let go of whoever started this process: from now on only a signal stops it."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    async def wait(self) -> None:
        """Return when it is time to stop."""
        await self.stopping.wait()

    def tell(self, document: JsonObject) -> None:
        """Send one line to the keeper; a keeper that is gone hears nothing."""
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.setblocking(True)
            self._socket.sendall(json.dumps(document).encode() + b"\n")
            self._socket.setblocking(False)

    def tell_fault(self, fault: CrankError) -> None:
        """Say why this process cannot start."""
        self.tell({"fault": fault_document(fault)})


class Child:
    """The keeper's end: one process of the node, in a session of its own."""

    def __init__(self, role: str, process: subprocess.Popen[bytes], end: socket.socket) -> None:
        self.role = role
        self._process = process
        self._end = end
        self._hearing: asyncio.Task[None] | None = None

    @classmethod
    def spawn(cls, role: str, settings: Settings, log: Path | None) -> "Child":
        """Start `crank internal-<role>`, its output appended to `log` (None: to where ours goes)."""
        mine, its = socket.socketpair()
        with contextlib.ExitStack() as opened:
            opened.callback(its.close)
            output = None
            if log is not None:
                output = opened.enter_context(log.open("ab", buffering=0))
            command = [interpreter(), "-m", "crank", f"internal-{role}", "--leash", str(its.fileno())]
            # A session of its own: Ctrl-C at the terminal is the keeper's to handle, in order.
            process = subprocess.Popen(
                command,
                env=child_environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(its.fileno(),),
                start_new_session=True,
                cwd="/",
            )
        return cls(role, process, mine)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    async def ready(self, timeout_sec: float, *, bell: Callable[[], None] | None = None) -> JsonObject:
        """Return what the child said when it was ready.

        bell  called when it says anything later. What that was is never looked at: somebody may have taken the child over

        Raises the fault that it told of, or Unavailable when it ended or stayed silent.
        """
        reader, writer = await asyncio.open_connection(sock=self._end.dup(), limit=LINE_BYTES_MAX)
        line = b""
        try:
            line = await asyncio.wait_for(reader.readline(), timeout_sec)
        except TimeoutError:
            raise self._silent(f"did not become ready within {timeout_sec:g} s") from None
        except ConnectionError:
            pass
        finally:
            if bell is None or not line:
                writer.close()
        if bell is not None and line:
            self._hearing = asyncio.create_task(_hear(reader, writer, bell), name=f"hear-{self.role}")
        if not line:
            raise self._silent("ended while it started")
        document: JsonObject = json.loads(line)
        if "fault" in document:
            raise parse_fault(document["fault"])
        return document

    def _silent(self, what: str) -> CrankError:
        return Unavailable(
            f"The node's {self.role} {what}.",
            code="node_start_failed",
            fix=f"Read logs/{self.role}.log in the node's home.",
        )

    async def ended(self) -> int:
        """Return the exit status once the process is gone."""
        while (status := self._process.poll()) is None:
            await asyncio.sleep(0.05)
        return status

    async def stop(self, grace_sec: float) -> None:
        """Ask the process to end; after `grace_sec` kill it and all of its session. Safe to call twice."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended(), grace_sec)
        self.kill()
        await self.ended()

    def ask_to_renew(self) -> None:
        """Let the process leave once nothing runs in it; a process that is gone hears nothing."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """Kill what is left of its session now."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._hearing is not None:
            self._hearing.cancel()
        self._end.close()


async def _hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bell: Callable[[], None]) -> None:
    """Ring whenever a child says anything, until it ends."""
    try:
        while await reader.read(LINE_BYTES_MAX):
            bell()
            await asyncio.sleep(BELL_PAUSE_SEC)
    except ConnectionError:
        pass
    finally:
        writer.close()

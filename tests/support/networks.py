"""Two machines, as far as the network goes: two network namespaces with one cable between them, and nothing else."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

HERE, THERE = "10.77.0.1", "10.77.0.2"


@dataclass(frozen=True)
class Cable:
    """How to run something on either machine: what a command is put behind."""

    here: tuple[str, ...]
    there: tuple[str, ...]


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        pytest.skip(f"this machine makes no cable between network namespaces: ip {' '.join(words)}: {done.stderr.strip()}")


def _holder() -> subprocess.Popen[bytes]:
    """Start what keeps a network namespace alive, and wait until it is in it."""
    held = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo here; exec sleep 3600"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert held.stdout is not None
    if held.stdout.readline() != b"here\n":
        held.kill()
        pytest.skip("this machine makes no network namespace")
    return held


@contextlib.contextmanager
def two_machines() -> Iterator[Cable]:
    """Give two network namespaces that reach each other at HERE and THERE; skip, with the reason, where there are none."""
    if os.geteuid() != 0:
        pytest.skip("only root joins network namespaces by a cable")
    for program in ("ip", "unshare", "nsenter"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no program {program} on this machine")
    with contextlib.ExitStack() as opened:
        pids = []
        for _ in range(2):
            held = _holder()
            opened.callback(held.wait)
            opened.callback(held.kill)
            if held.stdout is not None and held.stderr is not None:
                opened.callback(held.stdout.close)
                opened.callback(held.stderr.close)
            pids.append(str(held.pid))
        ends = [f"ck{pid}" for pid in pids]
        # Both ends go with their namespaces.
        _ip("link", "add", ends[0], "netns", pids[0], "type", "veth", "peer", "name", ends[1], "netns", pids[1])
        ways = [("nsenter", "--net", f"--target={pid}") for pid in pids]
        for way, end, address in zip(ways, ends, (HERE, THERE), strict=True):
            for words in (("addr", "add", f"{address}/24", "dev", end), ("link", "set", end, "up"), ("link", "set", "lo", "up")):
                subprocess.run([*way, "ip", *words], check=True, timeout=30)
        yield Cable(*ways)

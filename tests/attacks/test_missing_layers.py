"""What a sandbox does on a machine that lacks a layer: it refuses and says which, and runs nothing meanwhile."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.conftest import ORDINARY_ID, usable_by_all

pytestmark = [pytest.mark.attacks, pytest.mark.system, pytest.mark.timeout(120), pytest.mark.xdist_group("attacks")]

# Takes one layer from itself for good, then does what a worker does at its start.
_PROGRAM = """
import asyncio, ctypes, json, os, sys
from pathlib import Path
from crank.domain.profile import Limits
from crank.ports import SandboxSpec
from crank.errors import CrankError
from crank.sandbox import seccomp, syscalls
from crank.sandbox.runner import NamespaceRunner
from tests.attacks.arena import Quiet
from tests.support.rootfs import make_build

libc = ctypes.CDLL(None, use_errno=True)
lacking = sys.argv[1]

def no_more_user_namespaces():
    uid, gid = os.getuid(), os.getgid()
    assert libc.unshare(0x10000000) == 0
    for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open("/proc/self/" + name, "w") as table:
            table.write(line)
    with open("/proc/sys/user/max_user_namespaces", "w") as most:
        most.write("0")

def without(*names):
    import struct
    machine = syscalls.native()
    code = [(0x20, 0, 0, 0)]
    for name in names:
        code += [(0x15, 0, 1, machine.numbers[name]), (0x06, 0, 0, seccomp.refuse(38))]
    if "seccomp" in names:
        # The old door to the same layer: prctl with PR_SET_SECCOMP.
        code += [(0x15, 0, 3, machine.numbers["prctl"]), (0x20, 0, 0, 16), (0x15, 0, 1, 22), (0x06, 0, 0, seccomp.refuse(38))]
    program = ctypes.create_string_buffer(seccomp.pack([*code, (0x06, 0, 0, seccomp.ALLOW)]))
    head = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(code) + 1, ctypes.addressof(program)))
    assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, head, 0, 0) == 0

{"user_namespaces": lambda: no_more_user_namespaces(),
 "landlock": lambda: without("landlock_create_ruleset"),
 "mounts": lambda: without("fsopen", "open_tree"),
 "seccomp": lambda: without("seccomp"),
 "nothing": lambda: None}[lacking]()

async def start():
    runner = NamespaceRunner()
    try:
        await runner.start()
        session = await runner.open(SandboxSpec(make_build(Path(sys.argv[2])), Limits()))
        outcome = await session.run_python("6 * 7", {}, Quiet())
        await session.close()
        return {"ran": outcome.result, "tier": outcome.tier, "layers": list(getattr(outcome, "layers", ()))}
    except CrankError as fault:
        return {"code": fault.error_code, "message": fault.message, "detail": str(fault.detail), "fix": fault.fix}
    finally:
        await runner.stop()

print(json.dumps(asyncio.run(start())))
"""


def _start(lacking: str, source: Path, rootfs: Path) -> dict[str, Any]:
    python = usable_by_all()
    if os.geteuid() != 0 or python is None:
        pytest.skip("needs root to become an ordinary user, and an interpreter that one may run")
    answer = subprocess.run(
        [python, "-B", "-c", _PROGRAM, lacking, str(rootfs)],
        cwd="/",
        env={"PYTHONPATH": str(source)},
        user=ORDINARY_ID,
        group=ORDINARY_ID,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def test_with_every_layer_it_runs(ordinary_source: Path, rootfs: Path) -> None:
    """N03: the same program, with nothing taken away, runs a job; so what follows shows the layer alone."""
    assert _start("nothing", ordinary_source, rootfs)["ran"] == 42


@pytest.mark.parametrize("lacking", ["user_namespaces", "landlock", "mounts", "seccomp"])
def test_without_a_layer_it_refuses(lacking: str, ordinary_source: Path, rootfs: Path) -> None:
    """N03: a machine without one layer is refused by the layer's name, or says in every result that it was missing."""
    found = _start(lacking, ordinary_source, rootfs)
    words = lacking.removesuffix("s").split("_")
    if "ran" in found:
        # Allowed for what the named tier does not promise, and only if the result itself tells.
        assert found["layers"], found
        assert not [layer for layer in found["layers"] if all(word in str(layer) for word in words)], found
        return
    told = f"{found['code']} {found['message']} {found['detail']}".lower()
    assert any(word in told for word in words), found
    assert found["fix"]

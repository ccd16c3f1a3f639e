"""What a job is born with: a declared environment, ceilings, and files that its interpreter can read."""

import ast
import importlib.util
import json
import marshal
import resource
import subprocess
import sys
from dataclasses import replace

import pytest

from crank.domain.profile import Limits
from crank.sandbox.bundle import inner_files, order_bytes
from crank.sandbox.cell import environment, rlimits
from crank.sandbox.syscalls import AARCH64, X86_64


def test_the_environment_is_small_and_declared() -> None:
    """Nothing of the worker's environment is in the job's, and threads fit the process limit."""
    variables = environment(Limits())
    assert variables["HOME"] == "/scratch"
    assert not {name for name in variables if name.startswith(("CRANK", "AWS", "LD_", "PYTHONPATH"))}
    assert environment(replace(Limits(), processes=1))["OMP_NUM_THREADS"] == "1"


def test_ceilings_follow_the_limits() -> None:
    """Each per-process ceiling is the job's limit; without a group, private memory is capped too."""
    limits = replace(Limits(), open_files=100, file_bytes=4096, processes=10)
    ceilings = rlimits(limits, counted=True)
    assert ceilings[resource.RLIMIT_NOFILE] == (100, 100)
    assert ceilings[resource.RLIMIT_FSIZE] == (4096, 4096)
    assert ceilings[resource.RLIMIT_CORE] == (0, 0)
    assert ceilings[resource.RLIMIT_NPROC][0] > 12
    assert rlimits(limits, counted=False)[resource.RLIMIT_NPROC] == (12, 12)
    assert resource.RLIMIT_DATA not in ceilings
    assert resource.RLIMIT_DATA in rlimits(limits, counted=False)


_CEILINGS = """
import json, resource, sys
from dataclasses import replace
from crank.domain.profile import Limits
from crank.sandbox.cell import Ceilings
allowed, wanted = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))
ceilings, seen = Ceilings(replace(Limits(), open_files=wanted), counted=True), []
def look():
    seen.append(resource.getrlimit(resource.RLIMIT_NOFILE))
ceilings.begin(), look()
ceilings.settle(), look()
lower = {"open_files": 64, "processes": 1}
ceilings.keep(lower, last=False), look()
ceilings.keep(None, last=False), look()
ceilings.keep(lower, last=True), look()
print(json.dumps(seen))
"""


@pytest.mark.parametrize(
    ("allowed", "wanted", "own"), [(1_000, 200, 200), (1_000, 900, 500), (10_000, 9_000, 5_904)], ids=["fits", "half", "kept"]
)
def test_a_job_may_have_fewer_descriptors_than_who_made_it(allowed: int, wanted: int, own: int) -> None:
    """Until the guest has passed its listener on it may have what the launcher has; then less, whatever the profile says."""
    shown = subprocess.run(
        [sys.executable, "-c", _CEILINGS, json.dumps([allowed, wanted])], check=True, capture_output=True, text=True
    )
    # Begun; settled for good; a run with less; the next run; the last one, for good.
    assert json.loads(shown.stdout) == [[allowed, allowed], [own, own], [64, own], [own, own], [64, 64]]


def test_what_runs_inside_is_compiled_only_for_its_own_version() -> None:
    """An interpreter of another version gets the source, which it can read, not bytecode, which it cannot."""
    files, start = inner_files("3.11")
    assert start == "start.pyc"
    assert "crank/sandbox/zygote.pyc" in files
    assert all(name.endswith(".pyc") for name in files)
    files, start = inner_files("3.99")
    assert start == "start.py"
    assert all(name.endswith(".py") for name in files)
    compile(files["crank/sandbox/guest.py"], "guest.py", "exec")


def test_what_runs_inside_is_whole() -> None:
    """The files laid into a cell import nothing of Crank that does not lie beside them."""
    files, _ = inner_files("3.99")
    wanted = set()
    for source in files.values():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("crank"):
                wanted |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    there = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in files}
    modules = {name for name in wanted if name in there or _is_module(name)}
    assert modules <= there, modules - there


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_orders_keep_their_values() -> None:
    """What the guest reads is what was sent."""
    order: dict[str, object] = {"code": "ü", "args": {"a": [1, 2.5, None, True, 2**70]}}
    assert marshal.loads(order_bytes(order)) == order


def test_call_numbers_are_unique_and_known() -> None:
    """No two calls of one machine share a number, and some well-known ones are where the world expects them."""
    for machine in (X86_64, AARCH64):
        assert len(set(machine.numbers.values())) == len(machine.numbers)
    assert (X86_64.numbers["execve"], AARCH64.numbers["execve"]) == (59, 221)
    assert (X86_64.numbers["openat2"], AARCH64.numbers["openat2"]) == (437, 437)

"""Functions of an author who is an ordinary user: the same walls, without any privilege."""

import json
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.ordinary import copy_for_all, run_ordinary, usable_by_all

pytestmark = pytest.mark.system

_PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
from crank.domain.capability import Isolation
from crank.domain.profile import Limits
from crank.ports import FunctionSpec, ModuleBuild
from crank.sandbox.runner import NamespaceRunner
from crank.testing.contracts_sandbox import RecordingSink
from crank.worker.functions import SandboxedFunctions

async def main(here):
    python = os.path.realpath(sys.executable)
    modules = ("crank.worker.call", "tests.support.author_tools")
    library = os.path.dirname(os.path.realpath(os.__file__))
    layers = (("/srv/here", Path(here)), (python, Path(python)), (library, Path(library)))
    build = ModuleBuild("tools", modules, python, f"3.{sys.version_info.minor}", ("/srv/here",), layers, Limits())
    runner = NamespaceRunner(parked=0)
    await runner.start()
    functions, told = SandboxedFunctions(runner, build), []
    for name, args in (("text.count", {"text": "a"}), ("text.break_out", {"how": "read", "path": "/etc/hostname"}),
                       ("text.break_out", {"how": "program"})):
        call = await functions.open(FunctionSpec("tests.support.author_tools:app", name, Limits()))
        outcome = await call.run(args, RecordingSink())
        await call.close()
        told.append([outcome.result, outcome.tier])
    await runner.stop()
    print(json.dumps(told))

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes an ordinary user, which needs root")
def test_an_ordinary_users_functions_are_walled_in() -> None:
    """Calls are answered, and the host's files and programs are out of reach, without root anywhere."""
    python = usable_by_all()
    if python is None:
        pytest.skip("no interpreter here may be run by everybody")
    # Every account may enter it, which a test's own folder does not allow.
    base = Path(tempfile.mkdtemp())
    base.chmod(0o755)
    place = base / "code"
    packages = ("pydantic", "pydantic_core", "annotated_types", "typing_inspection", "structlog")
    try:
        copy_for_all(place, tests=("support",), packages=packages)
        extensions = find_spec("typing_extensions")
        assert extensions is not None
        assert extensions.origin is not None
        shutil.copy(extensions.origin, place)
        (place / "program.py").write_text(_PROGRAM, "utf-8")
        output = place / "out"
        output.touch()
        output.chmod(0o666)
        shell = f"exec {python} program.py {place} > out 2>&1"
        code = run_ordinary(["/bin/sh", "-c", shell], cwd=place, PYTHONPATH=str(place), HOME=str(place))
        told = output.read_text("utf-8")
        assert code == 0, told
        assert json.loads(told.splitlines()[-1]) == [
            [[{"text": "a", "times": 1}], "namespaces"],
            ["crank\n", "namespaces"],
            ["refused PermissionError", "namespaces"],
        ]
    finally:
        shutil.rmtree(base, ignore_errors=True)

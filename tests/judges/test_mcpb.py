"""The bundle for Claude Desktop before the tool of its format: valid, and what comes out is what went in."""

import importlib.util
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.node import REPO

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("judge-mcpb")]


def builder() -> ModuleType:
    """Load the program that builds the bundle."""
    spec = importlib.util.spec_from_file_location("mcpb_build", REPO / "tools" / "mcpb" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mcpb(judge: Callable[[str], Path], *argv: str) -> subprocess.CompletedProcess[str]:
    """Run the format's own tool."""
    node = judge("mcpb")
    program = node.parents[1] / "node_modules" / "@anthropic-ai" / "mcpb" / "dist" / "cli" / "cli.js"
    return subprocess.run([node, program, *argv], capture_output=True, text=True, timeout=60, check=False)


def test_the_bundle_is_valid(judge: Callable[[str], Path], tmp_path: Path) -> None:
    """Its tool unpacks it and accepts the manifest; every file that the manifest names is there."""
    bundle = builder().build(tmp_path)
    out = tmp_path / "out"
    unpacked = mcpb(judge, "unpack", str(bundle), str(out))
    assert unpacked.returncode == 0, unpacked.stdout + unpacked.stderr
    manifest = out / "manifest.json"
    valid = mcpb(judge, "validate", str(manifest))
    assert valid.returncode == 0, valid.stdout + valid.stderr
    assert (out / json.loads(manifest.read_text())["server"]["entry_point"]).is_file()


def test_the_judge_refuses_a_broken_one(judge: Callable[[str], Path], tmp_path: Path) -> None:
    """A manifest without its version, or with a key that the format does not know, does not pass."""
    made = builder().manifest()
    for broken in ({name: value for name, value in made.items() if name != "version"}, {**made, "surprise": 1}):
        path = tmp_path / "manifest.json"
        path.write_text(json.dumps(broken))
        assert mcpb(judge, "validate", str(path)).returncode != 0

"""What is laid into every zygote's cell under /.crank: the few modules of Crank that run inside, and how they start.

The files are compiled once, by the launcher, when the profile's interpreter reads the same bytecode. They
form a package of the same name as ours, so that one source serves both sides; a job sees none of it, for
the path is gone and the modules are forgotten before its first line.
"""

import importlib.util
import marshal
import sys
from collections.abc import Mapping
from pathlib import Path

_MODULES = (
    "errors",
    "domain/__init__",
    "domain/ids",
    "domain/profile",
    "domain/quantity",
    "sandbox/__init__",
    "sandbox/bare",
    "sandbox/guest_bare",
    "sandbox/cell",
    "sandbox/fresh",
    "sandbox/guest",
    "sandbox/guest_calls",
    "sandbox/guest_chart",
    "sandbox/guest_figure",
    "sandbox/guest_paths",
    "sandbox/guest_plain",
    "sandbox/guest_proof",
    "sandbox/guest_result",
    "sandbox/guest_script",
    "sandbox/guest_stand_in",
    "sandbox/guest_torch",
    "sandbox/guest_trace",
    "sandbox/guest_watch",
    "sandbox/kernel",
    "sandbox/landlock",
    "sandbox/machine",
    "sandbox/mounts",
    "sandbox/namespaces",
    "sandbox/own_root",
    "sandbox/programs",
    "sandbox/syscalls",
    "sandbox/tree",
    "sandbox/yard",
    "sandbox/zygote",
)
# Without a root of its own, the code lies beside what starts it.
_START_BARE = (
    "import os, sys; sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)));"
    " from crank.sandbox.bare import main; main()\n"
)
BARE = "bare"
_START = "import sys; sys.path.insert(0, '/.crank'); from crank.sandbox.zygote import main; main()\n"


def _compiled(source: str, name: str) -> bytes:
    # The header of an unchecked pyc: magic, flags, and the two fields that the flags make meaningless (PEP 552).
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    return importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + marshal.dumps(code)


def inner_files(version: str) -> tuple[Mapping[str, bytes], str]:
    """Return the files by path, and the path of the one to start, for an interpreter of this version."""
    package = Path(__file__).parents[1]
    sources = {f"crank/{name}": (package / f"{name}.py").read_text(encoding="utf-8") for name in _MODULES}
    # Ours brings the whole of Crank along when asked; the one inside is bare.
    sources["crank/__init__"] = ""
    sources["start"], sources[BARE] = _START, _START_BARE
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return {f"{name}.pyc": _compiled(source, f"{name}.py") for name, source in sources.items()}, "start.pyc"
    return {f"{name}.py": source.encode() for name, source in sources.items()}, "start.py"


def order_bytes(order: dict[str, object]) -> bytes:
    """Return an order for the guest in the one form that it reads without importing anything.

    Version 2 of the format is the same in every Python 3. Only the supervisor writes where the guest reads.
    """
    return marshal.dumps(order, 2)

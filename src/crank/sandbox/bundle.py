"""What is laid into every sandbox under /.crank: the guest's three files and the line that starts them.

The files are compiled once, by the launcher, when the profile's interpreter reads the same bytecode;
compiling them in every job would cost more than the job. They meet under plain names, because inside
there is no package `crank`.
"""

import importlib.util
import marshal
import sys
from collections.abc import Mapping
from pathlib import Path

_MODULES = ("guest", "guest_proof", "guest_result")
_START = (
    "import sys; sys.path.insert(0, '/.crank'); import guest, guest_proof, guest_result; del sys.path[0]; "
    "guest.main(guest_proof, guest_result)\n"
)


def _compiled(source: str, name: str) -> bytes:
    # The header of an unchecked pyc: magic, flags, and the two fields that the flags make meaningless (PEP 552).
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    return importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + marshal.dumps(code)


def guest_files(version: str) -> tuple[Mapping[str, bytes], str]:
    """Return the files by name, and the name of the one to start, for an interpreter of this version."""
    folder = Path(__file__).parent
    sources = {name: (folder / f"{name}.py").read_text(encoding="utf-8") for name in _MODULES}
    sources["start"] = _START
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return {f"{name}.pyc": _compiled(source, f"{name}.py") for name, source in sources.items()}, "start.pyc"
    return {f"{name}.py": source.encode() for name, source in sources.items()}, "start.py"


def order_bytes(order: dict[str, object]) -> bytes:
    """Return an order for the guest in the one form that it reads without importing anything.

    Version 2 of the format is the same in every Python 3. Only the supervisor writes where the guest reads.
    """
    return marshal.dumps(order, 2)

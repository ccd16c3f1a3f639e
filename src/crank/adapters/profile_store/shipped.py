"""Reads the capabilities that lie beside the profiles: `capabilities/<name>.json`, and the package that it names.

The package's sources become one script, so that code and declaration always belong together, a profile need not be built
anew for either, and nothing of it lies in a job's folders.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crank.domain.capability import Effects, parse_capability_name
from crank.domain.ids import parse_name
from crank.errors import CrankError, ProfileError
from crank.ports import ShippedCapability

FOLDER = "capabilities"
_KEYS: Mapping[str, type] = {
    "schema": int,
    "name": str,
    "version": str,
    "summary": str,
    "profile": str,
    "package": str,
    "effects": str,
    "error_codes": list,
    "input_schema": dict,
    "output_schema": dict,
}

# What a document brings must never be imported: neither by a name that a library tries, nor in place of ours.
_SCRIPT = """\
import sys
import types
from importlib.machinery import ModuleSpec

SOURCES = {sources}


class Shipped:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in SOURCES:
            return ModuleSpec(name, Shipped, is_package=name == {package!r})
        return None

    @staticmethod
    def create_module(spec):
        return types.ModuleType(spec.name)

    @staticmethod
    def exec_module(module):
        exec(compile(SOURCES[module.__name__], "<" + module.__name__ + ">", "exec"), module.__dict__)


sys.meta_path.insert(0, Shipped)
sys.path[:] = [place for place in sys.path if place not in ("", ".", "/scratch")]
from {package}.entry import answer
result = answer(args, progress)
"""


def read_shipped(source_dir: Path) -> tuple[ShippedCapability, ...]:
    """Read every capability that lies beside the profiles, by name. Raises ProfileError for one with mistakes."""
    return tuple(_read(path) for path in sorted((source_dir / FOLDER).glob("*.json")))


def _read(path: Path) -> ShippedCapability:
    try:
        declared = json.loads(path.read_text("utf-8"))
        wrong = sorted(
            name for name in _KEYS.keys() | declared.keys() if not isinstance(declared.get(name), _KEYS.get(name, ()))
        )
        if wrong or declared["schema"] != 1:
            raise ValueError(f"{(wrong or ['schema'])[0]} is missing, unknown or of the wrong type")
        parse_capability_name(declared["name"], field="name")
        code = script(declared["package"], path.parent / parse_name(declared["package"], field="package"))
        return _shipped(declared, code)
    except (OSError, ValueError, CrankError) as fault:
        raise ProfileError(
            f"{path.name} declares no capability: {fault}", fix=f"Restore {FOLDER}/ beside the profiles."
        ) from fault


def _shipped(declared: Mapping[str, Any], code: str) -> ShippedCapability:
    return ShippedCapability(
        name=declared["name"],
        version=declared["version"],
        summary=declared["summary"],
        profile=declared["profile"],
        effects=Effects(declared["effects"]),
        error_codes=tuple(declared["error_codes"]),
        input_schema=declared["input_schema"],
        output_schema=declared["output_schema"],
        code=code,
        code_sha256=hashlib.sha256(code.encode("utf-8")).hexdigest(),
    )


def script(package: str, folder: Path) -> str:
    """Return one script that holds a package's modules and asks its `entry`. Raises OSError."""
    sources = {
        package if file.stem == "__init__" else f"{package}.{file.stem}": file.read_text("utf-8")
        for file in sorted(folder.glob("*.py"))
    }
    return _SCRIPT.format(sources=json.dumps(sources), package=package)

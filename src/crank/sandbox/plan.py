"""The one request that the launcher accepts to make a sandbox, and its strict reader.

The launcher may hold privilege that its caller does not have, so the request names no host path:
folders travel beside it as open descriptors, in a fixed order (root, then one for each mount).
"""

import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from crank.domain.json import JsonObject
from crank.domain.profile import LIMIT_RANGES, Limits
from crank.domain.quantity import MOUNTS_MAX
from crank.errors import ProtocolError

_MOUNT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SESSION = re.compile(r"[a-z0-9-]{1,64}")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_INNER_PATH = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9._+-]*)+")
_DEVICE = re.compile(r"/dev(/[A-Za-z0-9][A-Za-z0-9_-]*)+")
_VERSION = re.compile(r"3\.\d{1,2}")
_LIST_MAX = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """What one session is made of.

    session     name of the session, unique in its launcher
    python      the interpreter, a path inside the root
    version     that interpreter's language version, `3.11`
    site        folder of packages inside the root
    processes   whether the job may start programs and processes
    preimports  modules imported before the job's code
    mounts      names of the read-only folders that appear under /in
    devices     device nodes of the host that appear in the sandbox's /dev
    """

    session: str
    python: str
    version: str
    site: str
    processes: bool
    preimports: tuple[str, ...]
    mounts: tuple[str, ...]
    devices: tuple[str, ...]
    limits: Limits


def to_json(plan: Plan) -> JsonObject:
    """Return the plan as a JSON object."""
    return asdict(plan)


def from_json(source: JsonObject) -> Plan:
    """Read a plan. Raises ProtocolError: what is not exactly as agreed is refused."""
    if set(source) != {field.name for field in fields(Plan)}:
        raise ProtocolError("The request does not have exactly the agreed fields.", code="plan_fields")
    if not isinstance(source["processes"], bool):
        raise ProtocolError("processes is not true or false.", code="plan_processes")
    return Plan(
        session=_text(source, "session", _SESSION),
        python=_text(source, "python", _INNER_PATH),
        version=_text(source, "version", _VERSION),
        site=_text(source, "site", _INNER_PATH),
        processes=source["processes"],
        preimports=_texts(source, "preimports", _MODULE, _LIST_MAX),
        mounts=_texts(source, "mounts", _MOUNT, MOUNTS_MAX),
        devices=_texts(source, "devices", _DEVICE, _LIST_MAX),
        limits=_limits(source["limits"]),
    )


def _text(source: JsonObject, name: str, pattern: re.Pattern[str]) -> str:
    value = source[name]
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ProtocolError(f"{name} is not well formed.", code=f"plan_{name}")
    return value


def _texts(source: JsonObject, name: str, pattern: re.Pattern[str], most: int) -> tuple[str, ...]:
    values = source[name]
    if not isinstance(values, list | tuple) or len(values) > most or len(set(map(str, values))) != len(values):
        raise ProtocolError(f"{name} is not a list of at most {most} different texts.", code=f"plan_{name}")
    return tuple(_text({name: value}, name, pattern) for value in values)


def _limits(source: Any) -> Limits:
    if not isinstance(source, dict) or set(source) != set(LIMIT_RANGES):
        raise ProtocolError("limits does not have exactly the agreed fields.", code="plan_limits")
    values: dict[str, Any] = {}
    for name, value in source.items():
        low, high = LIMIT_RANGES[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ProtocolError(f"The limit {name} is out of range.", code="plan_limits")
        values[name] = float(value) if name.endswith("_sec") else int(value)
    return Limits(**values)

"""The one request that the launcher accepts to make a sandbox, and its strict reader.

The launcher may hold privilege that its caller does not have: every field is checked against a pattern here,
and the folders that it names are opened by the launcher only where `folders.Allowed` says so.
"""

import re
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

from crank.domain.json import JsonObject
from crank.domain.profile import LIMIT_RANGES, Limits
from crank.domain.quantity import MOUNTS_MAX
from crank.errors import ProtocolError

_MOUNT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SESSION = re.compile(r"[a-z0-9-]{1,64}")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_PROGRAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}")
_INNER_PATH = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9._+-]*)+")
_HOST_PATH = re.compile(r"/[^\0]{0,4095}")
# Any absolute path without empty, `.` or `..` parts.
_PLACE = re.compile(r"(?=.{2,4095}\Z)(/(?!\.\.?(?:/|\Z))[^/\0]+)+", re.DOTALL)
# What a sandbox has of its own: nothing of the host may lie there, or be laid around it.
_OWN_PLACES = re.compile(r"/(\.crank|dev|etc|in|out|proc|run|scratch|sys|tmp|var/tmp)(/.*)?|/usr|/var", re.DOTALL)
# What drives an accelerator, and nothing else of /dev: whoever asks must not choose what of the host a job is shown.
_DEVICE = re.compile(r"/dev/(nvidia(\d+|ctl|-uvm|-uvm-tools|-modeset)|nvidia-caps/nvidia-cap\d+|dri/render[D]\d+|kfd)")
_VERSION = re.compile(r"3\.\d{1,2}")
_LIST_MAX = 64


def is_free(place: str) -> bool:
    """Tell whether a layer may lie at this place: a plain absolute path that is not the sandbox's own."""
    return bool(_PLACE.fullmatch(place)) and not _OWN_PLACES.fullmatch(place)


@dataclass(frozen=True, slots=True)
class Ground:
    """What a zygote stands on; plans of the same ground share one.

    root        folder of the host that becomes the sandbox's read-only root; None where layers do
    python      the interpreter, a path inside the root
    version     that interpreter's language version, `3.11`
    site        folder of packages inside the root
    programs    names of the programs that a job may start
    processes   whether a job may fork
    preimports  modules imported ahead of any job
    devices     device nodes of the host that appear in the sandbox's /dev
    layers      (place inside, file or folder of the host) of each read-only layer; with them and without a root
                come the host's shared libraries
    paths       where modules are looked for after `site`, places inside
    """

    root: str | None
    python: str
    version: str
    site: str
    programs: tuple[str, ...]
    processes: bool
    preimports: tuple[str, ...]
    devices: tuple[str, ...]
    layers: tuple[tuple[str, str], ...] = ()
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What one session is made of.

    session  its name, unique in its launcher
    mounts   (name, folder of the host) of each read-only folder that appears under /in
    """

    session: str
    ground: Ground
    mounts: tuple[tuple[str, str], ...]
    limits: Limits


def to_json(plan: Plan) -> JsonObject:
    """Return the plan as a JSON object."""
    return asdict(plan)


def from_json(source: JsonObject) -> Plan:
    """Read a plan. Raises ProtocolError: what is not exactly as agreed is refused."""
    _check_fields(source, Plan, "plan")
    return Plan(
        session=_text(source, "session", _SESSION),
        ground=_ground(source["ground"]),
        mounts=_mounts(source["mounts"]),
        limits=_limits(source["limits"]),
    )


def _check_fields(source: Any, kind: type, name: str) -> None:
    if not isinstance(source, dict) or set(source) != {field.name for field in fields(kind)}:
        raise ProtocolError(f"The {name} does not have exactly the agreed fields.", code="plan_fields")


def _ground(source: Any) -> Ground:
    _check_fields(source, Ground, "ground")
    layers = _layers(source["layers"])
    if (source["root"] is None) != bool(layers):
        raise ProtocolError("A ground has a root or layers, and not both.", code="plan_layers")
    inner = _PLACE if layers else _INNER_PATH
    return Ground(
        root=None if layers else _text(source, "root", _HOST_PATH),
        python=_text(source, "python", inner),
        version=_text(source, "version", _VERSION),
        site=_text(source, "site", inner),
        programs=_texts(source, "programs", _PROGRAM),
        processes=_flag(source, "processes"),
        preimports=_texts(source, "preimports", _MODULE),
        devices=_texts(source, "devices", _DEVICE),
        layers=layers,
        paths=_texts(source, "paths", _PLACE),
    )


def _layers(source: Any) -> tuple[tuple[str, str], ...]:
    """Read layers: no place twice, none in another, none where the sandbox has something of its own."""
    pairs = _pairs(source, "layers")
    layers = tuple(
        (_text({"layers": place}, "layers", _PLACE), _text({"layers": path}, "layers", _HOST_PATH))
        for place, path in pairs
    )
    # With a slash behind each, a place that is the start of the next one is around it.
    places = sorted(f"{place}/" for place, _ in layers)
    nested = any(after.startswith(before) for before, after in pairwise(places))
    if nested or len(layers) > _LIST_MAX or not all(is_free(place) for place, _ in layers):
        raise ProtocolError(f"layers is not a list of at most {_LIST_MAX} free places.", code="plan_layers")
    return layers


def _pairs(source: Any, name: str) -> list[Any]:
    if not isinstance(source, list | tuple):
        raise ProtocolError(f"{name} is not a list.", code=f"plan_{name}")
    return [pair if isinstance(pair, list | tuple) and len(pair) == 2 else ("", "") for pair in source]


def _flag(source: JsonObject, name: str) -> bool:
    value = source[name]
    if not isinstance(value, bool):
        raise ProtocolError(f"{name} is not true or false.", code=f"plan_{name}")
    return value


def _text(source: JsonObject, name: str, pattern: re.Pattern[str]) -> str:
    value = source[name]
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ProtocolError(f"{name} is not well formed.", code=f"plan_{name}")
    return value


def _texts(source: JsonObject, name: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    values = source[name]
    if not isinstance(values, list | tuple) or len(values) > _LIST_MAX or len(set(map(str, values))) != len(values):
        raise ProtocolError(f"{name} is not a list of at most {_LIST_MAX} different texts.", code=f"plan_{name}")
    return tuple(_text({name: value}, name, pattern) for value in values)


def _mounts(source: Any) -> tuple[tuple[str, str], ...]:
    pairs = _pairs(source, "mounts")
    mounts = tuple(
        (_text({"mounts": name}, "mounts", _MOUNT), _text({"mounts": path}, "mounts", _HOST_PATH))
        for name, path in pairs
    )
    if len(mounts) > MOUNTS_MAX or len({name for name, _ in mounts}) != len(mounts):
        raise ProtocolError(f"mounts is not a list of at most {MOUNTS_MAX} different names.", code="plan_mounts")
    return mounts


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

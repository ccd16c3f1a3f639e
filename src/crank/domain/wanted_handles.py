"""Handles as a job's body asks for them, read strictly. Nothing here is looked up."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crank.domain.capability import parse_capability_name, parse_version_wanted
from crank.domain.grant import EVERYTHING, Right
from crank.domain.handle import HANDLES_MAX, HandleKind
from crank.domain.ids import parse_name
from crank.domain.json import JsonObject, canonical
from crank.domain.quantity import KIB, MOUNTS_MAX
from crank.errors import InvalidRequest, NotSupported, TooLarge

_SCHEMA_BYTES_MAX = 8 * KIB
_CALLS_MAX = 1_000_000
_PREFIX = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*\.\*")
_OF_KIND = {
    "call": frozenset({"capability", "version", "constraints", "calls_max", "mounts"}),
    "mount": frozenset({"mount"}),
}
# A file of this name would stand before the module that calls are made with.
MODULE = "crank"


@dataclass(frozen=True, slots=True)
class DraftHandle:
    """A handle as it was asked for; `mount` is the id or name of a mount that was not looked up yet."""

    name: str
    kind: HandleKind
    right: Right | None = None
    mount: str | None = None


def parse_handles(fields: JsonObject) -> tuple[DraftHandle, ...]:
    """Read the handles of a job's body, whose JSON types were checked. Raises InvalidRequest, NotSupported, TooLarge."""
    entries = fields.get("handles") or []
    if len(entries) > HANDLES_MAX:
        raise TooLarge(f"A job takes at most {HANDLES_MAX} handles.", code="too_many_handles", field="handles")
    if entries:
        _refuse_elsewhere(fields)
    found: dict[str, DraftHandle] = {}
    for position, entry in enumerate(entries):
        where = f"handles.{position}"
        handle = _handle(entry, where)
        if handle.name in found:
            raise InvalidRequest(
                f"The handle {handle.name!r} is given twice.", code="duplicate_handle", field=f"{where}.name"
            )
        found[handle.name] = handle
    _check_mounts(found)
    return tuple(found.values())


def _refuse_elsewhere(fields: JsonObject) -> None:
    if fields.get("program") is not None:
        raise NotSupported("A program cannot use handles; the code of a script can.", field="handles",
                           fix="Start the program from a script, and make the call there.")  # fmt: skip
    for position, file in enumerate(fields.get("files") or []):
        first = str(file["path"]).split("/")[0]
        if first in (MODULE, f"{MODULE}.py"):
            raise InvalidRequest(
                f"A file named {first!r} would hide the module that a job with handles calls with.",
                code="invalid_path",
                field=f"files.{position}.path",
                fix="Give the file another name.",
            )


def _handle(entry: Mapping[str, Any], where: str) -> DraftHandle:
    kind = entry["kind"]
    if kind == "budget":
        raise NotSupported(
            "Budgets are not offered yet: jobs cost nothing on this node, so a budget would count nothing.",
            field=f"{where}.kind",
            fix="Bound the calls of a handle with calls_max.",
        )
    name = parse_name(entry["name"], field=f"{where}.name")
    odd = sorted(key for key, value in entry.items() if value is not None and key not in {"name", "kind", *_OF_KIND[kind]})
    if odd:
        raise InvalidRequest(
            f"A handle of kind {kind} has no {odd[0]}.", code="invalid_field", field=f"{where}.{odd[0]}"
        )
    if kind == "mount":
        return DraftHandle(name, HandleKind.MOUNT, mount=_needed(entry, "mount", where))
    return DraftHandle(name, HandleKind.CALL, right=_right(entry, where))


def _needed(entry: Mapping[str, Any], name: str, where: str) -> str:
    value = entry.get(name)
    if value is None:
        raise InvalidRequest(
            f"A handle of kind {entry['kind']} names a {name}.", code="missing_field", field=f"{where}.{name}"
        )
    return str(value)


def _right(entry: Mapping[str, Any], where: str) -> Right:
    capability = _needed(entry, "capability", where)
    if capability != EVERYTHING and not (len(capability) <= 128 and _PREFIX.fullmatch(capability)):
        parse_capability_name(capability, field=f"{where}.capability")
    version = entry.get("version")
    if version is not None and parse_version_wanted(version, field=f"{where}.version").count(".") != 2:
        raise InvalidRequest(
            "A handle names one version in full, like 1.2.3.", code="invalid_version", field=f"{where}.version"
        )
    schema = entry.get("constraints")
    if schema is not None and len(canonical(schema)) > _SCHEMA_BYTES_MAX:
        raise TooLarge(
            f"The schema of a handle is at most {_SCHEMA_BYTES_MAX} bytes.",
            code="schema_too_large",
            field=f"{where}.constraints",
        )
    calls_max = entry.get("calls_max")
    if calls_max is not None and not 1 <= calls_max <= _CALLS_MAX:
        raise InvalidRequest(
            f"calls_max is 1 to {_CALLS_MAX}.", code="limit_out_of_range", field=f"{where}.calls_max"
        )
    mounts = entry.get("mounts")
    if mounts is not None and len(mounts) > MOUNTS_MAX:
        raise TooLarge(f"A call takes at most {MOUNTS_MAX} mounts.", code="too_many_mounts", field=f"{where}.mounts")
    return Right(
        capability=capability,
        version=version,
        constraints=() if schema is None else (schema,),
        mounts=None if mounts is None else tuple(dict.fromkeys(mounts)),
        calls_max=calls_max,
    )


def _check_mounts(found: Mapping[str, DraftHandle]) -> None:
    """See that what a handle of kind `call` may take along is in the same hand."""
    for position, handle in enumerate(found.values()):
        for name in (handle.right.mounts or ()) if handle.right is not None else ():
            if name not in found or found[name].kind is not HandleKind.MOUNT:
                raise InvalidRequest(
                    f"The handle {handle.name!r} names {name[:80]!r}, which is no handle of kind mount of this job.",
                    code="unknown_handle",
                    field=f"handles.{position}.mounts",
                    fix="Add a handle of kind mount with that name, or leave mounts out for all of them.",
                )

"""Handles: how they are read from a request, and what a call with one may ask for. Nothing here is looked up."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crank.domain.capability import parse_capability_name, parse_version_wanted
from crank.domain.grant import Right
from crank.domain.handle import (
    CALL_DEPTH_MAX,
    HANDLES_MAX,
    OPEN_CALLS_MAX,
    TREE_CALLS_MAX,
    Called,
    CalledBy,
    Handle,
    HandleKind,
    JobCall,
)
from crank.domain.ids import JobId, parse_name
from crank.domain.job import Job, Refusal
from crank.domain.json import JsonObject, JsonValue, canonical
from crank.domain.quantity import KIB, MOUNTS_MAX
from crank.domain.rules.grant import EVERYTHING, Satisfies, within
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


# --- reading -----------------------------------------------------------------------------------


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
    if fields.get("session") is not None:
        raise NotSupported("Jobs of a session take no handles yet.", field="handles",
                           fix="Run the job without a session.")  # fmt: skip
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


# --- using -------------------------------------------------------------------------------------


def call_refusal(job: Job, call: JobCall, satisfies: Satisfies) -> Refusal | None:
    """Return why a job's call is not within its handles, or None; counts are looked at by `count_refusal`."""
    held = {handle.name: handle for handle in job.request.handles}
    used = held.get(call.handle)
    if used is None or used.right is None:
        return _refused("no_handle", f"The job has no handle {call.handle[:80]!r} that something can be called for with.")
    right = used.right
    if not within(call.capability, right.capability):
        return _refused("handle_capability", f"The handle {used.name!r} is for {right.capability}, not for {call.capability}.")
    if right.version is not None and call.version not in (None, right.version):
        return _refused("handle_version", f"The handle {used.name!r} is for version {right.version}.")
    if right.constraints and call.code is not None:
        # What code does is said by no schema of its args.
        return _refused("handle_constraints", f"The handle {used.name!r} is for args that fit its schema, and for no code.")
    if not _fits(right, call.args, satisfies):
        return _refused("handle_constraints", f"The args are not what the handle {used.name!r} allows.")
    return _taken_along_refusal(job, call, right, held)


def _fits(right: Right, args: JsonValue, satisfies: Satisfies) -> bool:
    # Most words of a schema say nothing about values that are no objects: left to themselves they would pass.
    args = {} if args is None else args
    return not right.constraints or (
        isinstance(args, dict) and all(satisfies(schema, args) for schema in right.constraints)
    )


def _taken_along_refusal(job: Job, call: JobCall, right: Right, held: Mapping[str, Handle]) -> Refusal | None:
    for name in call.mounts.values():
        mount = held.get(name)
        if mount is None or mount.mount_id is None:
            return _refused("handle_mount", f"The job has no handle {name[:80]!r} of kind mount.")
        if right.mounts is not None and name not in right.mounts:
            return _refused("handle_mount", f"The handle {call.handle!r} takes no mount {name!r} along.")
    for name in call.handles:
        if name not in held:
            return _refused("no_handle", f"The job has no handle {name[:80]!r} that it could pass on.")
    if _depth(job) > CALL_DEPTH_MAX:
        return _refused("call_too_deep", f"Calls go at most {CALL_DEPTH_MAX} deep.")
    return None


def _refused(code: str, message: str) -> Refusal:
    return Refusal(code, message, "Ask whoever submits the job for a handle that allows it.", "handles")


def _depth(job: Job) -> int:
    return 1 if job.called_by is None else job.called_by.depth + 1


def called_by(job: Job, call: JobCall) -> CalledBy:
    """Return what is kept of a call in the job that is made for it."""
    root = job.job_id if job.called_by is None else job.called_by.root
    return CalledBy(job.job_id, job.epoch, call.number, call.handle, _depth(job), root)


def passed_on(job: Job, call: JobCall) -> tuple[Handle, ...]:
    """Return the handles that the called job has: those named, as they are, and the mounts that those may take along."""
    names = set(call.handles)
    for handle in job.request.handles:
        if handle.name in names and handle.right is not None:
            names.update(handle.right.mounts or ())
    return tuple(handle for handle in job.request.handles if handle.name in names)


def count_refusal(job: Job, by: CalledBy, tree: Sequence[Called], held_above: Sequence[Job]) -> Refusal | None:
    """Return why one more call would be too many, or None.

    tree        every call of the tree that the job belongs to
    held_above  the jobs on the way up from this one whose handle of the same name this one was passed, this one first
    """
    if len(tree) >= TREE_CALLS_MAX:
        return _too_many("too_many_calls", f"One job and all that it calls for make at most {TREE_CALLS_MAX} calls.")
    open_now = sum(not one.ended and (one.by.job_id, one.by.epoch) == (job.job_id, by.epoch) for one in tree)
    if open_now >= OPEN_CALLS_MAX:
        return _too_many("too_many_calls_at_once", f"A job has at most {OPEN_CALLS_MAX} calls open at once.")
    for above in held_above:
        right = next(one.right for one in above.request.handles if one.name == by.handle)
        if right is not None and right.calls_max is not None and used(tree, above.job_id, by.handle) >= right.calls_max:
            return _too_many("calls_spent", f"The handle {by.handle!r} was for {right.calls_max} call(s), and they were made.")
    return None


def _too_many(code: str, message: str) -> Refusal:
    return Refusal(code, message, "Call less often, or ask whoever submits the job for more.", "handles")


def used(tree: Sequence[Called], job_id: JobId, handle: str) -> int:
    """Count the calls that a job made with a handle, and those of the jobs that it passed it on to."""
    own = [one for one in tree if one.by.job_id == job_id]
    return sum(one.by.handle == handle for one in own) + sum(used(tree, one.job_id, handle) for one in own)


def is_forsaken(by: CalledBy, caller: Job | None) -> bool:
    """Tell whether nobody waits for a called job any more: its caller has ended, or tries again under another lease."""
    return caller is None or caller.ended or caller.epoch != by.epoch or caller.worker_id is None

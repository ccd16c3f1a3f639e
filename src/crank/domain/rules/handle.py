"""Handles in use: what a call may ask for by one, how calls are counted, and when nobody waits for them any more."""

from collections.abc import Callable, Mapping, Sequence

from crank.domain.grant import Right
from crank.domain.handle import (
    CALL_DEPTH_MAX,
    OPEN_CALLS_MAX,
    TREE_CALLS_MAX,
    Called,
    CalledBy,
    Handle,
    JobCall,
)
from crank.domain.ids import JobId
from crank.domain.job import Job, Refusal
from crank.domain.json import JsonObject, JsonValue

# Whether one pattern of capabilities lies within another, and whether args satisfy a schema: others' knowledge.
Within = Callable[[str, str], bool]
Satisfies = Callable[[JsonObject, JsonValue], bool]


def call_refusal(job: Job, call: JobCall, *, within: Within, satisfies: Satisfies) -> Refusal | None:
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

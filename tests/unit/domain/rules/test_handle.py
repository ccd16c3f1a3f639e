"""Handles: how they are read, what a call with one may ask for, and how calls are counted."""

from dataclasses import replace
from typing import Any

import pytest

from crank.domain.grant import Right
from crank.domain.handle import Called, CalledBy, Handle, HandleKind, JobCall
from crank.domain.ids import JobId, MountId, WorkerId
from crank.domain.job import Job, Status
from crank.domain.rules.grant import within
from crank.domain.rules.handle import (
    call_refusal,
    called_by,
    count_refusal,
    is_forsaken,
    passed_on,
    used,
)
from crank.domain.wanted_handles import parse_handles
from crank.errors import CrankError
from tests.unit.domain.rules.builders import job, request

CONVERT = {"name": "convert", "kind": "call", "capability": "document.*"}
DOCS = {"name": "docs", "kind": "mount", "mount": "papers"}


def with_handles(*handles: Handle, **changes: Any) -> Job:
    """Return a running job with these handles."""
    running = job(Status.RUNNING, **changes)
    return replace(running, request=request(handles=handles))


def call_handle(name: str = "convert", capability: str = "document.*", **terms: Any) -> Handle:
    """Return a handle of kind call."""
    return Handle(name, HandleKind.CALL, Right(capability, **terms))


def mount_handle(name: str = "docs") -> Handle:
    """Return a handle of kind mount."""
    return Handle(name, HandleKind.MOUNT, mount_id=MountId("m-1"))


def call(**changes: Any) -> JobCall:
    """Return a call that the plain handle allows."""
    return JobCall(**{"number": 1, "handle": "convert", "capability": "document.convert", **changes})


def code_of(source: Job, **changes: Any) -> str | None:
    """Return the code of the refusal of a call, or None."""
    refusal = call_refusal(
        source, call(**changes), within=within, satisfies=lambda schema, args: args.get("to") == schema["const"]
    )
    return None if refusal is None else refusal.code


def test_handles_are_read_as_they_were_meant() -> None:
    """A call's terms and a mount's name come out as they went in; a mount named by a call is one of the same hand."""
    schema = {"type": "object"}
    terms = {"version": "1.0.0", "constraints": schema, "calls_max": 3, "mounts": ["docs"]}
    convert, docs = parse_handles({"handles": [{**CONVERT, **terms}, DOCS]})
    assert convert.right == Right("document.*", "1.0.0", (schema,), ("docs",), 3)
    assert (docs.kind, docs.mount) == (HandleKind.MOUNT, "papers")
    assert parse_handles({}) == parse_handles({"handles": []}) == ()


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"handles": [{"name": "b", "kind": "budget", "amount": 5}]}, "not_supported", "handles.0.kind"),
        ({"handles": [CONVERT], "program": ["ls"]}, "not_supported", "handles"),
        ({"handles": [CONVERT], "files": [{"path": "crank.py"}]}, "invalid_path", "files.0.path"),
        ({"handles": [CONVERT], "files": [{"path": "crank/x.txt"}]}, "invalid_path", "files.0.path"),
        ({"handles": [CONVERT, CONVERT]}, "duplicate_handle", "handles.1.name"),
        ({"handles": [CONVERT] * 17}, "too_many_handles", "handles"),
        ({"handles": [{**CONVERT, "name": "No"}]}, "invalid_name", "handles.0.name"),
        ({"handles": [{"name": "a", "kind": "call"}]}, "missing_field", "handles.0.capability"),
        ({"handles": [{"name": "a", "kind": "mount"}]}, "missing_field", "handles.0.mount"),
        ({"handles": [{**CONVERT, "mount": "papers"}]}, "invalid_field", "handles.0.mount"),
        ({"handles": [{**DOCS, "calls_max": 1}]}, "invalid_field", "handles.0.calls_max"),
        ({"handles": [{**CONVERT, "amount": 1}]}, "invalid_field", "handles.0.amount"),
        ({"handles": [{**CONVERT, "capability": "no such*"}]}, "invalid_capability_name", "handles.0.capability"),
        ({"handles": [{**CONVERT, "capability": "document.*.x"}]}, "invalid_capability_name", "handles.0.capability"),
        ({"handles": [{**CONVERT, "version": "1.2"}]}, "invalid_version", "handles.0.version"),
        ({"handles": [{**CONVERT, "calls_max": 0}]}, "limit_out_of_range", "handles.0.calls_max"),
        ({"handles": [{**CONVERT, "constraints": {"x": "y" * 9000}}]}, "schema_too_large", "handles.0.constraints"),
        ({"handles": [{**CONVERT, "mounts": ["docs"]}]}, "unknown_handle", "handles.0.mounts"),
        ({"handles": [{**CONVERT, "mounts": ["convert"]}]}, "unknown_handle", "handles.0.mounts"),
    ],
)
def test_what_no_step_honours_is_refused(fields: dict[str, Any], code: str, field: str) -> None:
    """Each mistake, and each thing that is not offered yet, has its own code and names its field."""
    with pytest.raises(CrankError) as caught:
        parse_handles(fields)
    assert (caught.value.error_code, caught.value.field) == (code, field)


@pytest.mark.parametrize(
    ("terms", "asked", "code"),
    [
        ({}, {}, None),
        ({}, {"handle": "other"}, "no_handle"),
        ({}, {"handle": "docs"}, "no_handle"),
        ({}, {"capability": "python.run.core"}, "handle_capability"),
        ({}, {"capability": "documents.convert"}, "handle_capability"),
        ({"version": "1.0.0"}, {}, None),
        ({"version": "1.0.0"}, {"version": "1.0"}, "handle_version"),
        ({"constraints": ({"const": "md"},)}, {"args": {"to": "md"}}, None),
        ({"constraints": ({"const": "md"},)}, {"args": {"to": "pdf"}}, "handle_constraints"),
        ({"constraints": ({"const": "md"},)}, {"args": [1]}, "handle_constraints"),
        ({"constraints": ({"const": "md"},)}, {"args": {"to": "md"}, "code": "1"}, "handle_constraints"),
        ({}, {"mounts": {"in": "docs"}}, None),
        ({}, {"mounts": {"in": "convert"}}, "handle_mount"),
        ({}, {"mounts": {"in": "secrets"}}, "handle_mount"),
        ({"mounts": ()}, {"mounts": {"in": "docs"}}, "handle_mount"),
        ({}, {"handles": ("convert", "docs")}, None),
        ({}, {"handles": ("other",)}, "no_handle"),
    ],
)
def test_a_call_is_held_to_every_term(terms: dict[str, Any], asked: dict[str, Any], code: str | None) -> None:
    """Name, capability, version, args, mounts and what is passed on are each looked at."""
    assert code_of(with_handles(call_handle(**terms), mount_handle()), **asked) == code


def test_everything_is_not_what_only_the_owner_may_do() -> None:
    """`*` covers every capability but those of the node itself, as with tokens."""
    source = with_handles(call_handle(capability="*"))
    assert code_of(source, capability="python.run.core") is None
    assert code_of(source, capability="node.mounts") == "handle_capability"


def test_a_call_at_the_bottom_is_too_deep() -> None:
    """A job that was called three levels deep calls no further."""
    by = CalledBy(JobId("p"), 1, 1, "convert", 3, JobId("top"))
    assert code_of(with_handles(call_handle(), called_by=by)) == "call_too_deep"
    assert code_of(with_handles(call_handle(), called_by=replace(by, depth=2))) is None


def test_what_is_passed_on_is_what_was_named_and_the_mounts_that_it_takes_along() -> None:
    """A handle goes down as it is; mounts that it names go with it, and nothing else of the hand does."""
    source = with_handles(call_handle(mounts=("docs",)), mount_handle(), mount_handle("more"), call_handle("other"))
    assert [handle.name for handle in passed_on(source, call(handles=("convert",)))] == ["convert", "docs"]
    assert passed_on(source, call()) == ()


def test_calls_are_counted_up_the_whole_way() -> None:
    """A handle that was passed on is used up by whoever uses it, and `calls_max` of the one above holds below."""
    top = with_handles(call_handle(calls_max=2))
    child = replace(with_handles(call_handle(calls_max=2)), job_id=JobId("c"), called_by=called_by(top, call()))
    tree = [
        Called(JobId("c"), called_by(top, call()), ended=False),
        Called(JobId("g"), called_by(child, call()), ended=True),
    ]
    assert used(tree, top.job_id, "convert") == 2
    assert used(tree, JobId("c"), "convert") == 1
    refusal = count_refusal(child, called_by(child, call(number=2)), tree, [child, top])
    assert refusal is not None
    assert refusal.code == "calls_spent"
    assert count_refusal(child, called_by(child, call(number=2)), tree[:1], [child, top]) is None


@pytest.mark.parametrize(("count", "ended", "code"), [(8, False, "too_many_calls_at_once"), (8, True, None), (64, True, "too_many_calls")])
def test_calls_are_bounded_at_once_and_in_all(count: int, ended: bool, code: str | None) -> None:
    """Eight open calls of a job, sixty-four of a tree, and not one more."""
    source = with_handles(call_handle())
    tree = [Called(JobId(f"c{n}"), called_by(source, call(number=n)), ended) for n in range(count)]
    refusal = count_refusal(source, called_by(source, call(number=count)), tree, [source])
    assert (refusal.code if refusal else None) == code


def test_a_call_of_an_earlier_lease_is_forsaken() -> None:
    """Nobody waits any more once the caller has ended, is gone, waits for another try, or runs under another epoch."""
    running = with_handles(call_handle(), worker_id=WorkerId("w"))
    by = called_by(running, call())
    assert not is_forsaken(by, running)
    assert is_forsaken(by, None)
    assert is_forsaken(by, replace(running, status=Status.SUCCEEDED))
    assert is_forsaken(by, replace(running, epoch=running.epoch + 1))
    assert is_forsaken(by, replace(running, status=Status.QUEUED, worker_id=None))

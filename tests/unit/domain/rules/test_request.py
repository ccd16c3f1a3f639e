"""Request: a submitted body becomes a draft, or a clear complaint that names the field."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.capability import Accelerator, Effects
from crank.domain.rules.request import parse_relative_path, parse_request, request_digest
from crank.errors import CrankError, InvalidRequest, NotSupported

SESSION = "0190a6a4-7b1c-7d2e-8f00-0123456789ab"


def test_a_job_of_a_session_takes_its_capability_from_there() -> None:
    """Without capability and profile, a session's own holds; the context has a name of its own."""
    draft = parse_request({"code": "x", "session": SESSION})
    assert (draft.capability, draft.session_id, draft.context) == ("", SESSION, "main")
    assert parse_request({"code": "x", "session": SESSION, "context": "a"}).context == "a"
    assert parse_request({"code": "x", "session": SESSION, "env_profile": "python-ml"}).capability == "python.run.ml"
    assert parse_request({"program": ["pandoc", "-v"]}).program == ("pandoc", "-v")


def test_the_request_of_the_mission_is_accepted_exactly_so() -> None:
    """Row T1: job_id, runtime, env_profile, constraints, code and args, with nothing else needed."""
    draft = parse_request(
        {
            "job_id": "j-1",
            "runtime": "python3.11",
            "env_profile": "python-core",
            "constraints": {"accelerator": "cpu", "timeout_sec": 5, "max_output_bytes": 1000},
            "code": "print(1)",
            "args": {"n": 1},
        }
    )
    assert ("j-1", "python.run.core", Accelerator.CPU) == (draft.job_id, draft.capability, draft.accelerator)
    assert (5.0, 1000, Effects.EXTERNAL) == (draft.timeout_sec, draft.max_output_bytes, draft.effects)


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"job_id": "../x"}, "invalid_job_id", "job_id"),
        ({"runtime": "perl"}, "unknown_runtime", "runtime"),
        ({"constraints": {"timeout_sec": 0}}, "limit_out_of_range", "constraints.timeout_sec"),
        ({"constraints": {"timeout_sec": 1e9}}, "limit_out_of_range", "constraints.timeout_sec"),
        ({"constraints": {"memory_bytes": 1}}, "limit_out_of_range", "constraints.memory_bytes"),
        ({"constraints": {"accelerator": "tpu"}}, "invalid_field", "constraints.accelerator"),
        ({"constraints": {"attestation": "tpm"}}, "invalid_field", "constraints.attestation"),
        ({"effects": "none"}, "invalid_field", "effects"),
        ({"code": "x" * (1 << 20) + "x"}, "code_too_large", "code"),
        ({"code": "a\0b"}, "invalid_code", "code"),
        ({"files": [{"path": "a", "text": "x", "base64": "eA=="}]}, "invalid_file", "files.0"),
        ({"files": [{"path": "a", "base64": "!"}]}, "invalid_file", "files.0.base64"),
        ({"files": [{"path": "a", "text": ""}, {"path": "A", "text": ""}]}, "duplicate_file", "files.1"),
        ({"files": [{"path": "a", "text": ""}, {"path": "a/b", "text": ""}]}, "duplicate_file", "files"),
        ({"files": [{"path": str(n), "text": ""} for n in range(1001)]}, "too_many_files", "files"),
        ({"mounts": ["a", "a"]}, "duplicate_mount", "mounts.1"),
        ({"session": "mine"}, "invalid_session_id", "session"),
        ({"context": "a"}, "invalid_field", "context"),
        ({"session": SESSION, "context": "A b"}, "invalid_name", "context"),
        ({"code": None, "program": []}, "invalid_field", "program"),
        ({"code": None, "program": ["", "x"]}, "invalid_field", "program"),
        ({"code": None, "program": ["pandoc", "a\x00b"]}, "invalid_field", "program"),
        ({"program": ["pandoc"], "code": "1"}, "invalid_field", "program"),
        ({"code": None, "program": ["pandoc"], "args": [1]}, "invalid_field", "args"),
        ({"code": None, "program": ["x" * 65, *["y" * 1024] * 64]}, "program_too_large", "program"),
        ({"budget": {}}, "not_supported", "budget"),
        ({"route": "any"}, "not_supported", "route"),
    ],
)
def test_bad_input_names_its_field_and_code(fields: dict[str, Any], code: str, field: str) -> None:
    """Every complaint carries a stable code, the field and a fix."""
    with pytest.raises(CrankError) as caught:
        parse_request({"code": "print(1)", **fields})
    assert (code, field) == (caught.value.error_code, caught.value.field)
    assert caught.value.fix


@pytest.mark.parametrize(
    "path",
    ["../x", "/x", "a/../b", "a\\b", "a\0b", "x.", "a/ ", "", "a//b", ".", "e\u0301", "a\u202eb", "a\nb", "n" * 256],
)
def test_paths_that_act_are_refused(path: str) -> None:
    """G01: a name that leaves its folder, or that another system reads differently, is refused."""
    with pytest.raises(InvalidRequest):
        parse_relative_path(path, field="path")


@given(st.text(max_size=40))
def test_an_accepted_path_stays_inside(path: str) -> None:
    """Whatever is accepted has no segment that climbs and no leading slash."""
    try:
        accepted = parse_relative_path(path, field="path")
    except InvalidRequest:
        return
    assert not accepted.startswith("/")
    assert not {"", ".", ".."} & set(accepted.split("/"))


def test_the_digest_ignores_the_key_and_the_order_of_fields() -> None:
    """Two requests are the same when everything but the idempotency key is."""
    first = request_digest({"code": "a", "args": 1, "idempotency_key": "k"})
    assert first == request_digest({"args": 1, "code": "a"})
    assert first != request_digest({"args": 2, "code": "a"})


def test_not_supported_is_an_invalid_request() -> None:
    """What comes later is refused, never ignored."""
    with pytest.raises(NotSupported):
        parse_request({"code": "x", "budget": {"max": 1}})

"""Tests of `authorization_details`: strict, bounded, and read back as written."""

import json
from dataclasses import replace

import pytest
from hypothesis import given

from crank.adapters.json_schema import JsonSchemaChecker
from crank.domain.grant import Right
from crank.domain.rules.authorization import (
    DETAIL_TYPE,
    DETAILS_BYTES_MAX,
    details_document,
    parse_details,
    parse_details_text,
    parse_scope,
    scope_of,
)
from crank.errors import InvalidRequest
from tests.unit.domain.rules.test_grant import rights


def problem_of(schema):
    found = JsonSchemaChecker().check_schema(schema)
    return None if found is None else found.cause


def detail(**fields):
    return {"type": DETAIL_TYPE, "identifier": "a.b", **fields}


@given(right=rights.filter(lambda right: not right.capability.startswith("node.")))
def test_what_is_written_reads_back_equal(right):
    """Printing and parsing lose nothing and add nothing."""
    unique = tuple({json.dumps(one): one for one in right.constraints}.values())
    assert parse_details(details_document([Right(right.capability, constraints=unique)]), problem_of) == (
        Right(right.capability, constraints=unique),
    )
    whole = replace(right, constraints=unique)
    assert parse_details(details_document([whole]), problem_of) == (whole,)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        [],
        [3],
        [detail(type="openid")],
        [detail(extra=1)],
        [detail(calls_max=0)],
        [detail(identifier="node.keys.change", calls_max=1)],
        [detail(identifier="node.*", mounts=["docs"])],
        [detail(identifier="node.records.read", constraints=[])],
        [detail(calls_max=True)],
        [detail(calls_max=1.5)],
        [detail(calls_max=2**60)],
        [detail(budget_max=-1)],
        [detail(expires_at_sec=0)],
        [detail(expires_at_sec="2030-01-01")],
        [detail(identifier="node.records.read", expires_at_sec=1)],
        [detail(version="1")],
        [detail(version=None)],
        [detail(identifier="A.b")],
        [detail(identifier="a")],
        [detail(identifier="a*")],
        [detail(identifier="a.*.b")],
        [detail(identifier="x." + "y" * 200)],
        [detail(mounts="docs")],
        [detail(mounts=["../etc"])],
        [detail(mounts=None)],
        [detail(constraints={})],
        [detail(constraints=[True])],
        [detail(constraints=[{"$ref": "https://example.org/x"}])],
        [detail(constraints=[{"pattern": "(a+)+$"}])],
        [detail(constraints=[{"type": 3}])],
        [detail(constraints=[{"const": "x" * 5000}])],
        [detail()] * 33,
    ],
)
def test_what_is_not_understood_is_refused(wrong):
    """A field or value that is not known never passes as if it were honoured."""
    with pytest.raises(InvalidRequest) as caught:
        parse_details(wrong, problem_of)
    assert caught.value.error_code == "invalid_authorization_details"


@pytest.mark.parametrize(
    "text", ["", "{", '[{"type":"a","type":"b"}]', "x" * (DETAILS_BYTES_MAX + 1), "[" * 3000, "[NaN]", '"\ud800"']
)
def test_text_that_is_no_strict_json_is_refused(text):
    """Duplicate names, depth and length end in the same typed refusal."""
    with pytest.raises(InvalidRequest) as caught:
        parse_details_text(text, problem_of)
    assert caught.value.error_code == "invalid_authorization_details"


def test_scope_names_patterns():
    """Each word of `scope` is one right without limits, and rights show as scope again."""
    found = parse_scope("a.b c.* *")
    assert found == (Right("a.b"), Right("c.*"), Right("*"))
    assert scope_of(found) == "a.b c.* *"


@pytest.mark.parametrize("text", ["", " ", "a.b  c.d", "a.b ", "openid", "a.b\tc.d", " ".join(["a.b"] * 40)])
def test_other_scope_is_refused(text):
    """What is no pattern of capabilities is `invalid_scope`."""
    with pytest.raises(InvalidRequest) as caught:
        parse_scope(text)
    assert caught.value.error_code == "invalid_scope"

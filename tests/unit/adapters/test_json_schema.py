"""The schema checker: what it finds, what it refuses, and that it answers fast."""

from typing import Any

import pytest

from crank.adapters.json_schema import JsonSchemaChecker

_CHECKER = JsonSchemaChecker()


def test_it_says_where_and_why() -> None:
    """A problem names the field down to list positions, the cause and a fix."""
    schema = {
        "type": "object",
        "properties": {"rows": {"type": "array", "items": {"$ref": "#/$defs/row"}}},
        "$defs": {"row": {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}},
    }
    assert _CHECKER.check_schema(schema) is None
    problems = _CHECKER.check(schema, {"rows": [{"id": 1}, {"id": "x"}, {}]}, field="args")
    assert [problem.field for problem in problems] == ["args.rows[1].id", "args.rows[2]"]
    assert all(problem.cause and problem.fix for problem in problems)
    assert _CHECKER.check(schema, {"rows": []}, field="args") == []


def test_at_most_ten_problems_of_bounded_length() -> None:
    """A thousand mistakes give ten problems, and a huge value is not echoed."""
    problems = _CHECKER.check({"items": {"type": "null"}}, ["x" * 10_000] * 1_000, field="args")
    assert len(problems) == 10
    assert all(len(problem.cause) <= 301 for problem in problems)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"$schema": "http://json-schema.org/draft-07/schema#"},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "other.json"},
        {"allOf": [{"$dynamicRef": "https://example.com/#x"}]},
        {"const": {"$id": "http://127.0.0.1/", "$ref": "#x"}, "allOf": [{"$ref": "#/const"}]},
        {"pattern": "^(a+)+$"},
        {"pattern": "(a|a)*b"},
        {"pattern": "(a|aa)+$"},
        {"pattern": "([a-z]+)*="},
        {"pattern": "(.*,)*x"},
        {"pattern": "((ab)*)*"},
        {"pattern": r"(a)\1"},
        {"pattern": "("},
        {"pattern": "a" * 1_000},
        {"patternProperties": {"^(x+)+$": {}}},
        {"pattern": "^(aa?)+$"},
        {"pattern": "^(a|a){40}b"},
        {"pattern": "^(a?){40}a{40}$"},
        {"pattern": "a?" * 40 + "a" * 40},
        {"pattern": "(?:ab|a)" * 60},
        {"pattern": "(?=(a|a){40}b)x"},
        {"pattern": "^(a+){10}b"},
        {"pattern": "^" + "a*" * 12 + "b"},
        {"pattern": "(,a?a?)*x"},
        {"pattern": "(?:){4000000000}"},
        {"pattern": "(a)(?(1)b|c)"},
        {"minLength": -1},
        {"description": "x" * 300_000},
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema: dict[str, Any]) -> None:
    """Broken, remote, foreign, endless and huge schemas are refused when they are registered."""
    problem = _CHECKER.check_schema(schema)
    assert problem is not None
    assert problem.cause
    assert problem.fix


@pytest.mark.parametrize(
    "pattern",
    [
        r"^[a-z]+(\.[a-z]+)*$",
        r"^\d{4}-\d{2}-\d{2}$",
        "^(a|b|c)$",
        "^[^@]+@[^@]+$",
        "^(ab){1,3}$",
        "(a+)?x",
        "^([0-9a-f]{2}:){5}[0-9a-f]{2}$",
        r"^https?://[^\s/]+(/[^\s/]+)*/?$",
        r"^((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)$",
        r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:?\d{2})?$",
    ],
)
def test_ordinary_patterns_are_fine(pattern: str) -> None:
    """Patterns that people write are accepted."""
    assert _CHECKER.check_schema({"pattern": pattern}) is None


def test_a_property_may_be_called_like_a_keyword() -> None:
    """Properties named `$ref` or `pattern` are just properties."""
    schema = {"properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}, "$id": {"type": "string"}}}
    assert _CHECKER.check_schema(schema) is None


def test_references_that_never_end_are_cut() -> None:
    """A loop of references, and one that doubles at each step, give a problem instead of a hanging node."""
    assert _CHECKER.check({"$ref": "#"}, 1, field="args")
    doubling = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    schema = {"$ref": "#/$defs/d0", "$defs": {**doubling, "d40": {}}}
    assert "too long" in _CHECKER.check(schema, 1, field="args")[0].cause


def test_a_reference_to_nothing_is_a_problem() -> None:
    """A pointer that leads nowhere is said, and nothing is fetched."""
    assert "refers to nothing" in _CHECKER.check({"$ref": "#/$defs/none"}, 1, field="args")[0].cause


def test_a_remote_reference_is_never_fetched_while_checking() -> None:
    """Even a schema that was not checked first cannot make the node open a connection."""
    schema = {"const": {"$id": "http://127.0.0.1:1/", "$ref": "#x"}, "anyOf": [{"$ref": "#/const"}]}
    assert "refers to nothing" in _CHECKER.check(schema, 1, field="args")[0].cause


@pytest.mark.parametrize(
    ("entries", "fine"), [([1, 1.0], False), ([1, True], True), ([[1], [1]], False), ([{"a": 1}, {"a": 2}], True)]
)
def test_unique_entries_follow_the_standard(entries: list[Any], fine: bool) -> None:
    """1 and 1.0 are one value, 1 and true are two; lists and objects are compared whole."""
    assert (not _CHECKER.check({"uniqueItems": True}, entries, field="args")) is fine


@pytest.mark.parametrize("repeats", range(1, 9))
def test_the_worst_text_that_is_matched_at_all_is_matched_soon(repeats: int) -> None:
    """Whatever the number of open repeats, the longest text that is tried ends within seconds."""
    schema = {"pattern": "a*" * repeats + "b"}
    for length in (32, 60, 118, 250, 1_000, 19_000, 100_000):
        assert _CHECKER.check(schema, "a" * length, field="args")


def test_a_long_text_is_not_matched_with_an_open_pattern() -> None:
    """Several open repeats over a very long text are refused instead of tried."""
    schema = {"pattern": "a*a*a*a*b"}
    assert _CHECKER.check_schema(schema) is None
    assert "too long" in _CHECKER.check(schema, "a" * 100_000, field="args")[0].cause


@pytest.mark.parametrize("pattern", ["^x|a*a*a*b", "(?m)^a*a*a*b"])
def test_only_a_pattern_that_begins_at_the_start_whatever_comes_is_taken_for_anchored(pattern: str) -> None:
    """A `^` in one branch, or one that stands for each line, saves no search from starting at every place."""
    assert _CHECKER.check({"pattern": pattern}, "a" * 500, field="args")[0].cause.startswith("It takes too long")


def test_what_is_too_long_to_be_matched_passes_no_denial() -> None:
    """A schema that forbids a pattern is not satisfied by a text that is too long to be searched for it."""
    schema = {"not": {"pattern": "^a*a*a*/etc"}}
    assert not _CHECKER.check(schema, "aaa", field="args")
    assert _CHECKER.check(schema, "/etc", field="args")
    assert _CHECKER.check(schema, "/etc" + "a" * 5_000, field="args")


@pytest.mark.parametrize("keyword", ["additionalProperties", "unevaluatedProperties"])
def test_names_are_matched_within_the_same_bounds(keyword: str) -> None:
    """A long name is refused before any keyword searches it with the patterns for names, which the library does by itself."""
    schema = {keyword: False, "patternProperties": {"^a*a*a*a*b": {}}}
    assert _CHECKER.check_schema(schema) is None
    assert "too long" in _CHECKER.check(schema, {"a" * 20_000: 1}, field="args")[0].cause
    assert _CHECKER.check(schema, {"aab": 1}, field="args") == []


def test_a_check_that_repeats_itself_for_ever_is_given_up() -> None:
    """Many small steps that none of the other bounds sees end with the time that one check may take."""
    schema = {"allOf": [{"items": {"type": "integer"}}] * 400}
    assert "too long" in _CHECKER.check(schema, [0] * 400_000, field="args")[0].cause
